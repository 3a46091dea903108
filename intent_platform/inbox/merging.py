"""Remembered and new events → each owner's history in order, as the daily refresh would have it.

An event belongs to its own user, else to the user that its device was linked to at that moment and within the
history_days before, else to the device. A link that comes late moves the events after it, so owners are always decided
anew for the devices of a batch.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db, sequences
from intent_platform.events.contract import UTC_TIME
from intent_platform.model.rows import Rows
from intent_platform.settings import Settings

US_PER_SECOND = 1_000_000


@dataclass(kw_only=True)
class Device:
    """A row of nearline.device: linked_at in order, and the user from each of those moments on."""

    linked_at: list[datetime] = field(default_factory=list)
    user_id: list[str] = field(default_factory=list)

    def user_at(self, moment: datetime, settings: Settings) -> str | None:
        """None also where the link is so old that the batch does not look at it."""
        place = bisect_right(self.linked_at, moment)
        if not place or self._days_since(place - 1, moment, settings) > settings.history_days:
            return None
        return self.user_id[place - 1]

    def link(self, moment: datetime, user_id: str, settings: Settings) -> bool:
        """Take note of an event that names both; False if it says nothing new. A link is renewed once a day."""
        place = bisect_right(self.linked_at, moment)
        if place and self.user_id[place - 1] == user_id and not self._days_since(place - 1, moment, settings):
            return False
        self.linked_at.insert(place, moment)
        self.user_id.insert(place, user_id)
        return True

    def _days_since(self, link: int, moment: datetime, settings: Settings) -> int:
        first, last = (each.astimezone(settings.zone).date() for each in (self.linked_at[link], moment))
        return (last - first).days


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The devices that a batch speaks of, locked; and which of them learned of a user just now."""

    known: Mapping[str, Device]
    newly_linked: Collection[str]
    settings: Settings

    def owner(self, user_id: str | None, anonymous_id: str | None, moment: datetime) -> str:
        if user_id is not None:
            return user_id
        assert anonymous_id is not None
        device = self.known.get(anonymous_id)
        return (device.user_at(moment, self.settings) if device else None) or anonymous_id

    def affected_owners(self) -> set[str]:
        """Whose events may have to move: the devices newly linked, and everyone they were or are linked to."""
        return {each for name in self.newly_linked for each in (name, *self.known[name].user_id)}


def lock_devices(connection: sa.Connection, shop: str, events: pa.Table, settings: Settings) -> Devices:
    """Lock the devices that the events name, add the links that the events make, and store what is new."""
    names = sorted(set(events["anonymous_id"].drop_null().to_pylist()))
    if not names:
        return Devices(known={}, newly_linked=(), settings=settings)
    rows = db.query(connection, "add_missing_devices", "lock_devices", shop=shop, anonymous_ids=names)
    known = {row["anonymous_id"]: Device(linked_at=row["linked_at"], user_id=row["user_id"]) for row in rows}
    both = events.filter(pc.and_(events["user_id"].is_valid(), events["anonymous_id"].is_valid()))
    newly_linked = set()
    for each in both.sort_by("occurred_at").select(["anonymous_id", "occurred_at", "user_id"]).to_pylist():
        if known[each["anonymous_id"]].link(each["occurred_at"], each["user_id"], settings):
            newly_linked.add(each["anonymous_id"])
    changed = [{"shop": shop, "anonymous_id": name, **vars(known[name])} for name in sorted(newly_linked)]
    db.execute_many(connection, "put_device", changed)
    return Devices(known=known, newly_linked=newly_linked, settings=settings)


def owners_of(
    own_user_id: pa.ChunkedArray, anonymous_id: pa.ChunkedArray, at: pa.ChunkedArray, devices: Devices
) -> pa.Array:
    """The owner of each event, from three columns of one length."""
    columns = (each.to_pylist() for each in (own_user_id, anonymous_id, at))
    return pa.array([devices.owner(*each) for each in zip(*columns, strict=True)], pa.string())


def merge(remembered: pa.Table, new: pa.Table, devices: Devices) -> pa.Table:
    """OWNED_SCHEMA in order of (user_id, occurred_at, event_id), each event once; moved events lie with their owner."""
    if devices.newly_linked:
        remembered = _moved(remembered, devices)
    together = pa.concat_tables([remembered, new]).combine_chunks()
    arrival = pa.array(np.arange(together.num_rows))
    order = [(name, "ascending") for name in (*sequences.IN_ORDER, "arrival")]
    in_order = together.append_column("arrival", arrival).sort_by(order).drop_columns(["arrival"]).combine_chunks()
    return in_order.filter(pa.array(~_is_repeat(in_order)))


def _moved(remembered: pa.Table, devices: Devices) -> pa.Table:
    """Events that named only a newly linked device lie with whom it is linked to by now."""
    names = pa.array(sorted(devices.newly_linked))
    may_move = pc.and_(remembered["own_user_id"].is_null(), pc.is_in(remembered["anonymous_id"], value_set=names))
    own, device, at = (remembered[name] for name in ("own_user_id", "anonymous_id", "occurred_at"))
    return remembered.set_column(
        0, "user_id", pc.if_else(may_move, owners_of(own, device, at, devices), remembered["user_id"])
    )


def _is_repeat(events: pa.Table) -> np.ndarray:
    """bool: an event_id that its owner has already; the copy may carry another moment."""
    keys = [events[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("user_id", "event_id")]
    pair = keys[0].astype(np.int64) * (int(keys[1].max(initial=0)) + 1) + keys[1]
    is_repeat = np.ones(len(pair), bool)
    is_repeat[np.unique(pair, return_index=True)[1]] = False
    return is_repeat


def recent(rows: Rows, valid_at: np.ndarray, settings: Settings) -> Rows:
    """Without what lies history_days or more before the day of the user's valid_at, int64 µs (users,)."""
    midnights = _midnights(rows.at, valid_at, settings)
    # valid_at is the end of what is known: a midnight belongs to the day that it ends.
    today = np.searchsorted(midnights, valid_at - 1, side="right")
    oldest = midnights[np.maximum(today - settings.history_days, 0)]
    kept = rows.at >= oldest[rows.user]
    return rows if kept.all() else Rows.of(rows.table.filter(pa.array(kept)))


def as_sequences(rows: Rows, settings: Settings) -> pa.Table:
    """What scoring reads: the events with session_started_at as `sequences` marks it."""
    started = pa.array(_session_starts(rows, settings), pa.int64()).cast(UTC_TIME)
    return rows.table.append_column("session_started_at", started)


def _session_starts(rows: Rows, settings: Settings) -> np.ndarray:
    """int64 (R,) µs. A day's sequences look back to the beginning of the day before, and so does this."""
    at, user, row = rows.at, rows.user, np.arange(len(rows))
    begins = np.diff(at, prepend=at[:1]) > settings.session_gap_minutes * 60 * US_PER_SECOND
    begins[rows.starts[:-1]] = True
    begun = np.maximum.accumulate(np.where(begins, row, 0))
    midnights = _midnights(at, at, settings)
    yesterday = midnights[np.searchsorted(midnights, at, side="right") - 2]
    looks_back_to = rows.first_after(user, yesterday - 1)
    return at[np.maximum(begun, looks_back_to)]


def _midnights(at: np.ndarray, valid_at: np.ndarray, settings: Settings) -> np.ndarray:
    """int64 µs: the beginnings of all days that matter for these moments, of which there is at least one."""
    moments = np.concatenate([at, valid_at])
    first, last = (_day(int(each), settings) for each in (moments.min(), moments.max()))
    days = range(-settings.history_days - 2, (last - first).days + 2)
    return np.array([_midnight(first + timedelta(days=each), settings.zone) for each in days], np.int64)


def _day(moment: int, settings: Settings) -> date:
    return datetime.fromtimestamp(moment / US_PER_SECOND, UTC).astimezone(settings.zone).date()


@lru_cache(maxsize=1_000)
def _midnight(day: date, zone: tzinfo) -> int:
    return round(datetime.combine(day, time(), zone).timestamp() * US_PER_SECOND)
