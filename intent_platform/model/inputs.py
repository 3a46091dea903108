"""What the network reads of each event, and which runs of events it reads together (packed, never padded)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent_platform.model.rows import US_PER_DAY, Rows
from intent_platform.model.text import TextTower, text_key

NUMBERS = (
    "gap",
    "is_new_session",
    "session_age",
    "has_price",
    "price",
    "is_same_item",
    "is_same_category",
    "is_cheaper",
    "is_dearer",
    "price_step",
    "is_seen_before",
    "hour_sin",
    "hour_cos",
)
"""Columns of EventInputs.numbers; each lies roughly within −2 … 2."""

BATCHES_SORTED = 32
"""Batches' worth of windows that are sorted by length together; with all of them, epochs would repeat their batches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """N items as the network sees them; positions 0 … N − 1."""

    item_ids: pa.Array
    text_vectors: np.ndarray  # float32 (N, text dimensions)
    categories: list[str | None]
    log_price: np.ndarray  # float32 (N,), NaN where unknown


@dataclass(frozen=True, kw_only=True, eq=False)
class EventInputs:
    """R events of Rows, in the same order."""

    item: np.ndarray  # int64 (R,): position in the catalogue, −1 for none or unknown
    query: np.ndarray  # int64 (R,): row of query_vectors, −1 for none
    query_vectors: np.ndarray  # float32 (distinct queries, text dimensions)
    type_code: np.ndarray  # int64 (R,)
    numbers: np.ndarray  # float32 (R, len(NUMBERS))


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Events beside the items they touch: all that a network reads."""

    rows: Rows
    events: EventInputs
    catalogue: Catalogue

    @property
    def item_category(self) -> np.ndarray:
        """int64 (N,): codes of the catalogue's categories, −1 for none."""
        return category_codes(self.catalogue.categories)


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownItems:
    """Item vectors and categories by position, as the index holds them."""

    vectors: np.ndarray  # float32 (N, D)
    category: np.ndarray  # int64 (N,), −1 for none


def catalogue_of(items: pa.Table, text_vectors: np.ndarray) -> Catalogue:
    """From a table with item_id, category, price, and its text vectors row by row."""
    price = items["price"].cast(pa.float64()).to_numpy()
    return Catalogue(
        item_ids=items["item_id"].combine_chunks(),
        text_vectors=text_vectors,
        categories=items["category"].to_pylist(),
        log_price=np.log1p(np.maximum(price, 0)).astype(np.float32),
    )


def category_codes(categories: list[str | None]) -> np.ndarray:
    """int64: a number per name, −1 for none."""
    codes = pa.array(categories, pa.string()).dictionary_encode().indices.fill_null(-1)
    return codes.to_numpy(zero_copy_only=False).astype(np.int64)


def read_events(rows: Rows, item: np.ndarray, item_category: np.ndarray, text: TextTower) -> EventInputs:
    """item: (R,) position or −1. item_category: (N,) category codes of the positions."""
    codes, distinct = _queries(rows)
    return EventInputs(
        item=item,
        query=codes,
        query_vectors=text.vectors(distinct),
        type_code=rows.type_code,
        numbers=_numbers(rows, item, item_category),
    )


def _queries(rows: Rows) -> tuple[np.ndarray, list[str]]:
    """int64 (R,) codes of each row's query, −1 for none, and the sorted text keys that they stand for."""
    codes, texts = rows.query
    keys = [text_key(text) for text in texts.to_pylist()]
    distinct = sorted(set(keys))
    place = {key: number for number, key in enumerate(distinct)}
    lookup = np.array([place[key] for key in keys] + [-1], np.int64)
    return lookup[codes], distinct


def _numbers(rows: Rows, item: np.ndarray, item_category: np.ndarray) -> np.ndarray:
    gap = np.zeros(len(rows))
    gap[1:] = (rows.at[1:] - rows.at[:-1]) / 1e6
    gap[rows.starts[:-1]] = 0.0
    codes, _ = rows.item
    category = np.append(item_category, -1)[item]
    before = _item_row_before(rows)
    has_before = before >= 0
    price = np.log1p(np.maximum(rows.price, 0))
    step = price - price[before]
    same_item = (codes >= 0) & has_before & (codes == codes[before])
    same_category = (category >= 0) & has_before & (category == category[before])
    known_step = np.where(same_category & ~same_item & np.isfinite(step), step, 0.0)
    angle = 2 * np.pi * (rows.at % US_PER_DAY) / US_PER_DAY
    columns = [
        np.log1p(gap) / 6,
        rows.at == rows.session_at,
        np.log1p((rows.at - rows.session_at) / 1e6) / 6,
        np.isfinite(price),
        np.where(np.isfinite(price), price, 0.0) / 5,
        same_item,
        same_category,
        known_step < 0,
        known_step > 0,
        np.clip(known_step, -2, 2),
        _is_seen_before(rows.user, codes),
        np.sin(angle),
        np.cos(angle),
    ]
    numbers = np.empty((len(NUMBERS), len(rows)), np.float32)
    numbers[:] = columns
    return np.ascontiguousarray(numbers.T)


def _item_row_before(rows: Rows) -> np.ndarray:
    """For each row: the user's newest earlier row with an item; −1 if none."""
    has_item = rows.item[0] >= 0
    newest = np.maximum.accumulate(np.where(has_item, np.arange(len(rows)), -1)) if len(rows) else np.zeros(0, np.int64)
    before = np.concatenate([[-1], newest[:-1]]) if len(rows) else newest
    return np.where(before >= rows.starts[:-1][rows.user], before, -1)


def _is_seen_before(user: np.ndarray, codes: np.ndarray) -> np.ndarray:
    order = np.lexsort((np.arange(len(codes)), codes, user))
    is_repeat = np.zeros(len(codes), bool)
    if len(codes) > 1:
        is_repeat[order[1:]] = (codes[order][1:] == codes[order][:-1]) & (user[order][1:] == user[order][:-1])
    return is_repeat & (codes >= 0)


def positions_of(item_ids: pa.Array, rows: Rows) -> np.ndarray:
    """int64 (R,): where each row's item stands in item_ids; −1 for none or unknown."""
    codes, distinct = rows.item
    found = pc.index_in(distinct, value_set=item_ids).fill_null(-1).to_numpy(zero_copy_only=False)
    return np.append(found.astype(np.int64), -1)[codes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Runs start:stop of one user's rows; only rows from counts_from on are read out."""

    start: np.ndarray
    stop: np.ndarray
    counts_from: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def take(self, which: np.ndarray) -> "Windows":
        return Windows(start=self.start[which], stop=self.stop[which], counts_from=self.counts_from[which])


def tile(starts: np.ndarray, stops: np.ndarray, length: int) -> Windows:
    """Cover each run with windows of at most `length` that overlap by half: every row counts once, with its past."""
    size = stops - starts
    starts, size = starts[size > 0], size[size > 0]
    stride = max(length // 2, 1)
    more = np.maximum(-(-(size - length) // stride), 0)
    run = np.repeat(np.arange(len(starts)), more + 1)
    number = np.arange(len(run)) - np.repeat(np.cumsum(more + 1) - (more + 1), more + 1)
    start = starts[run] + number * stride
    stop = np.minimum(start + length, (starts + size)[run])
    counts_from = np.where(number == 0, start, start + length - stride)
    return Windows(start=start, stop=stop, counts_from=counts_from)


def last_events(rows: Rows, positions: np.ndarray, length: int) -> Windows:
    """For each position the window of `tile` that counts it, over its user's rows, read out at the position only.

    So it holds all events, or at most `length` and more than half as many, and most events do not move its beginning.
    """
    first = rows.starts[:-1][rows.user[positions]]
    stride = max(length // 2, 1)
    number = np.maximum(positions - first - length + stride, 0) // stride
    return Windows(start=first + number * stride, stop=positions + 1, counts_from=positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """Rows of some windows, first events of all windows first: torch's packed order, P rows, no padding."""

    row: np.ndarray  # int64 (P,)
    batch_sizes: np.ndarray  # int64 (T,): windows that have a t-th event
    is_read_out: np.ndarray  # bool (P,)
    window: np.ndarray  # int64 (P,): which of the windows given to pack


def pack(windows: Windows) -> Packed:
    length = windows.stop - windows.start
    order = np.argsort(-length, kind="stable")
    step = np.arange(int(length.max(initial=0)))[:, None]
    is_there = step < length[order][None, :]
    row = (windows.start[order][None, :] + step)[is_there]
    window = np.broadcast_to(order[None, :], is_there.shape)[is_there]
    return Packed(
        row=row, batch_sizes=is_there.sum(axis=1), is_read_out=row >= windows.counts_from[window], window=window
    )


def batches(windows: Windows, rows_per_batch: int, chance: np.random.Generator | None = None) -> Iterator[Windows]:
    """Windows in groups of about rows_per_batch rows; with `chance`, in random order, else as they come.

    Random groups are of like lengths (within stretches of BATCHES_SORTED), so that few steps of time serve many rows.
    """
    if chance is None:
        yield from _groups(windows, np.arange(len(windows)), rows_per_batch)
        return
    order, length = chance.permutation(len(windows)), windows.stop - windows.start
    stretch = (np.cumsum(length[order]) - 1) // (BATCHES_SORTED * rows_per_batch)
    found = list(_groups(windows, order[np.lexsort((length[order], stretch))], rows_per_batch))
    for each in chance.permutation(len(found)):
        yield found[each]


def _groups(windows: Windows, order: np.ndarray, rows_per_batch: int) -> Iterator[Windows]:
    group = (np.cumsum((windows.stop - windows.start)[order]) - 1) // rows_per_batch
    for part in np.split(order, np.flatnonzero(np.diff(group)) + 1):
        if len(part):
            yield windows.take(part)
