"""The short form of `make torture-release`: real processes, a Postgres of their own, swaps and rollbacks under load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_no_profile_is_made_of_two_releases_while_they_are_swapped(tmp_path):
    script = str(Path(__file__).parent / "release_torture.py")
    command = [sys.executable, script, "--scores", "10000", "--users", "2500", "--minutes", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = done.stdout[-2000:] + done.stderr[-4000:]
    assert "Written to" in done.stdout, told
    figures = json.loads((tmp_path / "var" / "bench" / "torture-release.json").read_text())["figures"]
    assert (figures["scored"], figures["mixed"]) == (10_000, 0), told
    assert 0 < figures["scored_by_second"] < figures["scored"], told
    assert figures["pick_up_p50_s"] < 1, told
