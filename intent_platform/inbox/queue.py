"""inbox.event as a queue: claim, set aside, rotate, wait. The caller owns the transaction."""

import select
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date

import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db
from intent_platform.events.quarantine import Rejected, Sealer, quarantine_table
from intent_platform.inbox.door import NOT_SCORABLE
from intent_platform.inbox.outage import Outage
from intent_platform.log import get_logger
from intent_platform.settings import Settings

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Which waiting events to claim; as it stands: all. Scorers side by side take those of different shoppers, or they
    would wait for each other wherever one shopper is busy."""

    after: int = 0  # events with a larger seq
    part: int = 0
    parts: int = 1  # into which shoppers are divided; those of `part`


EVERYTHING = Look()


def claim(connection: sa.Connection, shop: str, look: Look, *, most: int) -> Sequence[sa.RowMapping]:
    """Take up to `most` waiting events, in order of seq, that no other scorer has. They are gone once the transaction
    commits, and wait again if it does not. The transaction waits for nobody for long from here on (limit_waits.sql).

    `look.after` spares a walk over rows that are deleted but still kept for somebody's old transaction. An event may
    become visible after a later one, and another part's scorer may be gone, so look for EVERYTHING now and then.
    """
    return db.query(connection, "limit_waits", "claim_events", shop=shop, most=most, **asdict(look))


def keep_first_arrivals(connection: sa.Connection, shop: str, accepted: pa.Table) -> pa.Table:
    """Those of the accepted events whose id never came before: kept in inbox.accepted, where validate_events reads
    them. The others are noted in inbox.duplicate."""
    if not accepted.num_rows:
        return accepted
    rows = accepted.drop_columns(["file"])
    rows = rows.rename_columns(["seq" if name == "line" else name for name in rows.column_names])
    first = db.prepared(connection, "keep_arrivals", shop=shop, **db.array_columns(rows))
    if len(first) == accepted.num_rows:
        return accepted
    return accepted.filter(pc.is_in(accepted["line"], value_set=pa.array([row["seq"] for row in first], pa.int64())))


def keep_rejected(connection: sa.Connection, rejected: Sequence[Rejected], settings: Settings) -> None:
    """Seal what broke a rule and set it aside."""
    if not rejected:
        return
    sealed = quarantine_table(list(rejected), Sealer(settings)).drop_columns(["file"])
    rows = [{**row, "seq": row.pop("line"), "shop": settings.shop} for row in sealed.to_pylist()]
    db.execute_many(connection, "add_rejected_event", rows)


def is_none_scorable(connection: sa.Connection, shop: str, received_on: date, *, among: int) -> bool:
    """Whether the newest events of the received day, so many at least, were all set aside as not scorable."""
    key = {"shop": shop, "received_on": received_on, "not_scorable": NOT_SCORABLE, "most": among}
    (row,) = db.query(connection, "not_scorable", **key)
    return row["not_scorable"] == among


def rotate(connection: sa.Connection) -> int:
    """Truncate what is done with; returns how many partitions were, 0 where somebody looks at it."""
    return connection.execute(sa.text("SELECT inbox.rotate()")).scalar_one()


def end_stuck(connection: sa.Connection, *, after_s: float) -> int:
    """End batches whose scorer has not moved for so long in the middle of a statement; returns how many were."""
    ended = db.query(connection, "end_stuck_batches", seconds=after_s)
    if ended:
        log.warning("stuck_batches_ended", batches=len(ended))
    return len(ended)


class Bell:
    """Rings when something was put into the inbox. A lost ring costs no more than the wait's timeout."""

    def __init__(self, settings: Settings, outage: Outage) -> None:
        self._url, self._outage = db.libpq_url(settings), outage
        self._connection: psycopg2.extensions.connection | None = None

    def wait(self, timeout_s: float) -> None:
        """Return at a ring, or when the time is over; while Postgres is away, when the time is over."""
        try:
            connection = self._connection = self._connection or self._listening()
            if select.select([connection], [], [], timeout_s)[0]:
                connection.poll()
                connection.notifies.clear()
        except psycopg2.Error as error:
            self._outage.tell("bell_lost", error)
            self.close()
            time.sleep(timeout_s)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _listening(self) -> psycopg2.extensions.connection:
        connection = psycopg2.connect(self._url, connect_timeout=5)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("LISTEN intent_inbox")
        return connection
