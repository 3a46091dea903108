"""Batches give way to whoever serves shoppers on the same machine."""

import os


def give_way(niceness: int) -> None:
    """Lower this process's priority to a niceness, as of nice(1), for good; threads that run already keep theirs.

    For a process of a batch alone, after it has started whatever server others use.
    """
    if niceness > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
