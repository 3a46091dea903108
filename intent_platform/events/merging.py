"""Accepted files → clean days: the earliest arrival of each event wins, so the order of runs does not matter.

clean/day=D is a pure function of the files accepted on the received days D − lateness … D + lateness: later ones hold
its late events, earlier ones can hold an event_id that comes again.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from intent_platform.domain import CleanDay
from intent_platform.events.contract import EVENT_FIELDS
from intent_platform.events.intake import first_of_each_event
from intent_platform.lake import DataFile, Lake
from intent_platform.settings import Settings


@ibis.udf.scalar.builtin(signature=((dt.string,), dt.uint64))
def md5_number_lower(text):
    """DuckDB: the lower half of the MD5 sum as a number."""


@ibis.udf.scalar.builtin(signature=((dt.Timestamp(timezone="UTC"),), dt.int64))
def epoch_us(instant):
    """DuckDB: microseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class MergedDay:
    """A clean day as written; `file` is None when no event is left in it."""

    facts: CleanDay
    file: DataFile | None
    event_counts: Sequence[dict]  # event_type, events, users


@dataclass(frozen=True, kw_only=True)
class AcceptedFiles:
    """Accepted data files by received day: as published, with the day at hand replaced by what was just written."""

    by_received_day: dict[date, tuple[DataFile, ...]]
    lake: Lake

    def around(self, day: date, lateness: timedelta) -> list[str]:
        reach = timedelta(days=math.ceil(lateness / timedelta(days=1)))
        near = [each for each in sorted(self.by_received_day) if day - reach <= each <= day + reach]
        return [self.lake.path(file.path) for each in near for file in self.by_received_day[each]]


def touched_days(
    engine: Backend, changed: Sequence[DataFile], accepted: AcceptedFiles, received_on: date, lateness: timedelta
) -> list[date]:
    """Days whose content can change when `changed` files (new ones, and old ones they replace) come or go."""
    paths = [accepted.lake.path(each.path) for each in changed if each.rows]
    if not paths:
        return []
    rows = engine.read_parquet(paths, hive_partitioning=False)
    own = rows.select("day").distinct()
    # A file of R decides ids in clean days up to R + lateness, whose rows may be received as much later again.
    nearby = [path for path in accepted.around(received_on, 2 * lateness) if path not in paths]
    if nearby:
        elsewhere = (
            engine.read_parquet(nearby, hive_partitioning=False)
            .semi_join(rows.select("event_id"), "event_id")
            .select("day")
        )
        own = own.union(elsewhere).distinct()
    return sorted(own.to_pyarrow()["day"].to_pylist())


def merge_day(engine: Backend, day: date, accepted: AcceptedFiles, settings: Settings) -> MergedDay:
    """Write the clean day as an unpublished file, and count it."""
    lake = accepted.lake
    near = engine.read_parquet(
        accepted.around(day, timedelta(hours=settings.max_lateness_hours)), hive_partitioning=False
    )
    of_day = near.filter(near.day == ibis.literal(day))
    winners = first_of_each_event(engine, near)
    relative = lake.new_path("clean", f"day={day}")
    engine.to_parquet(
        winners.filter(winners.day == ibis.literal(day)), lake.path(relative), compression="zstd", compression_level=1
    )
    written = engine.read_parquet(lake.path(relative), hive_partitioning=False)
    totals = written.aggregate(rows=written.count(), digest=_content_sum(written)).to_pyarrow().to_pylist()[0]
    rows_accepted = of_day.count().to_pyarrow().as_py()
    facts = CleanDay(
        shop=settings.shop,
        day=day,
        rows_accepted=rows_accepted,
        duplicate=rows_accepted - totals["rows"],
        rows=totals["rows"],
        content_digest=f"{totals['rows']}-{int(totals['digest'] or 0) % 2**64:016x}",
    )
    tags = {"content_digest": facts.content_digest}
    file = DataFile(path=relative, rows=totals["rows"], tags=tags) if totals["rows"] else None
    return MergedDay(facts=facts, file=file, event_counts=_event_counts(written))


def _content_sum(events: ir.Table) -> ir.Value:
    """Sum of row digests over the contract's fields: the same for any order of rows."""
    texts = {each.name: events[each.name].cast("string") for each in EVENT_FIELDS}
    texts["occurred_at"] = epoch_us(events.occurred_at).cast("string")  # a time as text is slow, and of a time zone
    parts = [ibis.coalesce(text, "") for text in texts.values()]
    return md5_number_lower(ibis.literal("\x1f").join(parts)).cast("decimal(38, 0)").sum()


def _event_counts(events: ir.Table) -> list[dict]:
    owner = ibis.coalesce(events.user_id, events.anonymous_id)
    counts = events.group_by("event_type").aggregate(events=events.count(), users=owner.nunique())
    return counts.order_by("event_type").to_pyarrow().to_pylist()


def replace_files(old: Iterable[DataFile], new: Sequence[DataFile]) -> list[DataFile]:
    """Old files, less those whose received file comes again, plus the new ones."""
    names = {each.tags["file"] for each in new}
    return [*(each for each in old if each.tags["file"] not in names), *new]
