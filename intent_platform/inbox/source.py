"""A received day's nearline events as one more source of validate_events, beside the day's files."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db
from intent_platform.domain import FileAccount
from intent_platform.events.contract import ACCEPTED_SCHEMA
from intent_platform.events.intake import Door, FileIntake
from intent_platform.events.parts import PartWriter
from intent_platform.inbox.door import NAME
from intent_platform.lake import DataFile

ROWS_PER_READ = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxDay:
    """What came through the inbox on a received day: rows = accepted + rejected + duplicate."""

    accepted: int
    newest_seq: int
    duplicate: int
    by_rule: dict[str, int]

    @property
    def rows(self) -> int:
        return self.accepted + self.duplicate + sum(self.by_rule.values())


def take_in_inbox(door: Door) -> FileIntake | None:
    """The day's accepted events as parts of the lake; None when there were none, or they are in the lake for good.

    Of a day that the inbox has forgotten since, only what a replay brought in is new, and joins what the lake holds.
    Rejected rows stay in inbox.rejected; only their number is in the account.
    """
    with db.connect(door.settings) as connection:
        # Whoever began to write before this is done; later events belong to a later day, or come with the next run.
        connection.execute(sa.text("LOCK TABLE inbox.accepted IN SHARE MODE"))
    with db.connect(door.settings) as connection:
        day = _account(connection, door)
        if day.rows == 0:
            return None
        lines = _only_in_lake(connection, door, day)
        with PartWriter(door.lake, ("accepted", door.partition)) as writer:
            for rows in _accepted(connection, door):
                writer.add(rows.filter(pc.invert(pc.is_in(rows["line"], value_set=lines))))
        if len(lines):
            day = _with_forgotten(connection, door, day, lines)
    digest = hashlib.sha256(f"{day.accepted} {day.newest_seq}".encode()).hexdigest()
    new = writer.parts({"file": NAME, "file_digest": digest, "mapping": door.mapping.digest, "header": "[]"})
    if len(lines) and not new:
        return None
    account = FileAccount(
        shop=door.settings.shop,
        received_on=door.received_on,
        file=NAME,
        source=NAME,
        file_digest=digest,
        rows_read=day.rows,
        accepted=day.accepted,
        quarantined=sum(day.by_rule.values()),
        duplicate=day.duplicate,
        by_rule=day.by_rule,
    )
    held = _parts_in_lake(door) if len(lines) else ()
    return FileIntake(account=account, accepted=(*held, *new), quarantined=None)


def _account(connection: sa.Connection, door: Door) -> InboxDay:
    key = {"shop": door.settings.shop, "received_on": door.received_on}
    (counts,) = db.query(connection, "inbox_day", **key)
    rules = db.query(connection, "inbox_rules", **key)
    return InboxDay(**counts, by_rule={row["broken_rule"]: row["rows"] for row in rules})


def _only_in_lake(connection: sa.Connection, door: Door, day: InboxDay) -> pa.Array:
    """Lines of the lake's rows of the day where the inbox has forgotten them; empty where it still has all."""
    key = {"shop": door.settings.shop, "received_on": door.received_on}
    replayed = db.query(connection, "replayed_seqs", **key)
    held = _parts_in_lake(door)
    lines = pa.array([], pa.int64())
    if held and (replayed or day.accepted < sum(each.rows for each in held)):
        rows = door.lake.snapshot().read("accepted", [door.partition], ["file", "line"])
        lines = rows.filter(pc.equal(rows["file"], NAME))["line"].combine_chunks()
    came_at_first = pc.invert(pc.is_in(lines, value_set=pa.array([row["seq"] for row in replayed], pa.int64())))
    still_here = day.accepted - sum(row["is_kept"] for row in replayed)
    gone = pa.array([row["seq"] for row in replayed if not row["is_kept"]], pa.int64())
    is_forgotten = still_here < (pc.sum(came_at_first).as_py() or 0) or pc.any(pc.is_in(gone, value_set=lines)).as_py()
    return lines if is_forgotten else lines[:0]


def _with_forgotten(connection: sa.Connection, door: Door, day: InboxDay, lines: pa.Array) -> InboxDay:
    """The account of a day, of which the inbox has only what was rejected or replayed, from the one before."""
    key = {"shop": door.settings.shop, "received_on": door.received_on}
    (before,) = (row for row in db.query(connection, "file_accounts", **key, file=NAME) if row["status"] == "published")
    replayed = {row["seq"] for row in db.query(connection, "replayed_seqs", **key) if row["is_kept"]}
    accepted = len(replayed.union(lines.to_pylist()))
    duplicate = before["rows_read"] - accepted - sum(day.by_rule.values())
    return replace(day, accepted=accepted, duplicate=duplicate)


def _parts_in_lake(door: Door) -> tuple[DataFile, ...]:
    published = door.lake.snapshot().files("accepted", door.partition)
    return tuple(each for each in published if each.tags["file"] == NAME)


def _accepted(connection: sa.Connection, door: Door) -> Iterator[pa.Table]:
    key = {"shop": door.settings.shop, "received_on": door.received_on, "file": NAME}
    for rows in db.stream(connection, "inbox_accepted", ROWS_PER_READ, **key):
        yield pa.Table.from_pylist([dict(row) for row in rows], schema=ACCEPTED_SCHEMA)
