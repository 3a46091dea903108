"""The lake's events into nearline.user_state, so that the scorer knows what came by file.

Once when the first scorer of a shop starts; after that each refresh brings the days that are new (meeting.py).
"""

from collections.abc import Collection
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db, sequences
from intent_platform.inbox.door import NAME
from intent_platform.inbox.states import OWNED_SCHEMA, state_rows
from intent_platform.lake import Lake, Snapshot
from intent_platform.log import get_logger
from intent_platform.model.examples import day_end
from intent_platform.model.rows import Rows
from intent_platform.settings import Settings

STATES_PER_STATEMENT = 2_000

log = get_logger(__name__)


def seed_if_new(settings: Settings) -> None:
    """Bring in all of the lake unless somebody did; other workers of the shop wait for it."""
    with db.connect(settings) as connection:
        db.exclusive(connection, "nearline-seed", settings.shop)
        if db.query(connection, "seeded_days", shop=settings.shop):
            return
        snapshot = Lake(settings.lake_root, settings.shop).snapshot()
        days = sequence_days(snapshot)
        if not days:
            return
        known, users = inbox_days(snapshot), 0
        put_devices(connection, snapshot, settings.shop, max(days), settings)  # a scorer locks them first, too
        for histories in sequences.user_buckets(snapshot, max(days), settings):
            rows = Rows.of(as_owned(histories))
            valid_at = np.full(rows.users, day_end(max(days), settings))
            users += len(put_states(connection, settings.shop, rows, valid_at, known))
        note_seeded(connection, snapshot, max(days), settings)
    log.info("states_seeded", shop=settings.shop, users=users)


def as_owned(histories: pa.Table) -> pa.Table:
    """Sequence rows as states keep them: what named a device only may still move to whom a late event links it to."""
    own = pc.if_else(histories["names_user"], histories["user_id"], pa.scalar(None, pa.string()))
    added = {"own_user_id": own, "received_on": pa.nulls(histories.num_rows)}
    columns = [added[each.name] if each.name in added else histories[each.name] for each in OWNED_SCHEMA]
    return pa.table([column.cast(each.type) for column, each in zip(columns, OWNED_SCHEMA, strict=True)], OWNED_SCHEMA)


def put_states(
    connection: sa.Connection, shop: str, rows: Rows, valid_at: np.ndarray, known_days: Collection[date]
) -> list[str]:
    """Write states from the lake; returns the users whose state was not ahead of it.

    One that holds events received on another than `known_days` through the inbox, or knows a later day, is ahead, and
    stays as it is.
    """
    states, moved = state_rows(rows, valid_at), list[str]()
    for first in range(0, states.num_rows, STATES_PER_STATEMENT):
        some = db.array_columns(states.slice(first, STATES_PER_STATEMENT))
        put = db.query(connection, "put_states", shop=shop, known_days=sorted(known_days), **some)
        moved.extend(row["user_id"] for row in put)
    return moved


def put_devices(
    connection: sa.Connection,
    snapshot: Snapshot,
    shop: str,
    until: date,
    settings: Settings,
    *,
    of: pa.Array | None = None,
) -> None:
    """Add the lake's links up to `until` to what the shop knows of each device, or of these.

    A remembered event is up to history_days old, and its link as many days older than that.
    """
    oldest = until - timedelta(days=2 * settings.history_days)
    partitions = [each for each in snapshot.partitions("links") if f"day={oldest}" <= each <= f"day={until}"]
    if not partitions:
        return
    links = snapshot.read("links", partitions, ["anonymous_id", "linked_at", "user_id"])
    if of is not None:
        links = links.filter(pc.is_in(links["anonymous_id"], value_set=of))
    db.query(connection, "stage_links")
    db.copy_rows(connection, "staged_link", links.append_column("shop", pa.repeat(shop, links.num_rows)))
    db.query(connection, "put_staged_links")


def sequence_days(snapshot: Snapshot) -> dict[date, str]:
    """The published days, each with a digest of what its sequences were made from."""
    return {
        date.fromisoformat(partition.removeprefix("day=")): snapshot.files("sequences", partition)[0].tags["inputs"]
        for partition in snapshot.partitions("sequences")
    }


def inbox_days(snapshot: Snapshot) -> dict[date, int]:
    """Received days of which the lake has nearline events, with how many."""
    found = {}
    for partition in snapshot.partitions("accepted"):
        own = [each.rows for each in snapshot.files("accepted", partition) if each.tags["file"] == NAME]
        if own:
            found[date.fromisoformat(partition.removeprefix("received="))] = sum(own)
    return found


def note_seeded(connection: sa.Connection, snapshot: Snapshot, until: date, settings: Settings) -> None:
    """Days up to `until` are in the states now."""
    days = [
        {"shop": settings.shop, "day": day, "inputs": inputs}
        for day, inputs in sequence_days(snapshot).items()
        if day <= until
    ]
    db.execute_many(connection, "put_seeded_day", days)
