"""A batch gives way, and never takes back what a person gave away before."""

import subprocess
import sys

import pytest

TOLD = """
import os
from intent_platform.priority import give_way
give_way({})
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.parametrize(("before", "asked", "after"), [(0, 10, "10"), (0, 0, "0"), (15, 10, "15")])
def test_a_process_yields_as_far_as_it_is_told(before, asked, after):
    command = ["nice", "-n", str(before), sys.executable, "-c", TOLD.format(asked)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == after
