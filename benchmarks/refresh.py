"""make bench-refresh: a million profiles moved by the product's own write path, beside plain ON CONFLICT and MERGE.

Each side begins with a copy of one database (schema, indexes and fillfactor of the product; profiles, interests,
recommendations and history of yesterday) and gets the same rows: once every row of every table is new, once those of
one shopper in ten. Peers write it as one plans it first: COPY, one statement per table, one transaction, so one
connection; ours writes over two. Everything is on the disk at the end of each side. Meanwhile another process updates
single profiles. processor_us is what a profile costs in all, here and in Postgres, however many work side by side.
Prints a table; writes var/bench/refresh.json.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import psycopg2
import pyarrow as pa
import sqlalchemy as sa

from intent_platform import daily, db
from intent_platform.bench.result import write_result
from intent_platform.db import embedded
from intent_platform.db.connection import _engine
from intent_platform.profiles import ProfileRows, Stamp
from intent_platform.scoring import Scores
from intent_platform.settings import Settings

USERS_PER_BUCKET = 20_000  # scored at once
INTERESTS, RECOMMENDATIONS, ITEMS, CATEGORIES = 6, 10, 20_000, 200
NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)
UTC_US = pa.timestamp("us", "UTC")
WRITES_PER_S = 100
TABLES = ("user_profile", "user_interest", "user_recommendation")
SATELLITES = ("ago", "weight", "category", "item", "score")  # of what is drawn
KEYS = {"user_profile": ("shop", "user_id")}  # of the others: and rank


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the second day brings, as shares of the shoppers."""

    profiles: float
    satellites: float
    is_next_day: bool  # else the same day, told anew


CHANGES = {
    "": Change(profiles=1, satellites=0.4, is_next_day=True),  # 0.4: who had events, on a day of the synthetic shop
    "_every_row": Change(profiles=1, satellites=1, is_next_day=True),
    "_tenth": Change(profiles=0.1, satellites=0.1, is_next_day=False),
}
"""By the ending of their figures' names."""

Found = dict[tuple[str, str], list[dict[str, float]]]
"""(side, ending) → the figures of each round."""


def scored(users: int, change: Change | None = None) -> Iterator[Scores]:
    """Made-up scores of `users` shoppers of the first day, bucket by bucket; or of the second."""
    for first in range(0, users, USERS_PER_BUCKET):
        count = min(USERS_PER_BUCKET, users - first)
        draws, valid_at = _draws(np.random.default_rng([first, 1]), count), NOON
        if change:
            new, place = _draws(np.random.default_rng([first, 2]), count), np.random.default_rng(first).random(count)
            for name in draws:
                share = change.satellites if name in SATELLITES else change.profiles
                draws[name] = np.where((place < share).reshape(-1, *[1] * (new[name].ndim - 1)), new[name], draws[name])
            valid_at += timedelta(days=change.is_next_day)
        yield _as_scores([f"u1_{first + each:012}" for each in range(count)], draws, valid_at)


def _draws(chance: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    fixed = np.random.default_rng(5)
    # Of ten recommended items seven stay from day to day, with other scores.
    item = fixed.integers(0, ITEMS, (count, RECOMMENDATIONS))
    item[:, 3:6] = chance.integers(0, ITEMS, (count, 3))
    return {
        "count": chance.integers(0, 60, (count, 7)),
        "intent": chance.random(count),
        "money": np.round(chance.random((count, 3)) * 100, 2),
        "ago": chance.integers(0, 20 * 86_400, count),
        "weight": np.sort(chance.dirichlet(np.ones(INTERESTS), count), axis=1)[:, ::-1],
        "category": fixed.permuted(np.tile(np.arange(CATEGORIES), (count, 1)), axis=1)[:, :INTERESTS],
        "item": item,
        "score": np.sort(chance.random((count, RECOMMENDATIONS)), axis=1)[:, ::-1],
    }


def _as_scores(names: list[str], draws: dict[str, np.ndarray], valid_at: datetime) -> Scores:
    count, user_ids = len(names), pa.array(names)
    last = pa.array(int(NOON.timestamp() * 1e6) - draws["ago"] * 1_000_000).cast(UTC_US)
    category = pa.array([f"department-{each % 12}.aisle-{each}" for each in range(CATEGORIES)])
    items = pa.array([f"item-{each:05}" for each in range(ITEMS)])
    reasons = pa.array([f"popular in department-{each % 12}.aisle-{each}" for each in range(CATEGORIES)])
    counted = ("events_1d", "events_7d", "events_30d", "views_7d", "searches_7d", "add_to_carts_7d", "purchases_30d")
    shown = pa.StructArray.from_arrays(
        [category.take(pa.array(draws["category"][:, :5].ravel())), pa.array(draws["weight"][:, :5].ravel().round(4))],
        names=["category", "weight"],
    )
    intent = draws["intent"]
    band = np.where(intent >= 0.5, "hot", np.where(intent >= 0.2, "warm", "cool"))
    profiles = {
        "user_id": user_ids,
        "last_event_at": last,
        "last_event_type": pa.array(["view"] * count),
        **{name: pa.array(draws["count"][:, place], pa.int32()) for place, name in enumerate(counted)},
        "spent_30d": pa.array(draws["money"][:, 0]),
        "spent_currency": pa.array(["EUR"] * count),
        "purchase_intent": pa.array(intent),
        "intent_missing_reason": pa.nulls(count, pa.string()),
        "intent_band": pa.array(band.tolist()),
        "top_categories": pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * 5, pa.int32()), shown),
        "price_low": pa.array(draws["money"][:, 1]),
        "price_high": pa.array(draws["money"][:, 1] + draws["money"][:, 2]),
        "price_currency": pa.array(["EUR"] * count),
        "valid_at": pa.array([valid_at] * count, UTC_US),
    }
    return Scores(
        profiles=pa.table(profiles),
        interests=pa.table(
            {
                "user_id": user_ids.take(pa.array(np.repeat(np.arange(count), INTERESTS))),
                "rank": pa.array(np.tile(np.arange(1, INTERESTS + 1), count), pa.int16()),
                "category": category.take(pa.array(draws["category"].ravel())),
                "weight": pa.array(draws["weight"].ravel()),
                "last_seen_at": last.take(pa.array(np.repeat(np.arange(count), INTERESTS))),
            }
        ),
        recommendations=pa.table(
            {
                "user_id": user_ids.take(pa.array(np.repeat(np.arange(count), RECOMMENDATIONS))),
                "rank": pa.array(np.tile(np.arange(1, RECOMMENDATIONS + 1), count), pa.int16()),
                "item_id": items.take(pa.array(draws["item"].ravel())),
                "score": pa.array(draws["score"].ravel().round(6)),
                "origin": pa.array(["popular"] * count * RECOMMENDATIONS),
                "reason": reasons.take(pa.array(draws["item"].ravel() % CATEGORIES)),
            }
        ),
    )


def ours(settings: Settings, days: Iterator[Scores], stamp: Stamp) -> None:
    """What refresh_profiles does once a bucket is scored, and the marker: once it is on the disk, all is."""
    for scores in days:
        is_rerun = scores.profiles["valid_at"][0].as_py() == NOON and stamp.scored_at > NOON
        write = partial(daily._write, meeting=None, stamp=stamp, settings=settings, is_rerun=is_rerun)
        daily._move(scores, scores.interests, write)
    with db.connect(settings) as connection:
        marker = {"day": stamp.scored_at.date(), "release_id": stamp.release_id, "users": 0, "rows_changed": 0}
        number = stamp.promotion_number
        db.query(connection, "put_refreshed_day", shop=stamp.shop, promotion_number=number, **marker)


def on_conflict(settings: Settings, days: Iterator[Scores], stamp: Stamp) -> None:
    """COPY, then one INSERT … ON CONFLICT DO UPDATE per table, then the history; one transaction."""
    _in_one_transaction(settings, days, stamp, _insert_on_conflict)


def merge(settings: Settings, days: Iterator[Scores], stamp: Stamp) -> None:
    """COPY, then one MERGE per table, then the history; one transaction."""
    _in_one_transaction(settings, days, stamp, _merge)


def _in_one_transaction(
    settings: Settings, days: Iterator[Scores], stamp: Stamp, move: Callable[[str, list[str]], str]
) -> None:
    with db.connect(settings) as connection:
        for table in TABLES:
            connection.execute(sa.text(f"CREATE TEMPORARY TABLE new_{table} (LIKE profiles.{table})"))
        for scores in days:
            rows = ProfileRows.of(scores.profiles, scores.interests, scores.recommendations, stamp)
            stamped = {**asdict(stamp), "input_watermark": rows.profiles["valid_at"]}
            db.copy_rows(connection, "new_user_profile", _with_columns(rows.profiles, stamped))
            for name in ("interest", "recommendation"):
                satellites = _with_columns(getattr(rows, f"{name}s"), {"shop": stamp.shop})
                db.copy_rows(connection, f"new_user_{name}", satellites)
        for table in TABLES:
            connection.execute(sa.text(f"ANALYZE new_{table}"))
            statement = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0"
            columns = connection.execute(sa.text(statement), {"name": f"profiles.{table}"}).scalars().all()
            connection.execute(sa.text(move(table, list(columns))))
        connection.execute(sa.text(APPEND_HISTORY))
        for table in TABLES:
            connection.execute(sa.text(f"DROP TABLE new_{table}"))


def _with_columns(rows: pa.Table, values: dict[str, object]) -> pa.Table:
    for name, value in values.items():
        is_column = isinstance(value, pa.ChunkedArray)
        rows = rows.append_column(name, value if is_column else pa.repeat(pa.scalar(value), rows.num_rows))
    return rows


def _insert_on_conflict(table: str, columns: list[str]) -> str:
    key = KEYS.get(table, ("shop", "user_id", "rank"))
    moved = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO profiles.{table} SELECT * FROM new_{table} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {moved}"
    )


def _merge(table: str, columns: list[str]) -> str:
    key = KEYS.get(table, ("shop", "user_id", "rank"))
    same = " AND ".join(f"known.{name} = new.{name}" for name in key)
    moved = ", ".join(f"{name} = new.{name}" for name in columns if name not in key)
    given = ", ".join(f"new.{name}" for name in columns)
    return (
        f"MERGE INTO profiles.{table} AS known USING new_{table} AS new ON {same} "
        f"WHEN MATCHED THEN UPDATE SET {moved} WHEN NOT MATCHED THEN INSERT VALUES ({given})"
    )


APPEND_HISTORY = """
INSERT INTO profiles.user_profile_history (
    shop, user_id, as_of, purchase_intent, intent_missing_reason, intent_band, last_event_at, events_7d,
    add_to_carts_7d, purchases_30d, spent_30d, spent_currency, top_categories, recommended_items, source, release_id,
    promotion_number, content_digest
)
SELECT
    shop, user_id, valid_at, purchase_intent, intent_missing_reason, intent_band, last_event_at, events_7d,
    add_to_carts_7d, purchases_30d, spent_30d, spent_currency, top_categories, recommended_items, source, release_id,
    promotion_number, split_part(content_digest, '-', 1)
FROM new_user_profile
"""

SIDES = {"ours": ours, "on_conflict": on_conflict, "merge": merge}


@contextmanager
def yesterday(folder: Path, users: int) -> Iterator[Settings]:
    """A database that holds day 1, to be copied for each side."""
    settings = Settings(home=folder / "home", postgres_home=str(folder / "postgres"))
    with db.serve(settings) as served:
        db.migrate(served)
        ours(served, scored(users), _stamp(NOON))
        _as_superuser(served, "intent", "VACUUM ANALYZE")
        yield served


@contextmanager
def copied(settings: Settings, name: str) -> Iterator[Settings]:
    """A copy of that database, dropped afterwards."""
    _engine(settings.database_url).dispose()  # a database that someone is connected to cannot be a template
    copying = f"CREATE DATABASE {name} TEMPLATE intent OWNER intent STRATEGY file_copy"
    _as_superuser(settings, "postgres", copying, "CHECKPOINT")
    url = sa.make_url(settings.database_url).set(database=name).render_as_string(hide_password=False)
    mine = replace(settings, database_url=url)
    try:
        yield mine
    finally:
        _engine(mine.database_url).dispose()
        _as_superuser(settings, "postgres", f"DROP DATABASE {name} WITH (FORCE)")


def _as_superuser(settings: Settings, database: str, *statements: str) -> list:
    """Run statements outside transactions; rows of the last one, if it gives any."""
    server = embedded._Server.at(Path(settings.postgres_home))
    dsn = psycopg2.extensions.make_dsn(server._superuser_dsn(), dbname=database)
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def _stamp(scored_at: datetime) -> Stamp:
    return Stamp(
        shop="main",
        release_id="r1",
        promotion_number=1,
        source="batch",
        scored_at=scored_at,
        horizon_hours=24,
    )


def update_singly(dsn: str, users: int, stop: Event, results: multiprocessing.Queue) -> None:
    """Update single profiles at a steady rate until told to stop; send how long each took, in ms."""
    chance, took = np.random.default_rng(1), []
    update = "UPDATE profiles.user_profile SET scored_at = scored_at WHERE shop = 'main' AND user_id = %s"
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        began = time.monotonic()
        while not stop.is_set():
            time.sleep(max(began + len(took) / WRITES_PER_S - time.monotonic(), 0))
            asked = time.monotonic()
            cursor.execute(update, [f"u1_{chance.integers(users):012}"])
            took.append(1000 * (time.monotonic() - asked))
    results.put(took)


def measured(settings: Settings, side: str, users: int, change: Change) -> dict[str, float]:
    """One side over a copy of yesterday's database: rows_per_s counts profiles."""
    days = list(scored(users, change))
    with copied(settings, f"bench_{side}") as mine:
        dsn = sa.make_url(mine.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        spawn = multiprocessing.get_context("spawn")
        stop, results = spawn.Event(), spawn.Queue()
        writer = spawn.Process(target=update_singly, args=(dsn, users, stop, results))
        writer.start()
        time.sleep(2)
        before, worked = _wal_bytes(settings), _processor_seconds(settings)
        began = time.monotonic()
        SIDES[side](mine, iter(days), _stamp(NOON + timedelta(days=1)))
        seconds = time.monotonic() - began
        worked = _processor_seconds(settings) - worked
        wal = _wal_bytes(settings) - before
        stop.set()
        waits = results.get()
        writer.join()
    return {
        "rows_per_s": users / seconds,
        "processor_us": 1e6 * worked / users,
        "wal_mib": wal / 2**20,
        "writer_wait_ms": max(waits),
        "writer_p99_ms": float(np.percentile(waits, 99)),
    }


def _processor_seconds(settings: Settings) -> float:
    """Of this process and of all of the server's, those that ended too."""
    server = embedded._Server.at(Path(settings.postgres_home))
    postmaster = (server.data / "postmaster.pid").read_text().split()[0]
    running = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    ticks = sum(sum(_ticks(each)[:2]) for each in running) + sum(_ticks(postmaster))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _ticks(process: str) -> list[int]:
    """Its own, user and system, and the same of its children that ended; none of one that has just ended itself."""
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(each) for each in told.rpartition(")")[2].split()[11:15]]


def _wal_bytes(settings: Settings) -> int:
    return int(_as_superuser(settings, "postgres", "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--changes", nargs="+", default=list(CHANGES), choices=CHANGES)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    given = parser.parse_args()
    found: Found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the embedded Postgres may run as another account
        with yesterday(folder, given.users) as settings:
            for _ in range(given.rounds):
                for ending in given.changes:
                    for side in given.sides:
                        figures = measured(settings, side, given.users, CHANGES[ending])
                        found.setdefault((side, ending), []).append(figures)
                        told = "".join(f"{key:>16} {value:>9,.0f}" for key, value in figures.items())
                        print(f"{side:12}{ending or '_next_day':11}{told}", flush=True)
    results = {side: _medians(found, side, given.changes) for side in given.sides}
    peers = {side: figures for side, figures in results.items() if side != "ours"}
    write_result("refresh", results["ours"], peers, [], " ".join(["python benchmarks/refresh.py", *sys.argv[1:]]))


def _medians(found: Found, side: str, endings: Sequence[str]) -> dict[str, float]:
    """Over the rounds, and how far the rounds lie apart."""
    told = {}
    for ending in endings:
        for key in found[side, ending][0]:
            values = [each[key] for each in found[side, ending]]
            told[key + ending] = statistics.median(values)
            told[f"{key}{ending}_spread"] = max(values) - min(values)
    return told


if __name__ == "__main__":
    main()
