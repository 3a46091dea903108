"""Remembered events → scores → profiles and states: what the scorer and the daily refresh do alike.

The caller owns the transaction and has locked the states of everyone concerned.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from intent_platform import db
from intent_platform.errors import ReleaseMoved
from intent_platform.inbox.merging import as_sequences, recent
from intent_platform.inbox.states import forget_states, write_states
from intent_platform.index.release import Release
from intent_platform.model.rows import Rows, micros
from intent_platform.profiles import ProfileRows, Stamp, upsert
from intent_platform.scoring import score_users
from intent_platform.settings import Settings


def rescore(
    connection: sa.Connection,
    release: Release,
    events: pa.Table,
    told_until: Mapping[str, datetime],
    wanted: Collection[str],
    stamp: Stamp,
    settings: Settings,
) -> int:
    """Score the owners of the events, move their profiles, keep their states; returns how many were scored.

    events: OWNED_SCHEMA in order, all that is known of everyone `wanted`; who has none any more (they moved to the user
    that a device was linked to) is forgotten. told_until: what a profile was told before is not taken back by a late
    event; it is told again as of that moment. ReleaseMoved: a newer promotion told one of them that moment already, so
    this one may not, and the transaction must not keep the events.
    """
    rows = Rows.of(events)
    rows = recent(rows, valid_at_of(rows, told_until), settings)
    valid_at = valid_at_of(rows, told_until)
    gone = set(wanted).difference(rows.user_ids.to_pylist())
    if gone:
        forget_states(connection, stamp.shop, gone)
    if not rows.users:
        return 0
    scores = score_users(release, as_sequences(rows, settings), valid_at, settings)
    moved = upsert(connection, ProfileRows.of(scores.profiles, scores.interests, scores.recommendations, stamp))
    if moved < rows.users:
        _check_newest(connection, rows, stamp)
    write_states(connection, stamp.shop, rows, valid_at)
    return rows.users


def _check_newest(connection: sa.Connection, rows: Rows, stamp: Stamp) -> None:
    key = {"shop": stamp.shop, "user_ids": rows.user_ids.to_pylist(), "promotion_number": stamp.promotion_number}
    ((refused, newest),) = (row.values() for row in db.query(connection, "told_by_newer", **key))
    if refused:
        raise ReleaseMoved(
            f"{refused:,} of {rows.users:,} shoppers were told by promotion {newest} already, and scored by promotion "
            f"{stamp.promotion_number} now. Nothing of this transaction was kept; run the step again, from what serves."
        )


def valid_at_of(rows: Rows, told_until: Mapping[str, datetime]) -> np.ndarray:
    """int64 µs (users,): the newest event, or what was told already if that is later."""
    told = [micros(told_until[each]) if each in told_until else 0 for each in rows.user_ids.to_pylist()]
    return np.maximum(rows.at[rows.starts[1:] - 1], np.array(told, np.int64))
