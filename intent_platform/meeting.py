"""Where the daily refresh meets the scorer: neither loses what the other knows.

The refresh brings the lake's new days into the scorer's states. A shopper is ahead of the lake who has events from the
inbox that no published day holds yet: they are then scored from lake and state together.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db, sequences
from intent_platform.events.contract import UTC_TIME
from intent_platform.inbox.merging import Devices, merge
from intent_platform.inbox.seeding import as_owned, inbox_days, note_seeded, put_devices, put_states, sequence_days
from intent_platform.inbox.states import OWNED_SCHEMA, States, lock_states, read_states
from intent_platform.index.registry import utc_now
from intent_platform.index.release import Release
from intent_platform.lake import Snapshot
from intent_platform.model.examples import day_end, end_of_day
from intent_platform.model.rows import Rows
from intent_platform.profiles import Stamp
from intent_platform.rescoring import move, rescored, write
from intent_platform.settings import Settings

USERS_PER_TRANSACTION = 25
"""Of those ahead, whose states are locked to be written: the scorer may be waiting for them."""

FORGOTTEN_PER_TRANSACTION = 1_000
"""States and devices; a scorer may want one of them back."""

USERS_SCORED_UNDER_LOCK = 5
"""Of those whose state moved on while they were scored: the second time nobody may overtake."""


@dataclass(kw_only=True)
class Meeting:
    """One refresh's side of it. Threads may ask it at once, of different shoppers."""

    snapshot: Snapshot
    day: date
    settings: Settings
    known_days: Collection[date]  # received days whose nearline events the lake has
    changed_from: int  # µs: states know everything of the lake before
    ahead: set[str] = field(default_factory=set)
    histories: list[pa.Table] = field(default_factory=list)  # of those ahead, from the lake

    @classmethod
    def of(cls, snapshot: Snapshot, day: date, settings: Settings) -> Self | None:
        """None where no scorer was ever started."""
        with db.connect(settings) as connection:
            if not db.query(connection, "is_nearline_used", shop=settings.shop)[0]["is_used"]:
                return None
            counts = db.query(connection, "inbox_days", shop=settings.shop)
            accepted = {row["received_on"]: row["events"] for row in counts}
            seeded = {row["day"]: row["inputs"] for row in db.query(connection, "seeded_days", shop=settings.shop)}
        days = {each: inputs for each, inputs in sequence_days(snapshot).items() if each <= day}
        changed = [each for each, inputs in days.items() if seeded.get(each) != inputs]
        changed_from = day_end(min(changed) - timedelta(days=2), settings) if changed else np.iinfo(np.int64).max
        return cls(
            snapshot=snapshot,
            day=day,
            settings=settings,
            # A day that was validated since sequences were built is not in the histories that are read here.
            known_days=_whole_days(inbox_days(snapshot), accepted, settings) if sequences.are_built(snapshot) else [],
            changed_from=int(changed_from),
        )

    def seed(self, connection: sa.Connection, histories: pa.Table) -> set[str]:
        """Bring new events of these whole users into their states; returns who is ahead and must be left alone.

        To be called before their profiles are written: locks come in the scorer's order.
        """
        everyone = Rows.of(histories)
        of_inbox = self._of_inbox(connection, everyone.user_ids.to_pylist())
        ahead = {user_id for user_id, is_ahead in of_inbox.items() if is_ahead}
        has_news = everyone.at[everyone.starts[1:] - 1] >= self.changed_from
        is_of_inbox, is_ahead = (
            pc.is_in(everyone.user_ids, value_set=pa.array(sorted(users), pa.string())).to_numpy(False)
            for users in (of_inbox, ahead)
        )
        # Of who came nearline, the lake may have given the newest event to somebody else, and have no news.
        wanted = np.flatnonzero((has_news | is_of_inbox) & ~is_ahead)
        if len(wanted):
            rows = Rows.of(as_owned(_of_users(histories, everyone.user_ids.take(pa.array(wanted)))))
            valid_at = np.full(rows.users, day_end(self.day, self.settings))
            moved = put_states(connection, self.settings.shop, rows, valid_at, self.known_days)
            ahead |= set(rows.user_ids.to_pylist()).difference(moved)
        self._leave(ahead, histories)
        return ahead

    def look_again(self, connection: sa.Connection, histories: pa.Table) -> None:
        """After the profiles were written: whoever an inbox event overtook meanwhile is told once more, from both."""
        of_inbox = self._of_inbox(connection, pc.unique(histories["user_id"]).to_pylist())
        self._leave({user_id for user_id, is_ahead in of_inbox.items() if is_ahead}, histories)

    def catch_up(self, release: Release, stamp: Stamp) -> int:
        """Score everyone who is ahead from lake and state together; returns how many were scored.

        So is who is not in the lake, but was told of events that it has: they are somebody else's there, by a link or
        an equal id that came by file. To be called after the whole lake was.

        Without locks, and written where the state is still the one that was scored; else once more, under lock.
        """
        with db.connect(self.settings) as connection:
            put_devices(connection, self.snapshot, self.settings.shop, self.day, self.settings)
            rows = db.query(
                connection,
                "users_to_catch_up",
                shop=self.settings.shop,
                known_days=self.known_days,
                told_after=self._begin_of_window,
                told_until=stamp.scored_at,
            )
        to_catch_up = {row["user_id"] for row in rows}
        if not_read := sorted(to_catch_up - self.ahead):
            wanted = pa.array(not_read, pa.string())
            self.histories.append(sequences.read_history(self.snapshot, self.day, self.settings, users=wanted))
        users = sorted(self.ahead | to_catch_up)
        lake = Rows.of(as_owned(pa.concat_tables(self.histories)) if self.histories else OWNED_SCHEMA.empty_table())
        place = {user_id: number for number, user_id in enumerate(lake.user_ids.to_pylist())}
        if users:
            release.model.text.encoder.warm_up()  # not under locks, for whom the scorer overtakes
        scored, overtaken = 0, []
        for some in _in_lots_of(USERS_PER_TRANSACTION, users):
            from_lake = lake.of_users(place[each] for each in some if each in place)
            with db.connect(self.settings) as connection:
                known = read_states(connection, stamp.shop, some)
            found = rescored(*self._to_score(release, some, from_lake, known, stamp))
            with db.connect(self.settings) as connection:
                db.query(connection, "limit_idle")
                states = lock_states(connection, stamp.shop, some)
                unchanged = [each for each in some if states.is_as_in(known, each)]
                kept = found.only(unchanged)
                told_later = write(connection, kept)
            scored += kept.rows.users - len(told_later)
            overtaken += sorted(set(some).difference(unchanged).union(told_later))
        for some in _in_lots_of(USERS_SCORED_UNDER_LOCK, overtaken):
            from_lake = lake.of_users(place[each] for each in some if each in place)
            with db.connect(self.settings) as connection:
                db.query(connection, "limit_idle")
                states = lock_states(connection, stamp.shop, some)
                scored += move(connection, *self._to_score(release, some, from_lake, states, stamp))
        with db.connect(self.settings) as connection:
            note_seeded(connection, self.snapshot, self.day, self.settings)
        self._forget_dormant(stamp)
        return scored

    def _forget_dormant(self, stamp: Stamp) -> None:
        """What the window of an event that may still come does not reach, and devices that its links do not."""
        window = timedelta(days=self.settings.history_days)
        told_from = stamp.scored_at - window - timedelta(hours=self.settings.max_lateness_hours + 24)
        wanted = {"told_from": told_from, "linked_from": told_from - window, "most": FORGOTTEN_PER_TRANSACTION}
        forgotten = 1
        while forgotten:
            with db.connect(self.settings) as connection:
                (row,) = db.query(connection, "forget_dormant", shop=stamp.shop, **wanted)
            forgotten = row["forgotten"]

    def _to_score(
        self, release: Release, users: Sequence[str], from_lake: pa.Table, states: States, stamp: Stamp
    ) -> tuple[Release, pa.Table, Mapping[str, datetime], Sequence[str], Stamp, Settings]:
        """What `rescored` takes: lake and states together."""
        only_here = pc.invert(
            pc.is_in(states.events["received_on"], value_set=pa.array([None, *self.known_days], pa.date32()))
        )
        is_later = pc.greater_equal(states.events["occurred_at"], pa.scalar(stamp.scored_at, UTC_TIME))
        # The lake's rows are the truth of its window; the state adds what they lack.
        is_earlier = pc.less(states.events["occurred_at"], pa.scalar(self._begin_of_window, UTC_TIME))
        kept = pc.or_(pc.or_(only_here, is_later), is_earlier)
        remembered = states.events.filter(kept)
        told = {user: max(states.valid_at.get(user, stamp.scored_at), stamp.scored_at) for user in users}
        events = merge(from_lake, remembered, Devices(known={}, newly_linked={}, settings=self.settings))
        return release, events, told, users, replace(stamp, source="nearline"), self.settings

    def _of_inbox(self, connection: sa.Connection, users: Iterable[str]) -> dict[str, bool]:
        """Of these, who has events from the inbox, and whether they are ahead of the lake."""
        key = {"shop": self.settings.shop, "user_ids": list(users), "known_days": self.known_days}
        return {row["user_id"]: row["is_ahead"] for row in db.query(connection, "users_of_inbox", **key)}

    @property
    def _begin_of_window(self) -> datetime:
        return end_of_day(self.day - timedelta(days=self.settings.history_days), self.settings)

    def _leave(self, ahead: set[str], histories: pa.Table) -> None:
        new = ahead - self.ahead
        if new:
            self.histories.append(_of_users(histories, pa.array(sorted(new))))
            self.ahead |= new


def _whole_days(in_lake: Mapping[date, int], accepted: Mapping[date, int], settings: Settings) -> list[date]:
    """Received days that are over and whose nearline events the lake has all; the rest may still grow.

    None after a day that is lacking: a state tells its newest received day only, and may hold events of that one, too.
    """
    today = utc_now().astimezone(settings.zone).date()
    whole = {day for day, events in in_lake.items() if day < today and events >= accepted.get(day, 0)}
    first_lacking = min(accepted.keys() - whole, default=date.max)
    return sorted(day for day in whole if day < first_lacking)


def _in_lots_of(size: int, users: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(users), size):
        yield users[first : first + size]


def _of_users(rows: pa.Table, users: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows["user_id"], value_set=users))
