"""The short form of `make torture`: real processes, a Postgres of their own, real kills, stops and a full disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_faults_of_every_kind_lose_double_and_tear_nothing(tmp_path):
    bounds = {"--kills": "30", "--stops": "2", "--faults": "1", "--minutes": "2"}
    command = [
        sys.executable,
        str(Path(__file__).parent / "torture.py"),
        *(each for pair in bounds.items() for each in pair),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    figures = json.loads((tmp_path / "var" / "bench" / "torture.json").read_text())["figures"]
    faults = {"kills", "postgres_stops", "stopped", "deaf", "clock_steps", "long_transactions", "poisoned"}
    if "No full disk in this run" not in done.stdout:
        faults |= {"full_disk", "full_disk_refusals"}
    assert [fault for fault in sorted(faults) if not figures[fault]] == []
