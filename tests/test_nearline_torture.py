"""The short form of `make torture`: real processes, a Postgres of their own, real kills."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_killed_workers_and_a_stopped_postgres_lose_double_and_tear_nothing(tmp_path):
    command = [
        sys.executable,
        str(Path(__file__).parent / "torture.py"),
        "--kills",
        "30",
        "--stops",
        "2",
        "--minutes",
        "2",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
