"""sequences/day=D: a day's events under their owner, in time order, with their sessions marked.

An anonymous event belongs to the user that the log linked to its device at or before that moment; never to one linked
later. Without a link the owner is the anonymous id itself. Sessions may cross midnight: the day before is read too.
"""

import hashlib
from collections.abc import Sequence
from datetime import date, timedelta

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

from intent_platform.events.contract import EVENT_SCHEMA, UTC_TIME
from intent_platform.events.engine import open_engine
from intent_platform.events.typing import at_time_zone
from intent_platform.lake import DataFile, Snapshot
from intent_platform.sequences.account import figures_of
from intent_platform.settings import Settings

SEQUENCE_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),  # owner: user, or anonymous id where no user is known yet
        pa.field("names_user", pa.bool_()),  # else a late link may change the owner
        EVENT_SCHEMA.field("anonymous_id"),
        pa.field("event_id", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("occurred_at", UTC_TIME),
        pa.field("received_at", UTC_TIME),  # end of the received day
        pa.field("session_started_at", UTC_TIME),  # with user_id: which session
        *(EVENT_SCHEMA.field(name) for name in ("item_id", "query_text", "category", "brand", "price", "currency")),
        *(EVENT_SCHEMA.field(name) for name in ("quantity", "rating", "order_id", "session_id", "device", "market")),
    ]
)
"""Sorted by (user_id, occurred_at, event_id); long form, one row per event."""

VERSION = "5"
"""Goes up when the same inputs give another file or other tags: days that are there are then built anew."""


@ibis.udf.scalar.builtin(signature=((dt.Timestamp(timezone="UTC"),), dt.int64))
def epoch_us(moment):
    """DuckDB: microseconds since 1970."""


Changes = dict[tuple[str, str], Sequence[DataFile]]


def build_days(snapshot: Snapshot, settings: Settings) -> Changes:
    """Write links and sequences of every clean day whose inputs changed since they were built; publish nothing."""
    days = [date.fromisoformat(each.removeprefix("day=")) for each in snapshot.partitions("clean")]
    changes: Changes = {}
    with open_engine(settings, snapshot.lake) as engine:
        for day in days:
            if _tag(snapshot, "links", day, "clean") != _clean_digest(snapshot, day):
                changes["links", f"day={day}"] = [_write_links(engine, snapshot, day)]
        links = _links_after(snapshot, changes)
        for day in days:
            inputs = _inputs_digest(snapshot, day, links, settings)
            if _tag(snapshot, "sequences", day, "inputs") != inputs:
                changes["sequences", f"day={day}"] = [_write_sequences(engine, snapshot, day, links, settings, inputs)]
    return changes


def are_built(snapshot: Snapshot) -> bool:
    """Whether the links of every clean day, with which its sequences are published, are of what it holds now."""
    days = [date.fromisoformat(each.removeprefix("day=")) for each in snapshot.partitions("clean")]
    return all(_tag(snapshot, "links", day, "clean") == _clean_digest(snapshot, day) for day in days)


def _clean_digest(snapshot: Snapshot, day: date) -> str:
    return _tag(snapshot, "clean", day, "content_digest") or ""


def _tag(snapshot: Snapshot, table: str, day: date, name: str) -> str | None:
    files = snapshot.files(table, f"day={day}")
    return files[0].tags[name] if files else None


def _write_links(engine: Backend, snapshot: Snapshot, day: date) -> DataFile:
    rows = link_changes(snapshot.scan(engine, "clean", [f"day={day}"])).to_pyarrow()
    content = hashlib.sha256(str(rows.to_pylist()).encode()).hexdigest()
    tags = {"clean": _clean_digest(snapshot, day), "content": content}
    return snapshot.lake.write("links", f"day={day}", rows, tags)


def link_changes(events: ir.Table) -> ir.Table:
    """(anonymous_id, user_id, linked_at): each moment at which a device's known user became another one."""
    both = events.filter(events.anonymous_id.notnull() & events.user_id.notnull())
    both = both.select("anonymous_id", "user_id", linked_at="occurred_at")
    by_device = ibis.window(group_by="anonymous_id", order_by=["linked_at", "user_id"])
    marked = both.mutate(before=both.user_id.lag().over(by_device))
    changed = marked.filter(marked.before.isnull() | (marked.before != marked.user_id))
    return changed.select("anonymous_id", "user_id", "linked_at").order_by("anonymous_id", "linked_at", "user_id")


def _links_after(snapshot: Snapshot, changes: Changes) -> dict[date, DataFile]:
    known = {partition: snapshot.files("links", partition) for partition in snapshot.partitions("links")}
    known |= {partition: tuple(files) for (table, partition), files in changes.items() if table == "links"}
    return {date.fromisoformat(each.removeprefix("day=")): files[0] for each, files in known.items() if files}


def _links_until(links: dict[date, DataFile], day: date, settings: Settings) -> list[DataFile]:
    earliest = day - timedelta(days=settings.history_days)
    return [links[each] for each in sorted(links) if earliest <= each <= day]


def _inputs_digest(snapshot: Snapshot, day: date, links: dict[date, DataFile], settings: Settings) -> str:
    parts = [_clean_digest(snapshot, day - timedelta(days=1)), _clean_digest(snapshot, day)]
    parts += [each.tags["content"] for each in _links_until(links, day, settings) if each.rows]
    parts += [str(settings.session_gap_minutes), settings.time_zone, VERSION]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _write_sequences(
    engine: Backend, snapshot: Snapshot, day: date, links: dict[date, DataFile], settings: Settings, inputs: str
) -> DataFile:
    lake = snapshot.lake
    two_days = [f"day={day - timedelta(days=1)}", f"day={day}"]
    link_files = [lake.path(each.path) for each in _links_until(links, day, settings)]
    events = snapshot.scan(engine, "clean", two_days)
    owned = with_owner(events, engine.read_parquet(link_files, hive_partitioning=False))
    marked = with_sessions(owned, gap_minutes=settings.session_gap_minutes)
    of_day = marked.filter(marked.day == ibis.literal(day))
    received_at = at_time_zone(settings.time_zone, (of_day.received_on + ibis.interval(days=1)).cast("timestamp"))
    rows = of_day.mutate(received_at=received_at).select(*SEQUENCE_SCHEMA.names)
    table = rows.order_by("user_id", "occurred_at", "event_id").to_pyarrow().cast(SEQUENCE_SCHEMA)
    figures = figures_of(ibis.memtable(table), engine)
    return lake.write("sequences", f"day={day}", table, {"inputs": inputs, **figures})


def with_owner(events: ir.Table, links: ir.Table) -> ir.Table:
    """user_id of every event: its own, else the user linked to its device by then, else its anonymous id.

    names_user tells where the event did.
    """
    linked = links.select(linked_device="anonymous_id", linked_user="user_id", linked_at="linked_at")
    joined = events.asof_join(
        linked, events.occurred_at >= linked.linked_at, events.anonymous_id == linked.linked_device
    )
    owner = ibis.coalesce(joined.user_id, joined.linked_user, joined.anonymous_id)
    owned = joined.mutate(user_id=owner, names_user=joined.user_id.notnull())
    return owned.drop("linked_device", "linked_user", "linked_at")


def with_sessions(events: ir.Table, *, gap_minutes: int) -> ir.Table:
    """session_started_at: first event after a silence of more than gap_minutes; the shop's session_id stays beside."""
    in_order = ibis.window(group_by="user_id", order_by=["occurred_at", "event_id"])
    since = epoch_us(events.occurred_at) - epoch_us(events.occurred_at.lag().over(in_order))
    begins = (since.isnull() | (since > gap_minutes * 60_000_000)).ifelse(
        events.occurred_at, ibis.null(events.occurred_at.type())
    )
    so_far = ibis.cumulative_window(group_by="user_id", order_by=["occurred_at", "event_id"])
    return events.mutate(begins=begins).mutate(session_started_at=ibis._.begins.max().over(so_far)).drop("begins")
