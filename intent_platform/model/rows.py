"""Sequence rows as numpy arrays: the one view of a shopper's events that features, network and scoring share."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent_platform.domain import EVENT_TYPES

TYPE_CODE = {name: code for code, name in enumerate(sorted(EVENT_TYPES))}
"""Event type → code; sorted, so the order in which the domain lists them means nothing."""

US_PER_HOUR = 3_600_000_000
US_PER_DAY = 24 * US_PER_HOUR

_TYPES = pa.array(sorted(EVENT_TYPES))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """R events of U users in long form, by (user_id, occurred_at, event_id); user u owns starts[u]:starts[u + 1]."""

    table: pa.Table
    starts: np.ndarray  # int64 (U + 1,)

    @classmethod
    def of(cls, table: pa.Table, *, until: datetime | None = None) -> "Rows":
        """Take a sequence table; with `until`, only what had happened by then."""
        if until is not None:
            moment = pa.scalar(until, table["occurred_at"].type)
            if table.num_rows and pc.max(table["occurred_at"]).as_py() > until:
                table = table.filter(pc.less_equal(table["occurred_at"], moment))
        table = table.combine_chunks()
        return cls(table=table, starts=_starts(table["user_id"]))

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def users(self) -> int:
        return len(self.starts) - 1

    def of_users(self, users: Iterable[int]) -> pa.Table:
        """The rows of these users alone, without a look at the others'."""
        spans = [self.table.slice(self.starts[each], self.starts[each + 1] - self.starts[each]) for each in users]
        return pa.concat_tables([self.table.slice(0, 0), *spans])

    @cached_property
    def user_ids(self) -> pa.Array:
        return one_array(self.table["user_id"].take(pa.array(self.starts[:-1])))

    @cached_property
    def user(self) -> np.ndarray:
        """int64 (R,): which user owns the row."""
        return np.repeat(np.arange(self.users), np.diff(self.starts))

    @cached_property
    def at(self) -> np.ndarray:
        """int64 (R,): occurred_at in µs since 1970."""
        return _micros(self.table["occurred_at"])

    @cached_property
    def session_at(self) -> np.ndarray:
        """int64 (R,): when the row's session began, in µs; not before its shopper's first row.

        The day of a sequence knows of an event before that, which lies in no window of ours any more, or with the user
        that the device was linked to by then; a scorer knows nothing of it.
        """
        return np.maximum(_micros(self.table["session_started_at"]), self.at[self.starts[:-1]][self.user])

    @cached_property
    def type_code(self) -> np.ndarray:
        """int64 (R,): TYPE_CODE of the event."""
        return one_array(pc.index_in(self.table["event_type"], value_set=_TYPES)).to_numpy(zero_copy_only=False)

    def is_type(self, *names: str) -> np.ndarray:
        is_wanted = np.zeros(len(TYPE_CODE), bool)
        is_wanted[[TYPE_CODE[name] for name in names]] = True
        return is_wanted[self.type_code]

    @cached_property
    def price(self) -> np.ndarray:
        """float64 (R,), NaN where unknown."""
        return _floats(self.table["price"])

    @cached_property
    def quantity(self) -> np.ndarray:
        """float64 (R,), 1 where unknown."""
        quantity = _floats(self.table["quantity"])
        return np.where(np.isnan(quantity), 1.0, quantity)

    @cached_property
    def item(self) -> tuple[np.ndarray, pa.Array]:
        """Codes (−1: no item) and the distinct item ids they stand for."""
        return _dictionary(self.table["item_id"])

    @cached_property
    def category(self) -> tuple[np.ndarray, pa.Array]:
        return _dictionary(self.table["category"])

    @cached_property
    def query(self) -> tuple[np.ndarray, pa.Array]:
        return _dictionary(self.table["query_text"])

    @cached_property
    def currency(self) -> tuple[np.ndarray, list[str]]:
        """Codes from 1 in order of the currency's name (0: none), so that ties do not depend on the order of rows."""
        codes, distinct = _dictionary(self.table["currency"])
        names = distinct.to_pylist()
        order = sorted(range(len(names)), key=names.__getitem__)
        rank = np.zeros(len(names) + 1, np.int64)
        rank[order] = np.arange(1, len(names) + 1)
        return rank[codes], [names[each] for each in order]

    def first_after(self, users: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """For each (user, moment): index of the user's first row later than the moment; starts[user + 1] if none."""
        found, stop = self.starts[users], self.starts[users + 1]
        # One binary search per user, all at once: (user, time) as one sorted number does not fit 64 bits in big shops.
        longest = int((stop - found).max(initial=0))
        for step in (1 << bit for bit in reversed(range(longest.bit_length()))):
            next_found = found + step
            is_past = (next_found <= stop) & (self.at[np.minimum(next_found, stop) - 1] <= moments)
            found = np.where(is_past, next_found, found)
        return found


def micros(moment: datetime) -> int:
    """µs since 1970 of a time-zone-aware moment."""
    return round(moment.timestamp() * 1_000_000)


def _starts(user_ids: pa.ChunkedArray) -> np.ndarray:
    count = len(user_ids)
    if count == 0:
        return np.zeros(1, np.int64)
    ids = one_array(user_ids)
    changes = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [count]]).astype(np.int64)


def one_array(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The same in one piece, not copied where it is one already: a slice then still has its whole table's buffers."""
    if isinstance(values, pa.Array):
        return values
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


def _micros(values: pa.ChunkedArray) -> np.ndarray:
    return one_array(values).view(pa.int64()).to_numpy(zero_copy_only=False)


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    return one_array(values).cast(pa.float64()).to_numpy(zero_copy_only=False)


def _dictionary(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    encoded = one_array(values).dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary
