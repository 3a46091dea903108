"""Stages of a stream that work at the same time: each item is made in a thread while the one before is still in use."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
_END: Any = object()


@contextmanager
def ahead(items: Generator[Item, None, None]) -> Iterator[Iterator[Item]]:
    """The same items in the same order, one of them made ahead. It pays where most work happens outside Python.

    What `items` raises is raised to the caller in its place. Leaving the block waits for the item in the making, then
    closes `items`; no thread stays.
    """
    with closing(items), ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        yield _one_ahead(items, thread)


def _one_ahead(items: Iterator[Item], thread: ThreadPoolExecutor) -> Iterator[Item]:
    coming = thread.submit(next, items, _END)
    while (item := coming.result()) is not _END:
        coming = thread.submit(next, items, _END)
        yield item
