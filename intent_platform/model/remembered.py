"""What was read of the newest windows, so that reading goes on where a window begins with the same rows."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np

from intent_platform.model.inputs import NUMBERS, EventInputs, Windows

WINDOWS = 1_000
"""Windows that are remembered. At 50 rows, width and hidden 128 each takes 68 kB, but only once it is in use."""

_ROW = np.dtype(
    [("item", np.int64), ("type_code", np.int64), ("query", np.int64), ("numbers", np.float32, len(NUMBERS))]
)


def contents_of(events: EventInputs, windows: Windows) -> list[bytes]:
    """Per window all that a network reads of its rows, _ROW by _ROW; a query by the hash of its vector.

    Codes of queries are those of one batch, hashes the same in all of a process.
    """
    size = windows.stop - windows.start
    stop = np.cumsum(size)
    row = np.arange(stop[-1]) + np.repeat(windows.stop - stop, size)
    queries = events.query[row]
    number_of = np.zeros(len(events.query_vectors) + 1, np.int64)  # the last is for none, −1
    for query in set(queries[queries >= 0].tolist()):
        number_of[query] = hash(events.query_vectors[query].tobytes())
    table = np.empty(len(row), _ROW)
    table["item"] = events.item[row]
    table["type_code"] = events.type_code[row]
    table["query"] = number_of[queries]
    table["numbers"] = events.numbers[row]
    whole = table.tobytes()
    edges = (np.append(0, stop) * _ROW.itemsize).tolist()
    return [whole[start:end] for start, end in pairwise(edges)]


class Remembered:
    """Windows by their first row, each with a place in the arrays; the one that was asked for longest ago gives way.

    What a window has from the first row on that differs is read anew: after an event that came late or has changed, or
    another item. A window that moved on is another one, and where the items' vectors are others, all are.
    """

    def __init__(self, length: int, width: int, hidden: int) -> None:
        """Windows have at most `length` rows; hidden: of both readers."""
        self.read = np.zeros((WINDOWS, length, hidden), np.float32)  # states after each row
        self.meant = np.zeros((WINDOWS, length, width), np.float32)
        self._item_vectors: np.ndarray | None = None
        self._known: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()  # first row → place, content
        self._unused = list(range(WINDOWS))  # places

    def __len__(self) -> int:
        return len(self._known)

    def find(self, contents: list[bytes], item_vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """int64 (W,) place of each window and how many of its rows it holds; None where two begin with the same row.

        The places hold nothing until `keep`, so that what fails in between is not taken for read.
        """
        firsts = [content[: _ROW.itemsize] for content in contents]
        if len(set(firsts)) < len(firsts):
            return None
        if item_vectors is not self._item_vectors:
            self._item_vectors = item_vectors
            self._known.clear()
            self._unused = list(range(len(self.read)))
        places, held = [], []
        for first, content in zip(firsts, contents, strict=True):
            place, before = self._known[first] if first in self._known else (self._free_place(), b"")
            self._known[first] = place, b""
            self._known.move_to_end(first)
            places.append(place)
            held.append(_rows_alike(content, before))
        return np.array(places), np.array(held)

    def keep(self, contents: list[bytes], place: np.ndarray) -> None:
        """The places now hold the whole windows."""
        for content, each in zip(contents, place.tolist(), strict=True):
            self._known[content[: _ROW.itemsize]] = each, content

    def _free_place(self) -> int:
        return self._unused.pop() if self._unused else self._known.popitem(last=False)[1][0]


def _rows_alike(content: bytes, before: bytes) -> int:
    """How many rows both begin with."""
    if content.startswith(before):
        return len(before) // _ROW.itemsize
    length = min(len(content), len(before))
    differs = np.frombuffer(content, np.uint8, length) != np.frombuffer(before, np.uint8, length)
    return int(differs.argmax() if differs.any() else length) // _ROW.itemsize
