"""nearline.user_state: each shopper's recent events as one compressed Arrow record batch.

The caller owns the transaction. A state holds the events of the last history_days, whichever door they came through,
so that nearline scores from the same rows as the daily refresh.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import zstandard

from intent_platform import db
from intent_platform.events.contract import EVENT_SCHEMA, UTC_TIME
from intent_platform.model.rows import Rows

STATE_SCHEMA = pa.schema(
    [
        *(EVENT_SCHEMA.field(name) for name in ("event_id", "event_type", "occurred_at")),
        pa.field("own_user_id", pa.string()),  # NULL where the event named a device only
        EVENT_SCHEMA.field("anonymous_id"),
        *(EVENT_SCHEMA.field(name) for name in ("item_id", "query_text", "category", "price", "currency", "quantity")),
        pa.field("received_on", pa.date32()),  # through the inbox; NULL: by file
    ]
)

OWNED_SCHEMA = pa.schema([pa.field("user_id", pa.string()), *STATE_SCHEMA])
"""user_id is the owner: the shopper in whose state the event lies."""

_compress = zstandard.ZstdCompressor(level=1).compress
_decompress = zstandard.ZstdDecompressor().decompress


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """What is known of some shoppers."""

    contents: Mapping[str, bytes]  # by user_id, as stored
    valid_at: Mapping[str, datetime]  # by user_id, until when a profile was told, where one was

    @cached_property
    def events(self) -> pa.Table:
        """OWNED_SCHEMA, in no order."""
        return _decoded(self.contents.items())

    def is_as_in(self, other: "States", user_id: str) -> bool:
        of_user = [(each.contents.get(user_id), each.valid_at.get(user_id)) for each in (self, other)]
        return of_user[0] == of_user[1]


def lock_states(connection: sa.Connection, shop: str, user_ids: Iterable[str]) -> States:
    """Lock and read the states of these shoppers, in key order; one without a state gets an empty row to lock."""
    wanted = sorted(set(user_ids))
    steps = "add_missing_states", "lock_states", "read_states"
    return _states(lock_each(connection, *steps, count=len(wanted), shop=shop, user_ids=wanted))


def lock_each(connection: sa.Connection, *steps: str, count: int, **key: object) -> Sequence[sa.RowMapping]:
    """Add the rows that are missing, lock and read all, which are `count`.

    Once more where somebody forgot one meanwhile, which was not missing as long as they had not committed. What is
    locked then is out of order: Postgres may end one of two that meet so, which is then run again.
    """
    while len(rows := db.prepared(connection, *steps, **key)) < count:
        pass
    return rows


def read_states(connection: sa.Connection, shop: str, user_ids: Collection[str]) -> States:
    """The same without a lock: what they were a moment ago."""
    return _states(db.query(connection, "read_states", shop=shop, user_ids=list(user_ids)))


def _states(rows: Iterable[sa.RowMapping]) -> States:
    contents, valid_at = {}, {}
    for row in rows:
        if row["events"] is not None:
            contents[row["user_id"]] = bytes(row["events"])
        if row["valid_at"] is not None:
            valid_at[row["user_id"]] = row["valid_at"]
    return States(contents=contents, valid_at=valid_at)


def forget_states(connection: sa.Connection, shop: str, user_ids: Iterable[str]) -> None:
    """Remove states and profiles of shoppers without events."""
    db.query(connection, "forget_states", shop=shop, user_ids=sorted(user_ids))


def state_rows(rows: Rows, valid_at: np.ndarray) -> pa.Table:
    """Rows of nearline.user_state, less the shop, from OWNED_SCHEMA events; valid_at: int64 µs (users,)."""
    (batch,) = rows.table.select(STATE_SCHEMA.names).to_batches() or [None]
    return pa.table(
        {
            "user_id": rows.user_ids,
            "valid_at": pa.array(valid_at, pa.int64()).cast(UTC_TIME),
            "newest_received_on": _newest(rows),
            "events": pa.array([_encoded(batch, *each) for each in pairwise(rows.starts.tolist())], pa.string()),
        }
    )


def _newest(rows: Rows) -> pa.Array:
    """date32 (users,): the last received day among each user's rows; NULL where all came by file."""
    days = rows.table["received_on"].to_numpy()  # NaT for NULL, which fmax passes over
    return pa.array(np.fmax.reduceat(days, rows.starts[:-1]) if len(days) else days, pa.date32())


def _encoded(batch: pa.RecordBatch | None, start: int, stop: int) -> str:
    """As Postgres reads a bytea."""
    assert batch is not None
    return "\\x" + _compress(batch.slice(start, stop - start).serialize()).hex()


def _decoded(states: Iterable[tuple[str, bytes]]) -> pa.Table:
    owners, batches = [], []
    for owner, content in states:
        batches.append(pa.ipc.read_record_batch(pa.py_buffer(_decompress(content)), STATE_SCHEMA))
        owners += [owner] * batches[-1].num_rows
    events = pa.Table.from_batches(batches, schema=STATE_SCHEMA)
    return events.add_column(0, OWNED_SCHEMA.field("user_id"), pa.array(owners, pa.string()))
