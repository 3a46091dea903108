"""The scorer: events from the inbox to profiles within milliseconds, each exactly once. Read `take_batch` first.

Locks come in one order — waiting events, seen ids, devices, states, profiles; by key within each — so any number of
scorers work side by side without deadlock. A crash anywhere rolls the whole batch back, and its events wait again.
"""

import gc
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import duckdb
import psycopg2
import pyarrow as pa
import sqlalchemy as sa
from prometheus_client import start_http_server
from threadpoolctl import threadpool_limits

from intent_platform import db
from intent_platform.errors import DatabaseUnavailable, IntentError, ReleaseMoved, ScorerFailed, SettingInvalid
from intent_platform.inbox import queue
from intent_platform.inbox.door import NOT_SCORABLE, NOTHING, InboxDoor, Judged
from intent_platform.inbox.merging import Devices, link_again, lock_devices, merge, owners_of
from intent_platform.inbox.queue import EVERYTHING, Look
from intent_platform.inbox.states import OWNED_SCHEMA, STATE_SCHEMA, lock_states
from intent_platform.index.registry import utc_now
from intent_platform.index.release import Release
from intent_platform.log import get_logger
from intent_platform.profiles import Stamp
from intent_platform.rescoring import move
from intent_platform.serving import BatchReport, Follower, Serving, Tally
from intent_platform.settings import Settings

log = get_logger(__name__)

EVENTS_PER_BATCH = 1_000
"""At most: one event is scored at once, a backlog in hundreds."""

POLL_S = 0.25
"""How long to wait for a ring before looking anyway."""

LATE_COMMIT_S = 1.0
"""An event may become visible this much later than one that came after it, and still be found at once."""

SWEEP_S = 5.0
"""How often to look for others: what a crashed scorer had claimed, a long transaction put, or nobody's part holds."""

LONGEST_BACK_OFF_S = 5.0

LONGEST_BATCH_S = 60.0
"""After which a scorer that was told to stop, as another failed, is stopped: its batch is rolled back."""

MOST_SET_ASIDE = 100
"""Events one after the other that cannot be scored, by whatever scorers; then it is hardly they that are wrong, and the
rest may wait."""

_PROCESS = secrets.token_hex(3)
"""Part of the worker's name: in containers every scorer may have the process id 1, and hosts one name."""

NOT_THE_EVENTS_FAULT = (
    IntentError,
    sa.exc.OperationalError,
    psycopg2.OperationalError,
    MemoryError,
    duckdb.OutOfMemoryException,
    duckdb.FatalException,
)


def take_batch(
    connection: sa.Connection,
    serving: Serving,
    door: InboxDoor,
    settings: Settings,
    *,
    look: Look = EVERYTHING,
    most: int,
    now: datetime,
) -> BatchReport:
    """Everything about one batch, in the caller's transaction: commit keeps all of it or nothing."""
    claimed = queue.claim(connection, settings.shop, look, most=most)
    return _settle(connection, serving, door, settings, claimed, now) if claimed else BatchReport()


def take_suspect(
    connection: sa.Connection, serving: Serving, door: InboxDoor, settings: Settings, *, look: Look, now: datetime
) -> BatchReport:
    """One event; if that fails by itself it is set aside instead: only what came after its claim is taken back."""
    claimed = queue.claim(connection, settings.shop, look, most=1)
    if not claimed:
        return BatchReport()
    try:
        with connection.begin_nested():
            return _settle(connection, serving, door, settings, claimed, now)
    except NOT_THE_EVENTS_FAULT:
        raise
    except Exception as error:
        if db.is_lost(connection):
            raise
        if queue.is_none_scorable(connection, settings.shop, door.received_on, among=MOST_SET_ASIDE):
            raise ScorerFailed(
                f"The newest {MOST_SET_ASIDE} events could not be scored, and nor can the next, so it is hardly they "
                "that are wrong: the log says how they fail. The others wait. Mend it (`intent rollback`, if a new "
                "release does this), start the scorer, and bring back what was set aside: `intent replay DAY --source "
                "inbox`."
            ) from error
        log.exception("event_set_aside", seq=claimed[0]["seq"])
        rejected = door.reject(claimed, NOT_SCORABLE)
        queue.keep_rejected(connection, rejected, settings)
        return _report(claimed, Judged(accepted=NOTHING, rejected=rejected), NOTHING)


def _settle(
    connection: sa.Connection,
    serving: Serving,
    door: InboxDoor,
    settings: Settings,
    claimed: Sequence[sa.RowMapping],
    now: datetime,
) -> BatchReport:
    judged = door.judge(claimed)
    fresh = queue.keep_first_arrivals(connection, settings.shop, judged.accepted)
    if fresh.num_rows:
        stamp = serving.stamp(now, settings)
        move_profiles(connection, serving.release, fresh, stamp, settings, is_behind=serving.is_behind)
    queue.keep_rejected(connection, judged.rejected, settings)
    return _report(claimed, judged, fresh)


def move_profiles(
    connection: sa.Connection,
    release: Release,
    fresh: pa.Table,
    stamp: Stamp,
    settings: Settings,
    *,
    is_behind: bool = False,
) -> None:
    """Score the shoppers of accepted events anew, from all that is remembered of them. is_behind: as in `write`."""
    devices = lock_devices(connection, stamp.shop, fresh, settings)
    concerned = {*owners_of(fresh, devices), *devices.affected_owners()}
    states = lock_states(connection, stamp.shop, concerned)
    link_again(connection, stamp.shop, devices, states.events)
    events = merge(states.events, _owned(fresh, devices), devices)
    move(connection, release, events, states.valid_at, concerned, stamp, settings, is_behind=is_behind)


def _owned(fresh: pa.Table, devices: Devices) -> pa.Table:
    """Accepted events under their owners, as states keep them."""
    own = fresh.select(["user_id" if name == "own_user_id" else name for name in STATE_SCHEMA.names])
    owners = pa.array(owners_of(fresh, devices), pa.string())
    return own.rename_columns(STATE_SCHEMA.names).add_column(0, OWNED_SCHEMA.field("user_id"), owners)


def _report(claimed: Sequence[sa.RowMapping], judged: Judged, fresh: pa.Table) -> BatchReport:
    return BatchReport(
        claimed=len(claimed),
        accepted=fresh.num_rows,
        rejected=len(judged.rejected),
        duplicate=judged.accepted.num_rows - fresh.num_rows,
        newest_seq=claimed[-1]["seq"],
        oldest_put_at=min(row["put_at"] for row in claimed),
    )


@dataclass(kw_only=True)
class Scorer:
    """One worker: takes batch after batch until it is told to stop, and outlives restarts of Postgres."""

    settings: Settings
    clock: Callable[[], datetime] = utc_now
    stop: threading.Event = field(default_factory=threading.Event)
    tally: Tally = field(default_factory=Tally)
    _claims: deque[tuple[float, int]] = field(default_factory=lambda: deque([(0.0, 0)]))  # (monotonic s, newest seq)
    _swept_at: float = float("-inf")  # monotonic s
    _share: tuple[int, int] = (0, 1)
    _door: InboxDoor | None = None
    _connection: sa.Connection | None = None
    _most: int = EVENTS_PER_BATCH  # fewer since a batch failed, so that what is wrong is soon alone

    def run(self, *, drain: bool = False) -> Tally:
        """Score until `stop` is set; with drain, until nothing waits."""
        back_off_s = 0.1
        with (
            closing(self),
            Follower(self.settings, worker_name(), self.tally, self.clock) as follower,
            closing(queue.Bell(self.settings, follower.outage)) as bell,
            _spared_collector(),
        ):
            while not self.stop.is_set():
                look = self._look(*follower.share)
                try:
                    claimed = self.take(follower.serving, look)
                except (DatabaseUnavailable, ReleaseMoved) as error:  # by the next try the follower may have news
                    follower.outage.tell("batch_postponed", error)
                    self.stop.wait(back_off_s)
                    back_off_s = min(back_off_s * 2, LONGEST_BACK_OFF_S)
                    continue
                back_off_s = 0.1
                if claimed:
                    continue
                if not drain:
                    bell.wait(POLL_S)
                elif look == EVERYTHING:
                    break
                else:
                    self._swept_at = float("-inf")
        return self.tally

    def close(self) -> None:
        """Give back what it holds; taking another batch opens it again."""
        self._close_door()
        self._disconnect()

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()
        self._door = None

    def _disconnect(self, *, is_sound: bool = True) -> None:
        if self._connection is not None:
            if not is_sound:
                self._connection.invalidate()
            self._connection.close()
        self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """On the connection that it keeps; after an error, the next one is on a new connection."""
        try:
            self._connection = self._connection or db.keep_connection(self.settings)
            with db.transaction(self._connection, self.settings):
                yield self._connection
        except BaseException:
            self._disconnect(is_sound=False)
            raise

    def take(self, serving: Serving, look: Look = EVERYTHING) -> int:
        """One batch of events in one transaction; returns how many were claimed."""
        began = time.monotonic()
        try:
            with self._transaction() as connection:
                door, given = self._door_of(now := self.clock()), (connection, serving)
                if self._most == 1:
                    report = take_suspect(*given, door, self.settings, look=look, now=now)
                else:
                    report = take_batch(*given, door, self.settings, look=look, most=self._most, now=now)
        except IntentError:  # it may have been too large for a limit on waiting
            self._most = max(self._most // 2, 1)
            raise
        except Exception:  # something in one of the events that no rule foresaw
            self._close_door()  # in case that it is what fails
            if self._most == 1:
                raise
            self._most = max(self._most // 10, 1)
            log.exception("batch_failed", next_takes=self._most)
            return 1
        if look == EVERYTHING:
            self._swept_at = began
            if report.claimed == self._most and report.newest_seq < self._claims[-1][1]:  # and there may be more behind
                self._claims = deque([(0.0, report.newest_seq)])
        if report.claimed:
            self._claims.append((began, report.newest_seq))
            self.tally.add(report, seconds=time.monotonic() - began, now=self.clock())
        if self._most == 1 and report.rejected:
            self._close_door()  # in case that it is what fails
        self._most = min(2 * self._most, EVENTS_PER_BATCH)
        return report.claimed

    def _look(self, part: int = 0, parts: int = 1) -> Look:
        """At this part's shoppers, after the seq up to which nothing of them can be waiting any more; or, when it is
        time, at everything."""
        if self._share != (part, parts):  # what these shoppers' scorer left may be older than anything claimed here
            self._share, self._claims = (part, parts), deque([(0.0, 0)])
        now = time.monotonic()
        while len(self._claims) > 1 and self._claims[1][0] < now - LATE_COMMIT_S:
            self._claims.popleft()
        is_due = now - self._swept_at > SWEEP_S
        return EVERYTHING if is_due else Look(after=self._claims[0][1], part=part, parts=parts)

    def _door_of(self, now: datetime) -> InboxDoor:
        """The door of the received day that it is by now, in the shop's time zone."""
        today = now.astimezone(self.settings.zone).date()
        if self._door is None or self._door.received_on != today:
            self._close_door()
            self._door = InboxDoor(today, self.settings)
        return self._door


@contextmanager
def _spared_collector() -> Iterator[None]:
    """Python's collector of cycles leaves out what is loaded by now: to walk through it takes some 0.2 s, and comes in
    the middle of a batch. Not beyond it: what is still frozen at the end of the process is told as leaked."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def worker_name() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{_PROCESS}"


def run(
    settings: Settings,
    *,
    workers: int = 1,
    drain: bool = False,
    metrics_port: int = 0,
    metrics_address: str = "127.0.0.1",
) -> Tally | None:
    """Score until SIGTERM or SIGINT, or with drain until nothing waits; with several workers as child processes.

    The tally is of this process; None where children did the work.
    """
    if workers > 1:
        options = ["--metrics-address", metrics_address, *(["--drain"] if drain else [])]
        ports = [metrics_port + number if metrics_port else 0 for number in range(workers)]
        _run_children(settings, [[*options, "--metrics-port", str(port)] for port in ports])
        return None
    take_one_thread()
    scorer = Scorer(settings=replace(settings, threads=1))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scorer.stop.set())
    if metrics_port:
        try:
            start_http_server(metrics_port, addr=metrics_address)
        except OSError as error:
            raise SettingInvalid(f"No metrics can be served on {metrics_address}:{metrics_port}: {error}.") from error
    return scorer.run(drain=drain)


def take_one_thread() -> None:
    """For small batches threads cost more than they give; more workers keep more cores busy."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of torch, FAISS and LightGBM, which are loaded later
    threadpool_limits(1)  # of numpy's and SciPy's OpenBLAS, which are there already


def _run_children(settings: Settings, options: Sequence[Sequence[str]]) -> None:
    """A process for each list of options; all of them end when one ends with an error."""
    environment = {**os.environ, **settings.as_environment(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "intent_platform.cli", "nearline"]
    children = [subprocess.Popen([*command, *each], env=environment) for each in options]

    is_told_to_stop = threading.Event()

    def stop_all(*_: object) -> None:
        is_told_to_stop.set()
        for each in children:
            each.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_all)
    failed, is_any_running = 0, True
    while is_any_running and not failed:
        time.sleep(0.1)
        statuses = [each.poll() for each in children]
        is_any_running = None in statuses
        if not is_told_to_stop.is_set():  # else one may have been told before it could listen
            failed = sum(map(bool, statuses))
    if failed:  # nobody would see that one is missing; who started all of them starts them again
        stop_all()
        for each in children:
            try:
                each.wait(LONGEST_BATCH_S)
            except subprocess.TimeoutExpired:
                each.kill()
        raise ScorerFailed(
            f"{failed} of {len(children)} scorers ended with an error, which is above, or were killed; all are stopped."
        )
