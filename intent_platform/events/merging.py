"""Accepted files → clean days: the earliest arrival of each event wins, so the order of runs does not matter.

clean/day=D is a pure function of the files accepted on the received days D − lateness … D + lateness: later ones hold
its late events, earlier ones can hold an event_id that comes again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from intent_platform.domain import CleanDay
from intent_platform.events.parts import content_sum_of, day_of, later_copies, scan, without_rows
from intent_platform.lake import DataFile, Lake
from intent_platform.settings import Settings


@dataclass(frozen=True, kw_only=True)
class MergedDay:
    """A clean day; it has no parts when no event is left in it."""

    facts: CleanDay
    parts: Sequence[DataFile]
    event_counts: Sequence[dict]  # event_type, events, users


@dataclass(frozen=True, kw_only=True)
class AcceptedFiles:
    """Accepted data files by received day: as published, with the day at hand replaced by what was just written."""

    by_received_day: dict[date, tuple[DataFile, ...]]
    lake: Lake

    def around(self, day: date, lateness: timedelta) -> list[DataFile]:
        reach = timedelta(days=math.ceil(lateness / timedelta(days=1)))
        near = [each for each in sorted(self.by_received_day) if day - reach <= each <= day + reach]
        return [part for each in near for part in self.by_received_day[each]]


def touched_days(
    engine: Backend, changed: Sequence[DataFile], accepted: AcceptedFiles, received_on: date, lateness: timedelta
) -> list[date]:
    """Days whose content can change when `changed` parts (new ones, and old ones they replace) come or go."""
    own = {day_of(each) for each in changed}
    # A file of R decides ids in clean days up to R + lateness, whose rows may be received as much later again.
    paths = {each.path for each in changed}
    nearby = [
        each
        for each in accepted.around(received_on, 2 * lateness)
        if each.path not in paths and day_of(each) not in own
    ]
    if changed and nearby:
        ids = scan(engine, accepted.lake, changed).select("event_id")
        elsewhere = scan(engine, accepted.lake, nearby).semi_join(ids, "event_id").select("day").distinct()
        own.update(elsewhere.to_pyarrow()["day"].to_pylist())
    return sorted(own)


def merge_day(engine: Backend, day: date, accepted: AcceptedFiles, settings: Settings) -> MergedDay:
    """The day's accepted parts, those written anew that hold copies of events which came before; and its counts."""
    near = accepted.around(day, timedelta(hours=settings.max_lateness_hours))
    parts = given = [each for each in near if day_of(each) == day]
    copies = later_copies(engine, accepted.lake, near) if len(near) > 1 else None
    if copies is not None:
        parts = [
            kept
            for each in given
            for kept in without_rows(engine, accepted.lake, each, ("clean", f"day={day}"), copies)
        ]
    rows, rows_accepted = (sum(each.rows for each in some) for some in (parts, given))
    facts = CleanDay(
        shop=settings.shop,
        day=day,
        rows_accepted=rows_accepted,
        duplicate=rows_accepted - rows,
        rows=rows,
        content_digest=f"{rows}-{content_sum_of(parts):016x}",
    )
    tags = {"content_digest": facts.content_digest}
    named = [DataFile(path=each.path, rows=each.rows, tags=tags) for each in parts]
    counts = _event_counts(scan(engine, accepted.lake, parts)) if parts else []
    return MergedDay(facts=facts, parts=named, event_counts=counts)


def _event_counts(events: ir.Table) -> list[dict]:
    owner = ibis.coalesce(events.user_id, events.anonymous_id)
    counts = events.group_by("event_type").aggregate(events=events.count(), users=owner.nunique())
    return counts.order_by("event_type").to_pyarrow().to_pylist()
