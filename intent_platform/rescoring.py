"""Remembered events → scores → profiles and states: what the scorer and the daily refresh do alike.

The caller owns the transaction, and has locked the states of everyone concerned when it writes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db
from intent_platform.errors import ReleaseMoved
from intent_platform.inbox.merging import as_sequences, recent
from intent_platform.inbox.states import forget_states, state_rows
from intent_platform.index.release import Release
from intent_platform.log import get_logger
from intent_platform.model.rows import Rows, micros
from intent_platform.profiles import ProfileRows, Stamp, upsert
from intent_platform.scoring import score_users
from intent_platform.settings import Settings

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rescored:
    """What profiles and states of some shoppers are to be."""

    rows: Rows  # OWNED_SCHEMA, what is remembered from now on
    valid_at: np.ndarray  # int64 µs (users,), as states keep it
    profiles: ProfileRows | None  # None where nobody has an event in the window
    gone: Collection[str]  # who has no event at all: they moved to the user that a device was linked to
    stamp: Stamp

    def only(self, user_ids: Collection[str]) -> Self:
        """Those of these users."""
        is_kept = pc.is_in(self.rows.user_ids, value_set=pa.array(sorted(user_ids), pa.string())).to_numpy(False)
        rows = Rows.of(self.rows.table.filter(pa.array(is_kept[self.rows.user])))
        profiles = self.profiles.only(rows.user_ids.to_pylist()) if self.profiles and rows.users else None
        gone = set(user_ids).intersection(self.gone)
        return replace(self, rows=rows, valid_at=self.valid_at[is_kept], profiles=profiles, gone=gone)


def rescored(
    release: Release,
    events: pa.Table,
    told_until: Mapping[str, datetime],
    wanted: Collection[str],
    stamp: Stamp,
    settings: Settings,
) -> Rescored:
    """Score the owners of the events.

    events: OWNED_SCHEMA in order, all that is known of everyone `wanted`. told_until: what a profile was told before is
    not taken back by a late event; it is told again as of that moment. Who has events, but none in the window of that
    moment, keeps profile and state.
    """
    gone = set(wanted).difference(events["user_id"].to_pylist())
    rows = Rows.of(events)
    rows = recent(rows, valid_at_of(rows, told_until), settings)
    valid_at = valid_at_of(rows, told_until)
    profiles = None
    if rows.users:
        scores = score_users(release, as_sequences(rows, settings), valid_at, settings)
        profiles = ProfileRows.of(scores.profiles, scores.interests, scores.recommendations, stamp)
    return Rescored(rows=rows, valid_at=valid_at, profiles=profiles, gone=gone, stamp=stamp)


def move(
    connection: sa.Connection,
    release: Release,
    events: pa.Table,
    told_until: Mapping[str, datetime],
    wanted: Collection[str],
    stamp: Stamp,
    settings: Settings,
    *,
    is_behind: bool = False,
) -> int:
    """Score as `rescored` does and write, under locks on the states; returns how many were scored."""
    found = rescored(release, events, told_until, wanted, stamp, settings)
    told_later = write(connection, found, is_behind=is_behind)
    if told_later:  # by a refresh, since the states were read
        own = events.filter(pc.is_in(events["user_id"], value_set=pa.array(sorted(told_later), pa.string())))
        write(connection, rescored(release, own, told_later, told_later, stamp, settings))
    return found.rows.users


def write(connection: sa.Connection, found: Rescored, *, is_behind: bool = False) -> dict[str, datetime]:
    """Move profiles and replace states, which are locked and still what was scored.

    Returns whose profile did not move, as it was told a later moment already, and which; it is locked from now on.
    ReleaseMoved: a newer promotion told one of them that moment already, so this one may not, and the transaction must
    not keep the events. Unless what serves cannot be loaded here (is_behind): then only the states take them up, and
    the next refresh tells the profiles.
    """
    shop, rows = found.stamp.shop, found.rows
    if found.gone:
        forget_states(connection, shop, found.gone)
    if found.profiles is None:
        return {}
    assert found.profiles.user_ids == rows.user_ids.to_pylist()
    states = state_rows(rows, found.valid_at).drop_columns(["user_id", "valid_at"])  # the profiles have them too
    moved = upsert(connection, found.profiles, "replace_states", **db.array_columns(states))
    return _told_later(connection, found, is_behind=is_behind) if moved < rows.users else {}


def _told_later(connection: sa.Connection, found: Rescored, *, is_behind: bool) -> dict[str, datetime]:
    stamp, user_ids = found.stamp, found.rows.user_ids.to_pylist()
    told = db.query(connection, "told_already", shop=stamp.shop, user_ids=user_ids)
    newer = [each["promotion_number"] for each in told if each["promotion_number"] > stamp.promotion_number]
    if newer and is_behind:
        log.warning("profiles_left_to_refresh", profiles=len(newer), told_by=max(newer), is_at=stamp.promotion_number)
        told = [each for each in told if each["promotion_number"] <= stamp.promotion_number]
    elif newer:
        raise ReleaseMoved(
            f"{len(newer):,} of {len(user_ids):,} shoppers were told by promotion {max(newer)} already, and scored by "
            f"promotion {stamp.promotion_number} now.",
            "Nothing of this transaction was kept; run the step again, from what serves.",
        )
    valid_at = dict(zip(user_ids, found.valid_at.tolist(), strict=True))
    return {each["user_id"]: each["valid_at"] for each in told if micros(each["valid_at"]) > valid_at[each["user_id"]]}


def valid_at_of(rows: Rows, told_until: Mapping[str, datetime]) -> np.ndarray:
    """int64 µs (users,): the newest event, or what was told already if that is later."""
    told = [micros(told_until[each]) if each in told_until else 0 for each in rows.user_ids.to_pylist()]
    return np.maximum(rows.at[rows.starts[1:] - 1], np.array(told, np.int64))
