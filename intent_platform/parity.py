"""Does nearline say what the batch says? A day's events go through the scorer's own code, and the two are compared.

All of it happens under two shop names of its own in a transaction that is rolled back: nobody sees it, nothing stays.
"""

from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db, sequences
from intent_platform.errors import NotEnoughData, ParityBroken
from intent_platform.events.contract import ACCEPTED_SCHEMA
from intent_platform.events.engine import open_engine
from intent_platform.inbox.seeding import as_owned, put_devices, put_states
from intent_platform.index.registry import current_release
from intent_platform.lake import Lake, Snapshot
from intent_platform.model.examples import day_end, end_of_day
from intent_platform.model.rows import Rows
from intent_platform.nearline import move_profiles
from intent_platform.profiles import ProfileRows, upsert
from intent_platform.rescoring import valid_at_of
from intent_platform.scoring import score_users
from intent_platform.serving import Serving
from intent_platform.settings import Settings

TOLERANCE = 1e-5
"""Largest difference of a probability, an amount, a price or the score of a list's place; counts, times and words must
be equal, and items but for the order of those that score the same."""

REORDERED_RATIO = 1e-3
"""Share of shoppers, beyond a single one, with such items in another order, above which it is no matter of chance."""

LARGEST_BATCH = 200
REPEATED_RATIO = 0.05
NEARLINE, BATCH = "parity.nearline", "parity.batch"  # no shop can have a dot in its name


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """One row of quality.parity."""

    day: date
    users: int
    events: int
    users_differing: int
    users_reordered: int  # not among them: only items that score the same changed places
    largest_difference: float


def day_to_check(settings: Settings) -> date | None:
    """The newest refreshed day, unless it was checked since, or nearline is not used."""
    with db.connect(settings) as connection:
        found = db.query(connection, "day_without_parity", shop=settings.shop)
    return found[0]["day"] if found else None


def check_parity(day: date, settings: Settings, *, most_users: int = 5_000) -> ParityReport:
    """Replay `day` for a sample of its shoppers in shuffled, partly repeated batches; ParityBroken when they differ."""
    serving_now = current_release(settings)
    snapshot = Lake(settings.lake_root, settings.shop).snapshot()
    if serving_now is None or f"day={day}" not in snapshot.partitions("sequences"):
        raise NotEnoughData(f"{day} has no sequences or nothing serves yet: run `intent day {day}` first.")
    serving = Serving(release=serving_now[0], promotion=serving_now[1])
    histories, events = _sampled(snapshot, day, most_users, settings)
    with db.connect(settings) as connection:
        scratch = connection.begin_nested()
        _replay(connection, serving, snapshot, day, histories, events, settings)
        users = score_by_batch(connection, serving, day, histories, NEARLINE, settings)
        (row,) = db.query(connection, "parity_of_shops", nearline=NEARLINE, batch=BATCH, tolerance=TOLERANCE)
        scratch.rollback()
        figures = {**row}
        differing = figures.pop("differing")
        report = ParityReport(day=day, users=users, events=events.num_rows, **figures)
        db.query(connection, "put_parity", shop=settings.shop, tolerance=TOLERANCE, **asdict(report))
    if report.users_differing or report.users_reordered > 1 + REORDERED_RATIO * users:
        raise ParityBroken(
            f"{day}: {report.users_differing:,} of {report.users:,} shoppers have another profile nearline than by "
            f"batch, {report.users_reordered:,} more have items of equal score in another order; numbers differ by up "
            f"to {report.largest_difference:.3g}, allowed {TOLERANCE:g}. The figures are in quality.parity; what "
            "serves until the next refresh may be off for them"
            + (f", as for {', '.join(differing)}." if differing else ".")
        )
    return report


def _sampled(snapshot: Snapshot, day: date, most_users: int, settings: Settings) -> tuple[pa.Table, pa.Table]:
    """Histories up to the end of the day of some of its shoppers, and their clean events of the day."""
    users = pc.unique(snapshot.read("sequences", [f"day={day}"], ["user_id"])["user_id"]).sort()
    chosen = users.take(pa.array(np.unique(np.linspace(0, len(users) - 1, min(most_users, len(users))).astype(int))))
    history = sequences.read_history(snapshot, day, settings, users=chosen)
    with open_engine(settings, snapshot.lake) as engine:
        clean = snapshot.scan(engine, "clean", [f"day={day}"]).select(*ACCEPTED_SCHEMA.names)
        of_chosen = clean.semi_join(ibis.memtable(history.select(["event_id"])), "event_id")
        return history, of_chosen.order_by("event_id").to_pyarrow().cast(ACCEPTED_SCHEMA)


def _replay(
    connection: sa.Connection,
    serving: Serving,
    snapshot: Snapshot,
    day: date,
    histories: pa.Table,
    events: pa.Table,
    settings: Settings,
) -> None:
    """The scorer's own steps, from what was known when the day began, over its events out of order."""
    yesterday = day - timedelta(days=1)
    midnight = end_of_day(yesterday, settings)
    known = Rows.of(as_owned(histories), until=midnight - timedelta(microseconds=1))
    put_states(connection, NEARLINE, known, np.full(known.users, day_end(yesterday, settings)), ())
    put_devices(connection, snapshot, NEARLINE, yesterday, settings, of=pc.unique(histories["anonymous_id"]))
    stamp = replace(serving.stamp(midnight, settings), shop=NEARLINE)
    chance = np.random.default_rng(day.toordinal())
    count = events.num_rows
    repeats = chance.integers(count, size=int(count * REPEATED_RATIO))
    order = chance.permutation(np.concatenate([np.arange(count), repeats]))
    place = 0
    while place < len(order):
        size = int(chance.integers(1, LARGEST_BATCH + 1))
        fresh = events.take(pa.array(order[place : place + size]))
        move_profiles(connection, serving.release, fresh, stamp, settings)
        place += size


def score_by_batch(
    connection: sa.Connection, serving: Serving, day: date, histories: pa.Table, nearline: str, settings: Settings
) -> int:
    """Put profiles of the shop BATCH: each shopper's at the moment at which `nearline` told last; returns how many.

    That is later than the newest event where events that were told have since moved to another shopper.
    """
    rows = Rows.of(histories)
    told = db.query(connection, "told_already", shop=nearline, user_ids=rows.user_ids.to_pylist())
    valid_at = valid_at_of(rows, {row["user_id"]: row["valid_at"] for row in told})
    scores = score_users(serving.release, rows, valid_at, settings)
    stamp = replace(serving.stamp(end_of_day(day, settings), settings), shop=BATCH, source="batch")
    upsert(connection, ProfileRows.of(scores.profiles, scores.interests, scores.recommendations, stamp))
    return rows.users
