"""Remembered and new events → each owner's history in order, as the daily refresh would have it.

An event belongs to its own user, else to the user that its device was linked to at that moment and within the
history_days before, else to the device. A link that comes late moves the events after it, so owners are always decided
anew for the devices of a batch.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db, sequences
from intent_platform.events.contract import UTC_TIME
from intent_platform.inbox.states import lock_each
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

    def link(self, moment: datetime, user_id: str, settings: Settings) -> set[str]:
        """Take note of an event that names both. Returns the users whose events may have to move, which are the new one
        and whom it follows; none if it says nothing new. A link is renewed once a day."""
        links = list(zip(self.linked_at, self.user_id, strict=True))  # of one moment the last by name, as in the lake
        place = bisect_right(links, (moment, user_id))
        if place and self.user_id[place - 1] == user_id and not self._days_since(place - 1, moment, settings):
            return set()
        self.linked_at.insert(place, moment)
        self.user_id.insert(place, user_id)
        return {user_id, *self.user_id[max(place - 1, 0) : place]}

    def _days_since(self, link: int, moment: datetime, settings: Settings) -> int:
        first, last = (each.astimezone(settings.zone).date() for each in (self.linked_at[link], moment))
        return (last - first).days


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The devices that a batch speaks of, locked; and those that learned of a user just now, with the users whose
    events may have to move for it."""

    known: Mapping[str, Device]
    newly_linked: Mapping[str, Collection[str]]
    settings: Settings

    def owner(self, anonymous_id: str, moment: datetime) -> str:
        """Whose an event is that names no user."""
        device = self.known.get(anonymous_id)
        return (device.user_at(moment, self.settings) if device else None) or anonymous_id

    def affected_owners(self) -> set[str]:
        """Whose events may have to move, the devices newly linked among them. Not everyone whom a device was ever
        linked to: thousands may share one."""
        return {each for name, users in self.newly_linked.items() for each in (name, *users)}


def lock_devices(connection: sa.Connection, shop: str, events: pa.Table, settings: Settings) -> Devices:
    """Lock the devices that the events name, add the links that the events make, and store what is new."""
    names = sorted(set(events["anonymous_id"].drop_null().to_pylist()))
    if not names:
        return Devices(known={}, newly_linked={}, settings=settings)
    rows = lock_each(
        connection, "add_missing_devices", "lock_devices", count=len(names), shop=shop, anonymous_ids=names
    )
    known = {row["anonymous_id"]: Device(linked_at=row["linked_at"], user_id=row["user_id"]) for row in rows}
    newly_linked = _link(known, events, "user_id", settings)
    _put(connection, shop, known, newly_linked)
    return Devices(known=known, newly_linked=newly_linked, settings=settings)


def link_again(connection: sa.Connection, shop: str, devices: Devices, remembered: pa.Table) -> None:
    """A new link that is not the newest may part a run of links to another user, of which only the first was noted:
    what is remembered tells that it went on. remembered: OWNED_SCHEMA, of `affected_owners` at least."""
    if devices.newly_linked:
        names = pa.array(sorted(devices.newly_linked), pa.string())
        own = remembered.filter(pc.is_in(remembered["anonymous_id"], value_set=names))
        _put(connection, shop, devices.known, _link(devices.known, own, "own_user_id", devices.settings))


def _link(
    known: Mapping[str, Device], events: pa.Table, user_column: str, settings: Settings
) -> Mapping[str, Collection[str]]:
    """Take note of all events that name a device and a user; returns as `newly_linked`."""
    both = events.select(["anonymous_id", "occurred_at", user_column]).drop_null()
    changed: defaultdict[str, set[str]] = defaultdict(set)
    for each in both.sort_by([("occurred_at", "ascending"), (user_column, "ascending")]).to_pylist():
        name, moment, user_id = each.values()
        if moved := known[name].link(moment, user_id, settings):
            changed[name] |= moved
    return changed


def _put(connection: sa.Connection, shop: str, known: Mapping[str, Device], changed: Collection[str]) -> None:
    rows = [{"shop": shop, "anonymous_id": name, **vars(known[name])} for name in sorted(changed)]
    db.execute_many(connection, "put_device", rows)


def owners_of(events: pa.Table, devices: Devices) -> list[str]:
    """The owner of each event; reads user_id (or NULL), anonymous_id and occurred_at."""
    owners = events["user_id"].to_pylist()
    if None in owners:
        names, moments = events["anonymous_id"].to_pylist(), events["occurred_at"].to_pylist()
        owners = [own or devices.owner(*each) for own, *each in zip(owners, names, moments, strict=True)]
    return owners


def merge(remembered: pa.Table, new: pa.Table, devices: Devices) -> pa.Table:
    """OWNED_SCHEMA in order of (user_id, occurred_at, event_id), each event once; moved events lie with their owner."""
    if devices.newly_linked:
        remembered = _moved(remembered, devices)
    together = pa.concat_tables([remembered, new]).combine_chunks()
    order = pc.sort_indices(together, [(name, "ascending") for name in sequences.IN_ORDER]).to_numpy()  # stable
    return together.take(pa.array(_without_repeats(together, order)))


def _moved(remembered: pa.Table, devices: Devices) -> pa.Table:
    """Events that named only a newly linked device lie with whom it is linked to by now."""
    names = pa.array(sorted(devices.newly_linked))
    may_move = pc.and_(remembered["own_user_id"].is_null(), pc.is_in(remembered["anonymous_id"], value_set=names))
    moving = remembered.filter(may_move).select(["anonymous_id", "occurred_at"]).to_pylist()
    owners = [devices.owner(each["anonymous_id"], each["occurred_at"]) for each in moving]
    moved = pc.replace_with_mask(remembered["user_id"], may_move.combine_chunks(), pa.array(owners, pa.string()))
    return remembered.set_column(0, "user_id", moved)


def _without_repeats(events: pa.Table, order: np.ndarray) -> np.ndarray:
    """The places in that order, less where an owner has the event_id already; the copy may carry another moment."""
    event = events["event_id"].combine_chunks().dictionary_encode()
    if len(event.dictionary) == len(event):
        return order
    owner = events["user_id"].combine_chunks().dictionary_encode()
    pair = owner.indices.to_numpy().astype(np.int64) * len(event.dictionary) + event.indices.to_numpy()
    return order[np.sort(np.unique(pair[order], return_index=True)[1])]


def recent(rows: Rows, valid_at: np.ndarray, settings: Settings) -> Rows:
    """Without what lies history_days or more before the day of the user's valid_at, int64 µs (users,)."""
    if not len(rows):
        return rows
    midnights = _midnights(rows.at, valid_at, settings)
    # valid_at is the end of what is known: a midnight belongs to the day that it ends.
    today = np.searchsorted(midnights, valid_at - 1, side="right")
    oldest = midnights[np.maximum(today - settings.history_days, 0)]
    kept = rows.at >= oldest[rows.user]
    return rows if kept.all() else Rows.of(rows.table.filter(pa.array(kept)))


def as_sequences(rows: Rows, settings: Settings) -> Rows:
    """What scoring reads: the events with session_started_at as `sequences` marks it."""
    started = pa.array(_session_starts(rows, settings), pa.int64()).cast(UTC_TIME)
    return replace(rows, table=rows.table.append_column("session_started_at", started))


def _session_starts(rows: Rows, settings: Settings) -> np.ndarray:
    """int64 (R,) µs. A day's sequences look back to the beginning of the day before, and so does this."""
    at, row = rows.at, np.arange(len(rows))
    begins = np.diff(at, prepend=at[:1]) > settings.session_gap_minutes * 60 * US_PER_SECOND
    begins[rows.starts[:-1]] = True
    begun = np.maximum.accumulate(np.where(begins, row, 0))
    midnights = _midnights(at, at, settings)
    yesterday = midnights[np.searchsorted(midnights, at, side="right") - 2]
    cut = np.flatnonzero(at[begun] < yesterday)  # hardly ever: the session has gone on for days
    begun[cut] = rows.first_after(rows.user[cut], yesterday[cut] - 1)
    return at[begun]


def _midnights(at: np.ndarray, valid_at: np.ndarray, settings: Settings) -> np.ndarray:
    """int64 µs: the beginnings of all days that matter for these moments, of which there is at least one."""
    first, last = _day(min(at.min(), valid_at.min()), settings), _day(max(at.max(), valid_at.max()), settings)
    return _midnights_of(first - timedelta(days=settings.history_days + 2), last + timedelta(days=1), settings.zone)


def _day(moment: np.int64, settings: Settings) -> date:
    return datetime.fromtimestamp(int(moment) / US_PER_SECOND, settings.zone).date()


@lru_cache(maxsize=100)
def _midnights_of(first: date, last: date, zone: tzinfo) -> np.ndarray:
    days = [first + timedelta(days=each) for each in range((last - first).days + 1)]
    return np.array([round(datetime.combine(day, time(), zone).timestamp() * US_PER_SECOND) for day in days], np.int64)
