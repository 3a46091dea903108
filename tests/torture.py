"""make torture: workers killed and stopped, Postgres stopped and its disk full, clocks wrong; nothing may be lost.

Replayable: a seed chooses the events, their repeats and order, who is killed or stopped where, and when which fault
comes. At the end every event must be accepted or rejected once, every profile must count exactly its shopper's events,
and no profile may disagree with its own interests and recommendations. Writes var/bench/torture.json.

The scorer's limits on waiting (sql/queries/limit_waits.sql) are shortened here, so that a worker that is stopped for
seconds is stopped for longer than they allow.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg2
import sqlalchemy as sa
import torch

from intent_platform import db, nearline, rescoring, serving
from intent_platform.db import embedded
from intent_platform.db.connection import _engine
from intent_platform.errors import DatabaseUnavailable
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.events.quarantine import Place, Unsealer
from intent_platform.inbox import queue
from intent_platform.inbox.door import NAME
from intent_platform.nearline import Scorer
from intent_platform.settings import Settings

NOW = datetime(2026, 8, 21, 23, 30, tzinfo=UTC)
SHOPPERS = 40
KINDS = ("view", "view", "add_to_cart", "purchase")
POINTS = (
    (queue, "claim"), (queue, "keep_first_arrivals"), (nearline, "lock_devices"), (nearline, "lock_states"),
    (rescoring, "rescored"), (rescoring, "write"), (queue, "keep_rejected"), (queue, "rotate"),
)  # fmt: skip
"""Steps of a batch, and of what goes on beside it; after each of them a worker can be made to die or to stop."""

LONGEST_IDLE_S = 2.0
LONGEST_LOCK_WAIT_S = 1.0
STOPPED_S = LONGEST_IDLE_S + 1.5
FULL_S = 3.0
LONG_TRANSACTION_S = 8.0
LARGEST_CLOCK_STEP = timedelta(hours=20)  # back: still the same day; forward: the next one, late but not too late
DISK_MIB = 256
MOST_WAITING = 1_000  # events; more are put only once these are taken, so that workers die among all of a batch's sizes
POISON = "poison"

ON_SMALL_DISK = """
SELECT 'TABLE ' || oid::regclass FROM pg_class WHERE relnamespace = 'inbox'::regnamespace AND relkind = 'r'
UNION ALL
SELECT 'INDEX ' || oid::regclass FROM pg_class WHERE relnamespace = 'inbox'::regnamespace AND relkind = 'i'
"""


class SmallDisk:
    """A disk of its own for the tables of the inbox, which can be filled."""

    def __init__(self, folder: Path, server: embedded._Server) -> None:
        self._filler, self._log = folder / "filler", server.data / "server.log"
        server._make_own_folder(folder / "tables")
        with closing(psycopg2.connect(server._superuser_dsn(), dbname="intent")) as connection:
            connection.autocommit = True  # CREATE TABLESPACE runs in no transaction
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE TABLESPACE small LOCATION '{folder / 'tables'}'")
                cursor.execute(ON_SMALL_DISK)
                for (each,) in cursor.fetchall():
                    cursor.execute(f"ALTER {each} SET TABLESPACE small")

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as filler:
            for size in (1 << 20, 1 << 12):  # to the last page
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        self._filler.unlink()

    @property
    def refusals(self) -> int:
        """How often Postgres met a full disk."""
        return self._log.read_text(errors="replace").count("No space left on device")


@contextmanager
def mounted_tmpfs(folder: Path) -> Iterator[Path | None]:
    """The folder as a small file system; None, with a message, where nothing can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"No full disk in this run: a tmpfs cannot be mounted here ({done.stderr.strip()}).")
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(kw_only=True)
class Torture:
    """One run: what was put, and what was done to the workers."""

    settings: Settings
    chance: random.Random
    disk: SmallDisk | None = None
    workers: dict[int, int] = field(default_factory=dict)  # process id → number
    asleep: set[int] = field(default_factory=set)  # those of them that are stopped
    sent: dict[str, tuple[str, bool]] = field(default_factory=dict)  # event id → (raw user id, is good)
    kills: int = 0
    failed: int = 0  # workers that ended by themselves, though Postgres was there
    held: int = 0  # transactions of stopped workers that were still open after LONGEST_IDLE_S
    done: Counter = field(default_factory=Counter)  # by fault
    endings: list[tuple[float, Callable[[], None]]] = field(default_factory=list)  # (monotonic s, what ends a fault)
    is_next_to_stop: bool = False
    poison_left: int = 0

    def put_some(self) -> None:
        """A handful of events: out of order, some twice, some that break a rule; none while many wait."""
        if self._waiting() > MOST_WAITING:
            return
        events = []
        for _ in range(self.chance.randint(1, 30)):
            number = len(self.sent)
            shopper, is_good = f"shopper-{self.chance.randrange(SHOPPERS)}", self.chance.random() > 0.03
            is_poison = is_good and self.poison_left > 0
            self.poison_left -= is_poison
            event_id = f"{POISON if is_poison else 'e'}{number}"
            moment = NOW - timedelta(minutes=self.chance.randrange(24 * 60))
            events.append(
                {
                    "event_id": event_id,
                    "event_type": self.chance.choice(KINDS) if is_good else "hover",
                    "occurred_at": moment.isoformat(),
                    "user_id": shopper,
                    "item_id": f"i{self.chance.randrange(13):02}",
                }
            )
            self.sent[event_id] = (shopper, is_good and not is_poison)
        repeats = [each for each in events if self.chance.random() < 0.1]
        statement = sa.text("SELECT inbox.put(CAST(:events AS jsonb))")
        self._until_it_works(statement, json.dumps(events + repeats))

    def _waiting(self) -> int:
        with db.connect(self.settings) as connection:
            return connection.execute(sa.text("SELECT count(*) FROM inbox.event")).scalar_one()

    def _until_it_works(self, statement: sa.TextClause, events: str) -> None:
        while True:  # what a backend does: put again, under the same ids
            try:
                with db.connect(self.settings) as connection:
                    connection.execute(statement, {"events": events})
                return
            except DatabaseUnavailable:
                time.sleep(0.1)
                self.end_what_is_over()

    def start_worker(self, number: int) -> None:
        """A forked scorer, which dies or stops by itself after a random step of a random batch."""
        module, name = self.chance.choice(POINTS)
        steps = 0 if self.is_next_to_stop else self.chance.randint(1, 12)  # to stop before it is killed
        fate = signal.SIGSTOP if self.is_next_to_stop else signal.SIGKILL
        is_deaf, has_wrong_clock = self.chance.random() < 0.25, self.chance.random() < 0.25
        clock = SteppingClock(self.chance.random()) if has_wrong_clock else _right_clock
        self.done += Counter(deaf=is_deaf, clock_steps=has_wrong_clock)
        self.is_next_to_stop = False
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _engine.cache_clear()  # connections are the parent's
                _signal_after(fate, module, name, steps)
                if is_deaf:
                    queue.Bell._listening = _deaf
                Scorer(settings=self.settings, clock=clock).run()
            except DatabaseUnavailable:  # Postgres was stopped while it started
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)  # never back through the parent's frames, which would stop the server
        self.workers[pid] = number

    def kill_one(self) -> None:
        os.kill(self.chance.choice(list(self.workers)), signal.SIGKILL)
        self.bury()

    def bury(self) -> None:
        """Replace workers that died; wake those that stopped, after a while."""
        time.sleep(0.01)
        for pid in list(self.workers):
            ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if ended:
                self._note(pid, status)

    def _note(self, pid: int, status: int) -> None:
        if os.WIFSTOPPED(status):
            self.done["stopped"] += 1
            self.asleep.add(pid)
            self.end_after(STOPPED_S, lambda: self._wake(pid))
            return
        self.asleep.discard(pid)
        is_failed = os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0
        self.failed += is_failed
        self.kills += not is_failed
        self.start_worker(self.workers.pop(pid))

    def stop_one(self) -> None:
        """One from outside wherever it is, and the next one that starts by itself, after a step of its own."""
        before = self.done["stopped"]
        while self.done["stopped"] == before and (awake := [pid for pid in self.workers if pid not in self.asleep]):
            pid = self.chance.choice(awake)
            os.kill(pid, signal.SIGSTOP)
            self._note(pid, os.waitpid(pid, os.WUNTRACED)[1])  # it may have died at that moment: then another one
        self.is_next_to_stop = True

    def _wake(self, pid: int) -> None:
        if pid not in self.workers:
            return
        self.asleep.discard(pid)
        with db.connect(self.settings) as connection:
            self.held += connection.execute(sa.text(HELD), {"seconds": LONGEST_IDLE_S + 1}).scalar_one()
        os.kill(pid, signal.SIGCONT)

    def fill_disk(self) -> None:
        if self.disk is not None:
            self.disk.fill()
            self.end_after(FULL_S, self.disk.free)
            self.done["full_disk"] += 1

    def open_long_transaction(self) -> None:
        """Somebody's old snapshot, with a lock on the inbox, as a long report holds it."""
        connection = _engine(self.settings.database_url).connect().execution_options(isolation_level="REPEATABLE READ")
        connection.execute(sa.text("SET LOCAL application_name = 'long transaction'"))
        connection.execute(sa.text("SELECT count(*) FROM inbox.event, profiles.user_profile"))
        self.end_after(LONG_TRANSACTION_S, lambda: _close(connection))
        self.done["long_transactions"] += 1

    def poison(self) -> None:
        self.poison_left += 1
        self.done["poisoned"] += 1

    def end_after(self, seconds: float, ending: Callable[[], None]) -> None:
        self.endings.append((time.monotonic() + seconds, ending))

    def end_what_is_over(self, *, now: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        over = [ending for moment, ending in self.endings if moment <= now]
        self.endings = [(moment, ending) for moment, ending in self.endings if moment > now]
        for ending in over:
            ending()

    def end(self) -> None:
        self.end_what_is_over(now=float("inf"))
        for pid in self.workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.kills += len(self.workers)
        self.workers.clear()
        Scorer(settings=self.settings, clock=_right_clock).run(drain=True)

    def verdict(self) -> dict[str, int]:
        """Events lost, events doubled, profiles torn, workers failed, transactions held: all must be 0."""
        with db.connect(self.settings) as connection:
            accepted = Counter(connection.execute(sa.text("SELECT event_id FROM inbox.accepted")).scalars())
            sealed = connection.execute(sa.text("SELECT received_on, seq, sealed_row, broken_rule FROM inbox.rejected"))
            rejected = {self._rejected(*row) for row in sealed}
            counts = connection.execute(sa.text("SELECT user_id, events_30d FROM profiles.user_profile"))
            counted = dict(map(tuple, counts))
            torn = connection.execute(sa.text(TORN)).scalar_one()
        good = {event_id: shopper for event_id, (shopper, is_good) in self.sent.items() if is_good}
        bad = {
            (event_id, "not_scorable" if event_id.startswith(POISON) else "event_type_unknown")
            for event_id in self.sent.keys() - good.keys()
        }
        names = Pseudonymiser.of(self.settings)
        expected = Counter(names.of_user(shopper) for shopper in good.values())
        differences = [counted.get(user, 0) - count for user, count in expected.items()]
        missing, surplus = -sum(min(each, 0) for each in differences), sum(max(each, 0) for each in differences)
        return {
            "events": len(self.sent),
            "kills": self.kills,
            "lost": len(good.keys() - accepted.keys()) + missing + len(bad - rejected),
            "doubled": accepted.total() - len(accepted) + surplus + len(rejected - bad),
            "torn": torn,
            "held": self.held,
            "failed": self.failed,
            **{fault: self.done[fault] for fault in FAULTS},
            "full_disk_refusals": self.disk.refusals if self.disk else 0,
        }

    def _rejected(self, received_on: date, seq: int, sealed: bytes, broken_rule: str) -> tuple[str, str]:
        place = Place(shop=self.settings.shop, received_on=received_on, file=NAME, line=seq)
        return json.loads(Unsealer(self.settings).unseal(bytes(sealed), place))["event_id"], broken_rule


FAULTS = ("stopped", "deaf", "clock_steps", "full_disk", "long_transactions", "poisoned")

TORN = """
SELECT count(*)
FROM profiles.user_profile AS profile
LEFT JOIN LATERAL (
    SELECT jsonb_agg(item_id ORDER BY rank) AS items FROM profiles.user_recommendation AS recommended
    WHERE recommended.shop = profile.shop AND recommended.user_id = profile.user_id
) AS shown ON TRUE
LEFT JOIN LATERAL (
    SELECT jsonb_agg(category ORDER BY rank) AS categories FROM profiles.user_interest AS interest
    WHERE interest.shop = profile.shop AND interest.user_id = profile.user_id AND interest.rank <= 5
) AS held ON TRUE
WHERE jsonb_path_query_array(profile.recommended_items, '$[*].item_id') <> coalesce(shown.items, '[]')
    OR jsonb_path_query_array(profile.top_categories, '$[*].category') <> coalesce(held.categories, '[]')
"""

HELD = """
SELECT count(*) FROM pg_stat_activity
WHERE
    datname = current_database() AND xact_start IS NOT NULL AND wait_event_type = 'Client'
    AND application_name <> 'long transaction' AND state_change < clock_timestamp() - make_interval(secs => :seconds)
"""
"""Transactions that wait for their client for longer, but for the long ones that are meant to be there."""


class SteppingClock:
    """Right at first, then wrong by hours, forward and back, by another step every few looks."""

    def __init__(self, seed: float) -> None:
        self._chance = random.Random(seed)
        self._step = timedelta()

    def __call__(self) -> datetime:
        if self._chance.random() < 0.05:
            self._step = self._chance.uniform(-1, 1) * LARGEST_CLOCK_STEP
        return NOW + self._step


def _right_clock() -> datetime:
    return NOW


def _deaf(bell: queue.Bell) -> psycopg2.extensions.connection:
    """A connection that hears no ring."""
    return psycopg2.connect(bell._url)


def _close(connection: sa.Connection) -> None:
    try:
        connection.close()
    except sa.exc.DBAPIError:  # the server was stopped meanwhile
        connection.invalidate()


def _signal_after(number: signal.Signals, module: object, name: str, times: int) -> None:
    step: Callable = getattr(module, name)
    left = iter(range(times, -1, -1))

    def step_and_signal(*given, **named):
        result = step(*given, **named)
        if next(left, -1) == 0:
            os.kill(os.getpid(), number)
        return result

    setattr(module, name, step_and_signal)


def _shorten() -> None:
    """Limits on waiting of a second or two, and rounds of a second, for everyone who is forked from here on."""
    query = db.query
    limits = sa.text(
        f"SELECT set_config('idle_in_transaction_session_timeout', '{LONGEST_IDLE_S}s', TRUE), "
        f"set_config('lock_timeout', '{LONGEST_LOCK_WAIT_S}s', TRUE)"
    )

    def query_with_short_limits(connection: sa.Connection, *names: str, **parameters: object):
        rows = query(connection, *names, **parameters)
        if "limit_waits" in names:
            connection.execute(limits)
        return rows

    db.query = query_with_short_limits
    serving.TIDY_S, serving.STUCK_AFTER_S = 1.0, LONGEST_IDLE_S


def _poison() -> None:
    """Some events break no rule and cannot be scored."""
    move = nearline.move_profiles

    def move_unless_poisoned(connection, release, fresh, *more, **named):
        if any(event_id.startswith(POISON) for event_id in fresh["event_id"].to_pylist()):
            raise ZeroDivisionError
        move(connection, release, fresh, *more, **named)

    nearline.move_profiles = move_unless_poisoned


def torture(
    settings: Settings, *, kills: int, seed: int, workers: int = 2, stop_postgres: Callable[[], None] | None = None,
    stops: int = 0, faults: int = 0, disk: SmallDisk | None = None, seconds: float = 3600,
) -> dict[str, int]:  # fmt: skip
    """Until so many kills and stops have happened, or the time is over; then drain and judge."""
    torch.set_num_threads(1)
    _shorten()
    _poison()
    run = Torture(settings=settings, chance=random.Random(seed), disk=disk)
    stopped, until = 0, time.monotonic() + seconds
    kinds = (run.stop_one, run.fill_disk, run.open_long_transaction, run.poison)
    turns = faults * len(kinds)
    due = [(kills * (turn + 0.5) / turns, kinds[turn % len(kinds)]) for turn in range(turns)]
    for number in range(workers):
        run.start_worker(number)
    while (run.kills < kills or stopped < stops or due or run.endings) and time.monotonic() < until:
        run.put_some()
        time.sleep(run.chance.random() * 0.05)
        if run.chance.random() < 0.2:
            run.kill_one()
        if stop_postgres is not None and stopped < stops and run.kills >= (stopped + 1) * kills / (stops + 1):
            run.end_what_is_over(now=float("inf"))  # a server does not come up again on a full disk
            stop_postgres()
            stopped += 1
        if due and run.kills >= due[0][0]:
            due.pop(0)[1]()
        run.bury()
        run.end_what_is_over()
    run.end()
    return {**run.verdict(), "postgres_stops": stopped}


def main() -> None:
    from model_shop import publish

    from intent_platform.bench.result import write_result
    from intent_platform.index.registry import ensure_release
    from intent_platform.keys import create_missing_keys

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--faults", type=int, default=20, help="of each other kind")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # the embedded Postgres may run as another account
        settings = Settings(home=folder / "home", postgres_home=str(folder / "postgres"), threads=1)
        create_missing_keys(settings)
        server = embedded._Server.at(Path(settings.postgres_home))
        mounted = stack.enter_context(mounted_tmpfs(folder / "disk"))
        served = stack.enter_context(db.serve(settings))
        db.migrate(served)
        publish(served)
        ensure_release(served, NOW.date())

        def stop_postgres() -> None:
            server._run("pg_ctl", "-D", str(server.data), "-m", "immediate", "-w", "stop")
            server.ensure_running(())

        figures = torture(
            served,
            kills=given.kills,
            seed=given.seed,
            stop_postgres=stop_postgres,
            stops=given.stops,
            faults=given.faults,
            disk=SmallDisk(mounted, server) if mounted else None,
            seconds=60 * given.minutes,
        )
    print(figures)
    write_result("torture", figures, {}, [], " ".join(["python tests/torture.py", *sys.argv[1:]]))
    sys.exit(any(figures[name] for name in ("lost", "doubled", "torn", "held", "failed")))


if __name__ == "__main__":
    main()
