"""Session nearest neighbours (VSTAN) and sequential rules: the simple next-item scorers that networks often lose to.

VSTAN: Ludewig, Mauro, Latifi, Jannach, "Empirical analysis of session-based recommendation algorithms", UMUAI 2021:
vector multiplication session-kNN (VS-kNN) with STAN's three decays. Sequential rules: the same paper's SR.

Q prefixes (what a shopper touched so far), S stored sessions, N items. Runs of items are flat arrays with offsets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from intent_platform.model.rows import Rows

PREFIXES_PER_CHUNK = 512
"""Prefixes scored together; with 500 neighbours of 5 items each that is about 1.3 M scores in memory."""

PREFIX_ITEMS = 20
"""Newest items of a session that are looked at; λ₁ leaves older ones no weight."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Item positions of many sessions or prefixes, one after another, each oldest first."""

    item: np.ndarray  # int64 (total,), 0 … N − 1
    starts: np.ndarray  # int64 (runs + 1,)

    @classmethod
    def of(cls, runs: list[list[int]]) -> "Runs":
        lengths = [len(each) for each in runs]
        flat = np.fromiter((item for each in runs for item in each), np.int64, sum(lengths))
        return cls(item=flat, starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def owner(self) -> np.ndarray:
        """int64 (total,): which run an item belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @cached_property
    def from_end(self) -> np.ndarray:
        """int64 (total,): 0 for a run's newest item."""
        return self.starts[1:][self.owner] - 1 - np.arange(len(self.item))

    def newest(self, count: int) -> "Runs":
        """The last `count` runs."""
        return self.slice(max(len(self) - count, 0), len(self))

    def slice(self, first: int, last: int) -> "Runs":
        starts = self.starts[first : last + 1]
        return Runs(item=self.item[starts[0] : starts[-1]], starts=starts - starts[0])


DENSE_ENTRIES = 8_000_000
"""A table of prefixes by items up to this size is made whole, which is faster than to sort entries for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decays:
    """Settings of VSTAN; an infinite decay leaves the step out."""

    neighbours: int = 500
    prefix: float = 1.5  # λ₁: in items; how fast older items of the prefix lose weight
    session_age: float = np.inf  # λ₂: in sessions; how fast older stored sessions lose weight
    distance: float = 3.0  # λ₃: in items; how near a stored item lies to the matched one
    idf: float = 1.0  # weight of log(sessions / sessions with the item)


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionNeighbours:
    """Stored sessions, oldest first, that answer prefixes with the items of the sessions most like them."""

    sessions: Runs
    items: int
    decays: Decays = Decays()

    def scores(self, prefixes: Runs) -> Iterator[sp.csr_matrix]:
        """Scores (chunk, N) of consecutive chunks of prefixes, 0 for items that no neighbour holds."""
        for first in range(0, len(prefixes), PREFIXES_PER_CHUNK):
            chunk = prefixes.slice(first, min(first + PREFIXES_PER_CHUNK, len(prefixes)))
            yield self.scores_of(Held.of(chunk, self.items))

    @cached_property
    def _holds(self) -> sp.csr_matrix:
        """(N, S): what a session that holds an item counts for: less if it is long, or old; float64 as the weights that
        it is multiplied with, or each product would convert all of it."""
        entry = np.ones(len(self.sessions.item))
        found = sp.csr_matrix(
            (entry, (self.sessions.item, self.sessions.owner)), shape=(self.items, len(self.sessions))
        )
        age = np.arange(len(self.sessions))[::-1]
        freshness = np.exp(-age / self.decays.session_age) if np.isfinite(self.decays.session_age) else 1.0
        weight = freshness / np.sqrt(np.maximum(np.diff(self.sessions.starts), 1))
        found.data = weight[found.indices]
        return found

    @cached_property
    def _idf(self) -> np.ndarray:
        frequency = np.diff(self._holds.indptr)
        return np.where(frequency > 0, np.log(max(len(self.sessions), 1) / np.maximum(frequency, 1)), 0.0)

    @cached_property
    def _idf_weight(self) -> np.ndarray:
        return 1.0 + self.decays.idf * self._idf

    @cached_property
    def _item(self) -> np.ndarray:
        """int32 (total,): the sessions' items, in half the memory: most of the time they take is to come out of it."""
        return self.sessions.item.astype(np.int32)

    def scores_of(self, held: "Held") -> sp.csr_matrix:
        """Scores (Q, N) of at most PREFIXES_PER_CHUNK prefixes; by a whole table where it is small, which spares the
        sort."""
        key, score = self._scored(held)
        shape = (len(held.prefixes), self.items)
        if shape[0] * shape[1] > max(DENSE_ENTRIES, 4 * len(score)):
            found = sp.csr_matrix((score, np.divmod(key, self.items)), shape=shape)
        else:
            total = np.bincount(key, weights=score, minlength=shape[0] * shape[1])
            above = np.flatnonzero(total)
            starts = np.searchsorted(above, np.arange(shape[0] + 1) * np.int64(self.items))
            found = sp.csr_matrix((total[above], above % self.items, starts), shape=shape)
        found.data = found.data * self._idf_weight[found.indices]
        return found

    def table_of(self, held: "Held") -> np.ndarray:
        """float64 (Q, N): the same, whole."""
        key, score = self._scored(held)
        total = np.bincount(key, weights=score, minlength=len(held.prefixes) * self.items)
        return total.reshape(-1, self.items) * self._idf_weight

    def _scored(self, held: "Held") -> tuple[np.ndarray, np.ndarray]:
        """What each item of each neighbour adds: its key, prefix × N + item, and how much, without the item's idf."""
        prefix, session, likeness = self._nearest(held)
        begin = self.sessions.starts[session]
        length = self.sessions.starts[session + 1] - begin
        first = np.cumsum(length) - length
        # From here on all is by item of a pair's session; np.repeat spreads a pair's value over them.
        place = np.repeat(begin - first, length)  # in self.sessions.item
        place += np.arange(len(place))
        key = np.repeat(prefix * self.items, length)
        key += self._item[place]
        step = place - np.repeat(self._matched(held.place_of(key), place, first), length)
        closeness = np.exp(-np.arange(int(length.max(initial=0)) + 1) / self.decays.distance)
        score = closeness[np.abs(step, out=step)]
        score *= np.repeat(likeness, length)
        return key, score

    def _nearest(self, held: "Held") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(prefix, session, likeness) of each prefix's most alike sessions: the dot product of what they hold, a newer
        item of the prefix weighing more, over the square root of the session's length."""
        weight = np.exp(-held.from_end / self.decays.prefix)
        likeness = held.matrix(weight) @ self._holds
        prefix, kept = largest_of_rows(likeness, self.decays.neighbours)  # of equals the newest session wins
        return prefix, likeness.indices[kept], likeness.data[kept]

    def _matched(self, in_prefix: np.ndarray, place: np.ndarray, first: np.ndarray) -> np.ndarray:
        """For each pair: where its session holds the prefix's newest item that it holds, last if several times.

        in_prefix, place: of each item of the pairs' sessions, in the prefix (0: not there) and in self.sessions.item.
        first: where each pair's items begin.
        """
        if not len(first):
            return first
        rank = in_prefix * len(self.sessions.item)
        rank += place
        return np.maximum.reduceat(rank, first) % len(self.sessions.item)


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """Each item of each prefix once, where it stands last, in order of (prefix, item); E of them in all."""

    prefixes: Runs
    items: int
    key: np.ndarray  # int64 (E,): prefix × N + item
    newest: np.ndarray  # int64 (E,): index into prefixes.item

    @classmethod
    def of(cls, prefixes: Runs, items: int) -> "Held":
        keys = prefixes.owner * np.int64(items) + prefixes.item
        key, from_back = np.unique(keys[::-1], return_index=True)
        return cls(prefixes=prefixes, items=items, key=key, newest=len(keys) - 1 - from_back)

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 (Q + 1,): where each prefix's items begin."""
        return np.searchsorted(self.key, np.arange(len(self.prefixes) + 1) * np.int64(self.items))

    @property
    def item(self) -> np.ndarray:
        return self.prefixes.item[self.newest]

    @property
    def from_end(self) -> np.ndarray:
        return self.prefixes.from_end[self.newest]

    @cached_property
    def place(self) -> np.ndarray:
        """int64 (E,): in the prefix, from 1."""
        return self.newest - self.prefixes.starts[self.prefixes.owner[self.newest]] + 1

    def matrix(self, weight: np.ndarray) -> sp.csr_matrix:
        """(Q, N), from a weight of each item."""
        return sp.csr_matrix((weight, self.item, self.starts), shape=(len(self.prefixes), self.items))

    def place_of(self, asked: np.ndarray) -> np.ndarray:
        """int64: where items stand in prefixes, from 1; 0 where they do not. asked: as `key`."""
        size = len(self.prefixes) * self.items
        if size <= DENSE_ENTRIES:
            table = np.zeros(size, np.int64)
            table[self.key] = self.place
            return table[asked]
        if not len(self.key):
            return np.zeros_like(asked)
        near = np.minimum(np.searchsorted(self.key, asked), len(self.key) - 1)
        return np.where(self.key[near] == asked, self.place[near], 0)


_VALUE_AND_COLUMN = np.dtype([("column", "<i4"), ("value", "<f4")])
"""Read as one whole number it is in order of value and column: the bits of a float from 0 up grow with it."""


def by_value_and_column(value: np.ndarray, column: np.ndarray) -> np.ndarray:
    """int64, of value's shape: whole numbers in the order of (value, column); values, none below 0, as float32."""
    pairs = np.empty(value.shape, _VALUE_AND_COLUMN)
    pairs["value"], pairs["column"] = value, column
    return pairs.view("<i8")


def largest_of_rows(matrix: sp.csr_matrix, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Row, and place in matrix.data, of the `count` largest entries of each row (all above 0), by row; of equals the
    later column."""
    key = by_value_and_column(matrix.data, matrix.indices)
    kept = [np.zeros(0, np.int64)]
    for start, stop in zip(matrix.indptr[:-1].tolist(), matrix.indptr[1:].tolist(), strict=True):
        if stop - start <= count:
            kept.append(np.arange(start, stop))
        else:
            kept.append(start + np.argpartition(key[start:stop], stop - start - count)[-count:])
    row = np.repeat(np.arange(matrix.shape[0]), np.minimum(np.diff(matrix.indptr), count))
    return row, np.concatenate(kept)


def fit_decays(sessions: Runs, items: int, prefixes: Runs, target: np.ndarray) -> Decays:
    """The decays with the best MRR@20 on validation prefixes, which come after the sessions; one after another.

    target: int64 (Q,), the item that followed each prefix.
    """
    age = len(sessions)
    best, best_mrr = Decays(), -1.0
    for choice in (
        lambda so_far: [replace(so_far, session_age=each) for each in (np.inf, age, age / 3)],
        lambda so_far: [replace(so_far, distance=each) for each in (3.0, 6.0, 12.0)],
        lambda so_far: [replace(so_far, prefix=each) for each in (1.5, 0.8, 4.0)],
        lambda so_far: [replace(so_far, idf=each) for each in (1.0, 0.0, 3.0)],
    ):
        for decays in choice(best):
            rank = sparse_ranks(
                SessionNeighbours(sessions=sessions, items=items, decays=decays).scores(prefixes), target
            )
            mrr = float(np.where(rank <= 20, 1 / rank, 0).mean())
            if mrr > best_mrr:
                best, best_mrr = decays, mrr
    return best


def sparse_ranks(scores: Iterable[sp.csr_matrix], target: np.ndarray) -> np.ndarray:
    """int64: place of each row's target, from 1; equals count before it, and without a score it comes last."""
    found, first = [], 0
    for chunk in scores:
        wanted = target[first : first + chunk.shape[0]]
        first += chunk.shape[0]
        chunk.sum_duplicates()
        own = np.asarray(chunk[np.arange(len(wanted)), wanted]).ravel()
        row = _row_of_entries(chunk)
        at_least = np.bincount(row, weights=chunk.data >= own[row], minlength=len(wanted)).astype(np.int64)
        found.append(np.where(own > 0, at_least, chunk.shape[1]))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def sequential_rules(sessions: Runs, items: int, *, steps: int = 10) -> sp.csr_matrix:
    """(N, N): how strongly item a is followed by item b; each following at distance d adds 1 / d."""
    ahead = []
    for distance in range(1, steps + 1):
        first = np.arange(len(sessions.item) - distance)
        is_same = sessions.owner[first] == sessions.owner[first + distance]
        first = first[is_same]
        weight = np.full(len(first), 1.0 / distance, np.float32)
        ahead.append(sp.csr_matrix((weight, (sessions.item[first], sessions.item[first + distance])), (items, items)))
    return sum(ahead[1:], start=ahead[0]).tocsr()


def sessions_of(rows: Rows, item: np.ndarray, until: int | None = None) -> Runs:
    """Items touched (before `until`, in µs), session by session, oldest session first.

    item: int64 (R,), positions, −1 for none.
    """
    kept = np.flatnonzero((item >= 0) & (True if until is None else rows.at < until))
    order = kept[np.lexsort((kept, rows.user[kept], rows.session_at[kept]))]
    is_new = np.ones(len(order), bool)
    user, began = rows.user[order], rows.session_at[order]
    is_new[1:] = (user[1:] != user[:-1]) | (began[1:] != began[:-1])
    return Runs(item=item[order], starts=np.append(np.flatnonzero(is_new), len(order)).astype(np.int64))


def prefixes_at(rows: Rows, item: np.ndarray, positions: np.ndarray) -> Runs:
    """Items of the session up to each position (int64 (Q,) rows), at most PREFIX_ITEMS; after searches only, none."""
    with_item = np.flatnonzero(item >= 0)
    begun = rows.first_after(rows.user[positions], rows.session_at[positions] - 1)
    stop = np.searchsorted(with_item, positions, side="right")
    start = np.maximum(np.searchsorted(with_item, begun), stop - PREFIX_ITEMS)
    length = np.maximum(stop - start, 0)
    starts = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], length) + np.repeat(start, length)
    return Runs(item=item[with_item[place]], starts=starts)


def _row_of_entries(matrix: sp.csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
