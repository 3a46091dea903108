"""make bench-nearline: events from the inbox to visible profiles, with model and recommendations, on one machine.

A synthetic shop is trained once; then today's events go through inbox.event. Measured: commit → visible at a steady
rate (by Postgres' own commit times), drained events a second, the same with an old transaction open, and latency while
a refresh of all profiles runs. Beside it procrastinate and pgqueuer, each job running the same scoring in the same
database. Prints a table; writes var/bench/nearline.json.

make bench-endurance: a million events while an old transaction is open; what it costs, and what the scorer holds.
Writes var/bench/nearline-endurance.json.
"""

import argparse
import asyncio
import csv
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg2
import pyarrow as pa
import sqlalchemy as sa

from intent_platform import daily, db, keys, nearline, training
from intent_platform.bench.result import write_result
from intent_platform.inbox.door import InboxDoor
from intent_platform.settings import Settings
from intent_platform.synthetic import write_shop

COLUMNS = ("event_id", "event_type", "occurred_at", "user_id", "item_id", "query_text", "category", "price", "currency")
INBOX_BYTES = """
SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'inbox.event'::regclass
"""
COMMIT_TIMES = ("-c", "track_commit_timestamp=on")


@contextmanager
def trained_shop(folder: Path, users: int, first_day: date, today: date) -> Iterator[Settings]:
    """A shop with a trained release and profiles as of yesterday; today's events have not come yet."""
    days = (today - first_day).days
    settings = Settings(
        home=folder / "home",
        postgres_home=str(folder / "postgres"),
        events_path=str(folder / "shop" / "events" / "{day}.csv"),
        max_epochs=2,
    )
    write_shop(folder / "shop", first_day=first_day, days=days + 1, users=users, seed=7)
    keys.create_missing_keys(settings)
    with db.serve(settings, options=[" ".join(COMMIT_TIMES)]) as served:
        db.migrate(served)
        daily.load_catalogue(served, source="native_catalogue", path=str(folder / "shop" / "catalogue.csv"))
        for number in range(days):
            daily.validate_events(first_day + timedelta(days=number), served, max_rejected_ratio=0.2)
        last = today - timedelta(days=1)
        daily.build_sequences(last, served)
        print(training.retrain(last, served).reason[:120])
        daily.refresh_profiles(last, served)
        yield served


def todays_rows(folder: Path) -> list[dict[str, str]]:
    """The readable rows of today's file that name an event and a user, in order of time."""
    path = folder / "shop" / "events" / f"{_today()}.csv"
    with path.open(encoding="utf-8", errors="ignore", newline="") as stream:
        rows = [
            row for row in csv.DictReader(stream) if row["event_id"] and None not in row.values() and row["user_id"]
        ]
    return sorted(rows, key=lambda row: row["occurred_at"])


def todays_events(folder: Path, count: int) -> list[dict[str, str | None]]:
    """`count` events, moved to now; the day is told again with other ids until there are enough."""
    rows = todays_rows(folder)
    now = datetime.now(UTC).replace(microsecond=0)
    found = []
    while len(found) < count:
        turn = len(found)
        for row in rows[: count - turn]:
            event = {name: row[name] or None for name in COLUMNS}
            found.append({**event, "event_id": f"{turn}-{event['event_id']}", "occurred_at": now.isoformat()})
    return found


def put_all(settings: Settings, events: list[dict]) -> None:
    table = pa.table({name: pa.array([each[name] for each in events], pa.string()) for name in COLUMNS})
    with db.connect(settings) as connection:
        db.copy_rows(connection, "inbox.event", table)


@contextmanager
def scorers(settings: Settings, workers: int) -> Iterator[int]:
    """`intent nearline` beside this process; yields its process id."""
    environment = {**os.environ, **settings.as_environment()}
    command = [sys.executable, "-m", "intent_platform.cli", "nearline", "--workers", str(workers)]
    process = subprocess.Popen(command, env=environment)
    try:
        _wait_until(
            lambda: _scalar(settings, "SELECT count(*) FROM nearline.worker WHERE stopped_at IS NULL") == workers
        )
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def latency(settings: Settings, events: list[dict], per_second: int) -> np.ndarray:
    """Milliseconds from an event's commit to its profile's, float64 (events,), put as they happen, at a steady rate."""
    connection = psycopg2.connect(_dsn(settings))
    connection.autocommit = True
    insert = f"INSERT INTO inbox.event ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"
    put_at: dict[str, float] = {}
    began = time.time()
    with connection.cursor() as cursor:
        for number, event in enumerate(events):
            time.sleep(max(began + number / per_second - time.time(), 0))
            event["occurred_at"] = datetime.now(UTC).isoformat()
            cursor.execute(insert, [event[name] for name in COLUMNS])
            put_at[event["event_id"]] = time.time()
    took = time.time() - began
    connection.close()
    _wait_until(lambda: _scalar(settings, "SELECT count(*) FROM inbox.event") == 0)
    with db.connect(settings) as reading:
        statement = "SELECT event_id, extract(epoch FROM pg_xact_commit_timestamp(xmin)) AS at FROM inbox.accepted"
        visible = {row.event_id: float(row.at) for row in reading.execute(sa.text(statement))}
    print(f"{len(events):,} events put in {took:.1f} s")
    return np.array([1000 * (visible[name] - at) for name, at in put_at.items() if name in visible])


def drained(settings: Settings, events: list[dict], *, is_pinned: bool = False) -> float:
    """Events a second over a backlog that waits already; is_pinned: an old transaction stays open meanwhile."""
    put_all(settings, events)
    worker = nearline.Scorer(settings=settings)
    found = training.current_release(settings)
    serving = nearline.Serving(release=found[0], promotion=found[1])
    with old_transaction(settings) if is_pinned else nullcontext():
        began, taken = time.monotonic(), 0
        while claimed := worker.take(serving, worker._look()):
            taken += claimed
        seconds = time.monotonic() - began
    worker.close()
    assert taken == len(events)
    return taken / seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """A stretch of a long backlog."""

    events: int
    seconds: float
    scorer_mib: float  # what the scorer held at its end
    inbox_mib: float  # the most that inbox.event took on disk, deleted rows included


@contextmanager
def old_transaction(settings: Settings) -> Iterator[None]:
    """What keeps every deleted row alive: somebody's transaction that began before."""
    pin = psycopg2.connect(_dsn(settings))
    pin.cursor().execute("SELECT txid_current()")
    try:
        yield
    finally:
        pin.close()


def stretch(settings: Settings, day: list[dict[str, str]], turns: Iterable[int], pid: int) -> Stretch:
    """One worker behind a backlog that does not run out; each turn of the day is told by other shoppers."""
    began, before, put, inbox_mib = time.monotonic(), _taken(settings), 0, 0.0
    for turn in turns:
        now, told = datetime.now(UTC).isoformat(), {"event_id": f"{turn}-", "user_id": f"{turn}-"}
        events = [{name: told.get(name, "") + row[name] or None for name in COLUMNS} for row in day]
        put_all(settings, [{**each, "occurred_at": now} for each in events])
        put += len(day)
        enough = before + put - len(day) // 2
        _wait_until(lambda enough=enough: _taken(settings) > enough, 600)
        inbox_mib = max(inbox_mib, _scalar(settings, INBOX_BYTES) / 2**20)
    _wait_until(lambda: _taken(settings) - before == put, 600)
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    found = Stretch(events=put, seconds=time.monotonic() - began, scorer_mib=resident / 2**20, inbox_mib=inbox_mib)
    print(f"{found.events:,} events in {found.seconds:.0f} s; scorer {found.scorer_mib:.0f} MiB, inbox {inbox_mib:.0f}")
    return found


def endure(settings: Settings, folder: Path, events: int) -> dict[str, float]:
    """The events while an old transaction is open, in four stretches; a fifth as many without it before and after."""
    day, turn = todays_rows(folder), itertools.count()
    with scorers(settings, 1) as pid:

        def some(share: float) -> Stretch:
            return stretch(settings, day, itertools.islice(turn, math.ceil(share * events / len(day))), pid)

        some(0.05)  # to warm up
        free = [some(0.2)]
        with old_transaction(settings):
            pinned = [some(0.25) for _ in range(4)]
        free.append(some(0.2))
    rates = [sum(each.events for each in part) / sum(each.seconds for each in part) for part in (free, pinned)]
    return {
        "events": sum(each.events for each in pinned),
        "events_per_s": rates[1],
        "pinned_loss_ratio": 1 - rates[1] / rates[0],
        "scorer_mib_before": free[0].scorer_mib,
        "scorer_mib_after": pinned[-1].scorer_mib,
        "inbox_mib": max(each.inbox_mib for each in pinned),
    }


def _taken(settings: Settings) -> int:
    return _scalar(settings, "SELECT sum(events)::bigint FROM nearline.worker")


def during_refresh(settings: Settings, events: list[dict], per_second: int, day: date) -> np.ndarray:
    """Latency while everyone's profile is refreshed again and again in another process."""
    command = [sys.executable, "-m", "intent_platform.cli", "refresh", day.isoformat()]
    environment = {**os.environ, **settings.as_environment(), "OMP_NUM_THREADS": "1"}
    stop = threading.Event()

    def refresh() -> None:
        while not stop.is_set():
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        return latency(settings, events, per_second)
    finally:
        stop.set()
        thread.join()


def one_by_one(settings: Settings) -> Callable[[dict], None]:
    """What a job of the peers does: the same rules, memory, scoring and upsert for one event, in its transaction."""
    found = training.current_release(settings)
    serving = nearline.Serving(release=found[0], promotion=found[1])
    door = InboxDoor(datetime.now(UTC).date(), settings)

    def score(event: dict) -> None:
        row = {**dict.fromkeys(door.door.mapping.fields), **event, "seq": 1, "unreadable": None}
        with db.connect(settings) as connection:
            fresh = door.judge([row]).accepted
            if fresh.num_rows:
                nearline.move_profiles(
                    connection, serving.release, fresh, serving.stamp(datetime.now(UTC), settings), settings
                )

    return score


def by_procrastinate(settings: Settings, events: list[dict]) -> float:
    """Jobs a second; the schema is procrastinate's own, in the same database."""
    import procrastinate

    score = one_by_one(settings)
    dsn = _dsn(settings)
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="score")
    def task(event: dict) -> None:
        score(event)

    async def drain() -> float:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            await task.batch_defer_async(*({"event": event} for event in events))
            began = time.monotonic()
            await app.run_worker_async(wait=False, install_signal_handlers=False, listen_notify=False)
            return len(events) / (time.monotonic() - began)

    return asyncio.run(drain())


def by_pgqueuer(settings: Settings, events: list[dict]) -> float:
    """Jobs a second; likewise."""
    import asyncpg
    from pgqueuer import PgQueuer, Queries
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.types import QueueExecutionMode

    score = one_by_one(settings)
    dsn = _dsn(settings)

    async def drain() -> float:
        connection = await asyncpg.connect(dsn)
        driver = AsyncpgDriver(connection)
        queries = Queries(driver)
        await queries.install()
        payloads = [json.dumps(event).encode() for event in events]
        await queries.enqueue(["score"] * len(events), payloads, [0] * len(events))
        runner = PgQueuer(driver)

        @runner.entrypoint("score")
        async def task(job) -> None:
            score(json.loads(job.payload))

        began = time.monotonic()
        await runner.run(mode=QueueExecutionMode.drain)
        seconds = time.monotonic() - began
        await connection.close()
        return len(events) / seconds

    return asyncio.run(drain())


def _dsn(settings: Settings) -> str:
    return sa.make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)


def _today() -> date:
    return datetime.now(UTC).date()


def _scalar(settings: Settings, statement: str) -> int:
    with db.connect(settings) as connection:
        return connection.execute(sa.text(statement)).scalar_one()


def _wait_until(is_so: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument(
        "--events", type=int, default=20_000, help="to drain, half of them while an old transaction is open"
    )
    parser.add_argument("--workers", type=int, default=1, help="where latency is measured; draining is by one")
    parser.add_argument("--per-second", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument(
        "--endure", type=int, metavar="EVENTS", help="only this: so many events while an old transaction is open"
    )
    given = parser.parse_args()
    nearline.take_one_thread()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the embedded Postgres may run as another account
        with trained_shop(folder, given.users, _today() - timedelta(days=given.days), _today()) as settings:
            if given.endure:
                figures, peers = endure(settings, folder, given.endure), {}
            else:
                figures, peers = measure(replace(settings, threads=1), folder, given)
        data = sorted((folder / "shop" / "events").iterdir())
        for name, each in {"nearline": figures, **peers}.items():
            print(f"{name:14}" + "".join(f"{key:>24} {value:.4g}" for key, value in each.items()))
        name = "nearline-endurance" if given.endure else "nearline"
        write_result(name, figures, peers, data, " ".join(["python benchmarks/nearline.py", *sys.argv[1:]]))


def measure(settings: Settings, folder: Path, given: argparse.Namespace) -> tuple[dict, dict]:
    steady = given.per_second * given.seconds
    events = todays_events(folder, 2 * steady + 2 * given.events + given.events // 4 + 600)
    taken = iter(events)

    def some(count: int) -> list[dict]:
        return [next(taken) for _ in range(count)]

    drained(settings, some(given.events // 4))  # to warm up
    rates = [(drained(settings, some(given.events // 2)), drained(settings, some(given.events // 2), is_pinned=True))
             for _ in range(2)]  # fmt: skip
    free, pinned = (statistics.mean(each) for each in zip(*rates, strict=True))
    with scorers(settings, given.workers):
        put_all(settings, some(200))  # to warm up
        _wait_until(lambda: _scalar(settings, "SELECT count(*) FROM inbox.event") == 0)
        quiet = latency(settings, some(steady), given.per_second)
        busy = during_refresh(settings, some(steady), given.per_second, _today() - timedelta(days=1))
    figures = {
        "p50_ms": float(np.percentile(quiet, 50)),
        "p99_ms": float(np.percentile(quiet, 99)),
        "events_per_s": free,
        "pinned_loss_ratio": 1 - pinned / free,
        "p99_ms_during_refresh": float(np.percentile(busy, 99)),
    }
    peers = {
        "procrastinate": {"events_per_s": by_procrastinate(settings, some(200))},
        "pgqueuer": {"events_per_s": by_pgqueuer(settings, some(200))},
    }
    return figures, peers


if __name__ == "__main__":
    main()
