"""Reading sequences back: a shopper's recent past, whole or a bucket of users at a time."""

from collections.abc import Iterator
from datetime import date, timedelta

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import pyarrow as pa

from intent_platform.events.engine import open_engine
from intent_platform.lake import Snapshot
from intent_platform.sequences.build import SEQUENCE_SCHEMA
from intent_platform.settings import Settings

IN_ORDER = ("user_id", "occurred_at", "event_id")
TOUCH = ["user_id", "occurred_at", "session_started_at", "item_id"]
ROWS_PER_BUCKET = 2_000_000


def read_history(snapshot: Snapshot, until: date, settings: Settings, *, users: pa.Array | None = None) -> pa.Table:
    """Sequence rows of the last history_days days up to and including `until`, sorted; all users at once, or these."""
    with open_engine(settings, snapshot.lake) as engine:
        rows = snapshot.scan(engine, "sequences", _partitions(snapshot, until, settings))
        if users is not None:
            rows = rows.semi_join(ibis.memtable(pa.table({"user_id": users})), "user_id")
        return rows.order_by(*IN_ORDER).to_pyarrow().cast(SEQUENCE_SCHEMA)


def read_touches(snapshot: Snapshot, first: date, last: date, settings: Settings) -> pa.Table:
    """Who touched which item when, in which session: the rows with an item of the days first … last, as IN_ORDER."""
    partitions = [each for each in snapshot.partitions("sequences") if f"day={first}" <= each <= f"day={last}"]
    if not partitions:
        return SEQUENCE_SCHEMA.empty_table().select(TOUCH)
    with open_engine(settings, snapshot.lake) as engine:
        rows = snapshot.scan(engine, "sequences", partitions)
        touched = rows.filter(rows.item_id.notnull()).order_by(*IN_ORDER)
        return touched.select(*TOUCH).to_pyarrow().cast(pa.schema([SEQUENCE_SCHEMA.field(name) for name in TOUCH]))


def sample_history(snapshot: Snapshot, until: date, settings: Settings, *, users: int) -> pa.Table:
    """The same rows as read_history of at most so many users; the same users whenever the rows are the same."""
    partitions = _partitions(snapshot, until, settings)
    if not partitions:
        return SEQUENCE_SCHEMA.empty_table()
    with open_engine(settings, snapshot.lake) as engine:
        rows = snapshot.scan(engine, "sequences", partitions)
        everyone = rows.select("user_id").distinct()
        chosen = everyone.order_by(_bucket(everyone.user_id), "user_id").limit(users)
        return rows.semi_join(chosen, "user_id").order_by(*IN_ORDER).to_pyarrow().cast(SEQUENCE_SCHEMA)


def user_buckets(snapshot: Snapshot, until: date, settings: Settings) -> Iterator[pa.Table]:
    """The same rows, in as many buckets of whole users as keep each near ROWS_PER_BUCKET rows."""
    partitions = _partitions(snapshot, until, settings)
    buckets = 1 + sum(snapshot.rows("sequences", each) for each in partitions) // ROWS_PER_BUCKET
    with open_engine(settings, snapshot.lake) as engine:
        rows = snapshot.scan(engine, "sequences", partitions)
        for bucket in range(buckets):
            chosen = rows.filter(_bucket(rows.user_id) % buckets == bucket) if buckets > 1 else rows
            table = chosen.order_by(*IN_ORDER).to_pyarrow().cast(SEQUENCE_SCHEMA)
            if table.num_rows:
                yield table


def offsets(rows: pa.Table) -> np.ndarray:
    """Where each user's rows begin, and the end: int64 of shape (users + 1,). Rows are sorted by user_id."""
    ids = rows["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    changes = np.flatnonzero(np.diff(ids)) + 1
    return np.concatenate(([0], changes, [len(ids)])).astype(np.int64) if len(ids) else np.zeros(1, np.int64)


@ibis.udf.scalar.builtin(name="hash", signature=((dt.string,), dt.uint64))
def _bucket(text):
    """DuckDB: any well-spread number of a text."""


def _partitions(snapshot: Snapshot, until: date, settings: Settings) -> list[str]:
    earliest = until - timedelta(days=settings.history_days - 1)
    return [each for each in snapshot.partitions("sequences") if f"day={earliest}" <= each <= f"day={until}"]
