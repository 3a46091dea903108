"""A received day's nearline events as one more source of validate_events, beside the day's files."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import sqlalchemy as sa

from intent_platform import db
from intent_platform.domain import FileAccount
from intent_platform.events.contract import ACCEPTED_SCHEMA
from intent_platform.events.intake import Door, FileIntake
from intent_platform.events.parts import PartWriter
from intent_platform.inbox.door import NAME

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

    Rejected rows stay in inbox.rejected; only their number is in the account.
    """
    with db.connect(door.settings) as connection:
        # Whoever began to write before this is done; later events belong to a later day, or come with the next run.
        connection.execute(sa.text("LOCK TABLE inbox.accepted IN SHARE MODE"))
    with db.connect(door.settings) as connection:
        day = _account(connection, door)
        if day.rows == 0 or day.accepted < _rows_in_lake(door):
            return None
        with PartWriter(door.lake, ("accepted", door.partition)) as writer:
            for rows in _accepted(connection, door):
                writer.add(rows)
        digest = hashlib.sha256(f"{day.accepted} {day.newest_seq}".encode()).hexdigest()
        parts = writer.parts({"file": NAME, "file_digest": digest, "mapping": door.mapping.digest, "header": "[]"})
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
    return FileIntake(account=account, accepted=parts, quarantined=None)


def _account(connection: sa.Connection, door: Door) -> InboxDay:
    key = {"shop": door.settings.shop, "received_on": door.received_on}
    (counts,) = db.query(connection, "inbox_day", **key)
    rules = db.query(connection, "inbox_rules", **key)
    return InboxDay(**counts, by_rule={row["broken_rule"]: row["rows"] for row in rules})


def _rows_in_lake(door: Door) -> int:
    published = door.lake.snapshot().files("accepted", door.partition)
    return sum(each.rows for each in published if each.tags["file"] == NAME)


def _accepted(connection: sa.Connection, door: Door) -> Iterator[pa.Table]:
    key = {"shop": door.settings.shop, "received_on": door.received_on, "file": NAME}
    for rows in db.stream(connection, "inbox_accepted", ROWS_PER_READ, **key):
        yield pa.Table.from_pylist([dict(row) for row in rows], schema=ACCEPTED_SCHEMA)
