"""Rejected events of the inbox come in again once they are good: a rule, or the code that scores, was mended.

An event that is good now leaves inbox.rejected for inbox.accepted under its old place (received day, seq), in the
transaction that moves its shopper's profile: so it comes in exactly once, however often replay runs, and
inbox.replayed says what became of it. A received day that is in the lake already is then published again with it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import sqlalchemy as sa

from intent_platform import db
from intent_platform.errors import IntentError, SettingInvalid
from intent_platform.events.intake import Door
from intent_platform.events.mapping import load_mapping
from intent_platform.events.pseudonyms import confirm_key
from intent_platform.events.quarantine import Unsealer
from intent_platform.events.replay import QuarantinedRow
from intent_platform.events.validation import DayReport, publish_day
from intent_platform.inbox import queue
from intent_platform.inbox.door import MAPPING, NAME, NOT_SCORABLE, InboxDoor, place_of
from intent_platform.inbox.source import take_in_inbox
from intent_platform.lake import Lake
from intent_platform.log import get_logger
from intent_platform.nearline import move_profiles
from intent_platform.serving import Serving, load_serving
from intent_platform.settings import Settings

EVENTS_PER_TRANSACTION = 500

log = get_logger(__name__)


@dataclass(kw_only=True)
class InboxReplay:
    """What became of a received day's rejected events: found = accepted + duplicate + still rejected."""

    accepted: int = 0
    duplicate: int = 0
    still_rejected: Counter[str] = field(default_factory=Counter)  # by the rule they break now
    days_published: tuple[date, ...] = ()
    awaits_validation: bool = False  # the day is over and not in the lake: until it is validated, nor are these events


def rejected_events(received_on: date, settings: Settings) -> Iterator[QuarantinedRow]:
    """Unseal a received day's rejected events, in order of arrival; `line` is the seq. Needs the private key."""
    unsealer = Unsealer(settings)
    with db.connect(settings) as connection:
        rows = db.query(connection, "rejected_events", shop=settings.shop, received_on=received_on)
    for row in rows:
        raw = unsealer.unseal(bytes(row["sealed_row"]), place_of(row["seq"], received_on, settings))
        yield QuarantinedRow(file=NAME, line=row["seq"], broken_rule=row["broken_rule"], raw=raw.decode())


def replay_inbox(received_on: date, settings: Settings, now: datetime, *, fixed: Path | None = None) -> InboxReplay:
    """Judge the rejected events of a received day again, by the rules of that day, and let in those that are good.

    A replay that was cut off must be run again before the next refresh: of a day that the inbox has forgotten else, the
    refresh takes what the lake has for the whole.

    fixed: rows mended by hand, of which there are none here.
    """
    if fixed is not None:
        raise SettingInvalid(
            "Rows mended by hand are those of files; put a mended event into the inbox again, under its event_id."
        )
    confirm_key(settings)
    serving = load_serving(settings)
    report, unsealer = InboxReplay(), Unsealer(settings)
    with closing(InboxDoor(received_on, settings)) as door:
        after = singly_until = -1
        while True:
            held: Sequence[sa.RowMapping] = ()
            most = 1 if after < singly_until else EVENTS_PER_TRANSACTION
            try:
                with db.connect(settings) as connection:
                    db.query(connection, "limit_waits")
                    held = _lock(connection, settings, received_on, after=after, most=most)
                    if not held:
                        break
                    some = _settle(connection, serving, door, unsealer, held, now)
            except IntentError:
                raise
            except Exception:
                if not held:
                    raise
                if len(held) > 1:  # one of them cannot be scored: they are taken one by one
                    log.exception("batch_failed", events=len(held))
                    singly_until = held[-1]["seq"]
                    continue
                log.exception("event_not_scorable", seq=held[0]["seq"])
                with db.connect(settings) as connection:
                    some = _note(connection, settings, now, good={}, bad={held[0]["seq"]: NOT_SCORABLE})
            after = held[-1]["seq"]
            report.accepted += some.accepted
            report.duplicate += some.duplicate
            report.still_rejected += some.still_rejected
    if not (accounts := _published_accounts(received_on, settings)):
        report.awaits_validation = bool(report.accepted) and received_on < now.astimezone(settings.zone).date()
    elif published := _publish(received_on, accounts[0]["accepted"], settings):
        report.days_published = published.days_published
    return report


def _lock(
    connection: sa.Connection, settings: Settings, received_on: date, *, after: int, most: int
) -> Sequence[sa.RowMapping]:
    key = {"shop": settings.shop, "received_on": received_on}
    return db.query(connection, "lock_rejected_events", **key, after=after, most=most)


def _settle(
    connection: sa.Connection,
    serving: Serving,
    door: InboxDoor,
    unsealer: Unsealer,
    held: Sequence[sa.RowMapping],
    now: datetime,
) -> InboxReplay:
    """A batch as the scorer has it, but that its events come from inbox.rejected and not from inbox.event."""
    settings = door.door.settings
    judged = door.judge([door.opened(row, unsealer) for row in held])
    fresh = queue.keep_first_arrivals(connection, settings.shop, judged.accepted)
    if fresh.num_rows:
        move_profiles(connection, serving.release, fresh, serving.stamp(now, settings), settings)
    is_fresh = set(fresh["line"].to_pylist())
    good = judged.accepted["line"].to_pylist()
    bad = {each.place.line: each.broken_rule for each in judged.rejected}
    return _note(
        connection,
        settings,
        now,
        good={seq: "accepted" if seq in is_fresh else "duplicate" for seq in good},
        bad=bad,
    )


def _note(
    connection: sa.Connection, settings: Settings, now: datetime, *, good: Mapping[int, str], bad: Mapping[int, str]
) -> InboxReplay:
    """Keep what became of events, by seq: the outcome of those that are good now, the rule that the others break."""
    db.query(
        connection,
        "replay_events",
        shop=settings.shop,
        replayed_on=now.astimezone(settings.zone).date(),
        good_seq=list(good),
        good_outcome=list(good.values()),
        bad_seq=list(bad),
        bad_broken_rule=list(bad.values()),
    )
    outcomes = Counter(good.values())
    return InboxReplay(
        accepted=outcomes["accepted"], duplicate=outcomes["duplicate"], still_rejected=Counter(bad.values())
    )


def _published_accounts(received_on: date, settings: Settings) -> list[sa.RowMapping]:
    """The inbox's account of a day that the lake has; none of one that is refused or not validated yet."""
    key = {"shop": settings.shop, "received_on": received_on, "file": NAME}
    with db.connect(settings) as connection:
        return [row for row in db.query(connection, "file_accounts", **key) if row["status"] == "published"]


def _publish(received_on: date, accepted_before: int, settings: Settings) -> DayReport | None:
    """Bring a day that the lake has to what is accepted now; None where that is the same."""
    lake = Lake(settings.lake_root, settings.shop)
    door = Door(received_on=received_on, mapping=load_mapping(MAPPING), settings=settings, lake=lake)
    with lake.guarded():
        intake = take_in_inbox(door)
        if intake is None or intake.account.accepted == accepted_before:
            return None
        return publish_day(door, [intake], max_rejected_ratio=1.0)
