"""The short form of `make torture-swap`: real processes, a Postgres of their own, real kills."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_whoever_dies_while_swapping_an_index_leaves_the_old_release_or_the_new_one(tmp_path):
    command = [sys.executable, str(Path(__file__).parent / "swap_torture.py"), "--kills", "12", "--minutes", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "'kills': 12" in done.stdout
