"""The demo's steps: a shop's files → Airflow runs every day → trains → everything refreshed → the story.

What is in Postgres already is not done again; so a second run only tells the story.
"""

import fcntl
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from intent_platform import db
from intent_platform.db.embedded import url_of_database
from intent_platform.demo.server import ADMIN, Airflow, AirflowFailed, airflow, wait_until
from intent_platform.demo.story import tell
from intent_platform.errors import IntentError, SettingInvalid
from intent_platform.index.registry import current_promotion
from intent_platform.keys import create_missing_keys
from intent_platform.settings import Settings
from intent_platform.synthetic import write_shop

FIRST_DAY = date(2026, 8, 1)
DAYS, USERS, SEED = 14, 2000, 7
MAX_EPOCHS = 4  # what a laptop has patience for; validation gains little after it on this shop
SECONDS_A_DAY = 120  # for validate and refresh of one day on a busy laptop
SECONDS_TO_TRAIN = 1200
DAGS = ("validate_events", "refresh_profiles", "retrain_classifier", "rebuild_item_index", "promote_release")
LOG_LINES = 20
FAILED = ("failed", "up_for_retry", "upstream_failed")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which days of which shop to run, and what to give validate_events' form."""

    settings: Settings
    days: tuple[date, ...]
    form: Mapping[str, str]


def run_demo(
    settings: Settings,
    *,
    is_once: bool = False,
    source: str | None = None,
    events: Path | None = None,
    day: date | None = None,
    days: int = DAYS,
    users: int = USERS,
    say: Callable[[str], None] = print,
) -> None:
    """Run the shop that never was, or a shop's real file when `source`, `events` and `day` are given.

    IntentError says what failed, with the end of the task's log. Without `is_once` it stays up until Ctrl-C.
    """
    began = time.monotonic()
    tell_time = lambda text: say(f"[{time.monotonic() - began:4.0f} s] {text}")  # noqa: E731
    settings.home.mkdir(parents=True, exist_ok=True)
    settings = replace(settings, max_epochs=min(settings.max_epochs, MAX_EPOCHS))
    with _only_one(settings.home), _ended_by_signals():
        create_missing_keys(settings)
        plan = _plan(settings, source, events, day, days, users)
        tell_time(f"Shop {plan.settings.shop}: {len(plan.days)} days, {plan.days[0]} … {plan.days[-1]}.")
        with _airflow_for(plan) as (server, served):
            tell_time(f"Postgres and Airflow are up: {server.url}, user {ADMIN}, password {server.password}")
            _Loop(server, replace(plan, settings=served), tell_time).run()
            tell_time("Everything is done. The story:")
            say("")
            for line in tell(served, plan.days[-1]):
                say(line)
            say("")
            if is_once:
                say("Airflow: ends with this run; without --once it stays up.")
            else:
                say(f"Airflow: {server.url}   user: {ADMIN}   password: {server.password}")
                _stay(server, say)


def _plan(settings: Settings, source: str | None, events: Path | None, day: date | None, days: int, users: int) -> Plan:
    if source or events or day:
        if not (source and events and day):
            raise SettingInvalid("A real file needs all three: --source NAME --events FILE --day YYYY-MM-DD.")
        if not events.exists():
            raise SettingInvalid(f"{events} is not there; give the file or folder of {day}'s events.")
        drop = settings.home.absolute() / "drop" / "{day}"  # where the schedule looks for the days that follow
        own = replace(settings, shop=Path(source).stem, source=source, events_path=str(drop), catalogue_path="")
        return Plan(settings=own, days=(day,), form={"source": source, "path": str(events.absolute())})
    folder = settings.home.absolute() / "shop"
    wanted = tuple(FIRST_DAY + timedelta(days=each) for each in range(days))
    if not (folder / "shop.json").exists():
        write_shop(folder, first_day=FIRST_DAY, days=days, users=users, seed=SEED)
    own = replace(
        settings, events_path=str(folder / "events" / "{day}.csv"), catalogue_path=str(folder / "catalogue.csv")
    )
    return Plan(settings=own, days=wanted, form={})


@contextmanager
def _airflow_for(plan: Plan) -> Iterator[tuple[Airflow, Settings]]:
    """Both databases on one server, the platform's schema migrated, Airflow's tasks seeing the plan's settings."""
    given = plan.settings
    with db.serve(given) as served:
        db.migrate(served)
        metadata = url_of_database(given, "airflow")
        told = ("shop", "source", "events_path", "catalogue_path", "lake", "database_url", "max_epochs")
        environment = {f"INTENT_{name.upper()}": str(getattr(served, name)) for name in told}
        environment["INTENT_HOME"] = str(served.home.absolute())
        with airflow(served, metadata, environment) as server:
            yield server, served


@dataclass(frozen=True)
class _Loop:
    """What the DAGs do, in the order of the story, each step waited for."""

    server: Airflow
    plan: Plan
    say: Callable[[str], None]

    def run(self) -> None:
        self._set_up()
        self._backfill()
        self._train()

    def _set_up(self) -> None:
        """Nothing of an interrupted run goes on; the pool is there; what follows assets is on."""
        for each in self._get("backfills?dag_id=validate_events&limit=1000")["backfills"]:
            if each["completed_at"] is None:
                self._call("PUT", f"backfills/{each['id']}/cancel")
        for dag_id in DAGS:
            self._end_unfinished(dag_id)
        if "gpu" not in {pool["name"] for pool in self._get("pools")["pools"]}:
            self._call("POST", "pools", {"name": "gpu", "slots": 1, "description": "One training at a time"})
        for dag_id in ("refresh_profiles", "rebuild_item_index", "promote_release", "replay_quarantine"):
            self._pause(dag_id, is_paused=False)

    def _backfill(self) -> None:
        """Every day through validate_events; refresh_profiles follows by the days' partition keys."""
        missing = [day for day in self.plan.days if day not in self._refreshed()]
        if not missing:
            self.say(f"All {len(self.plan.days)} days are in Postgres already.")
            return
        self.say(f"Backfill of validate_events: {missing[0]} … {missing[-1]}; refresh_profiles follows each day.")
        began = datetime.now(UTC)
        self._pause("validate_events", is_paused=False)
        body = {
            "dag_id": "validate_events",
            "from_date": f"{missing[0]}T00:00:00Z",
            "to_date": f"{missing[-1]}T00:00:00Z",
            "max_active_runs": 1,
            "reprocess_behavior": "completed",
            "dag_run_conf": dict(self.plan.form),
        }
        self._call("POST", "backfills", body)
        seen: list[int] = []

        def is_done() -> bool:
            done = len([day for day in self.plan.days if day in self._refreshed()])
            if [done] != seen:
                seen[:] = [done]
                self.say(f"  {done} of {len(self.plan.days)} days are validated and their profiles refreshed")
            return done == len(self.plan.days) and self._is_idle()

        self._wait(is_done, SECONDS_A_DAY * (len(missing) + 1), "the days to be validated and refreshed", began)
        self._pause("validate_events", is_paused=True)  # this shop has no file for yesterday: see _end_unfinished
        self._end_unfinished("validate_events")

    def _train(self) -> None:
        """retrain_classifier once for the newest day; its new release makes refresh_profiles run again."""
        self._pause("retrain_classifier", is_paused=False)
        newest = self.plan.days[-1]
        prefix = f"demo__{self.plan.settings.shop}__{newest}__"
        runs = self._get("dags/retrain_classifier/dagRuns?state=success&limit=1000")["dag_runs"]
        if any(run["dag_run_id"].startswith(prefix) for run in runs):
            return
        self.say("retrain_classifier: examples → train → evaluate → gate → model, index, promotion")
        began = datetime.now(UTC)
        body = {
            "dag_run_id": f"{prefix}{began:%Y%m%dT%H%M%S}",
            "logical_date": None,
            "conf": {"day": newest.isoformat(), "is_forced": True},
        }
        self._call("POST", "dags/retrain_classifier/dagRuns", body)
        self._wait(self._is_idle, SECONDS_TO_TRAIN, "the training and the refresh after it", began, settle=2)
        self._wait(self._is_refreshed_by_champion, 60, "profiles of the release that serves", began)

    def _is_refreshed_by_champion(self) -> bool:
        promotion = current_promotion(self.plan.settings)
        refreshed = self._refreshed()
        return promotion is not None and refreshed.get(self.plan.days[-1]) == promotion.promotion_number

    def _refreshed(self) -> dict[date, int]:
        with db.connect(self.plan.settings) as connection:
            rows = db.query(connection, "progress_of_days", shop=self.plan.settings.shop)
        return {row["day"]: row["promotion_number"] for row in rows if row["promotion_number"] is not None}

    def _is_idle(self) -> bool:
        """No run is queued or running, except one that waits for a file which this shop will never get."""
        unfinished = self._get("dags/~/dagRuns?state=queued&state=running&limit=100")["dag_runs"]
        return all(run["run_type"] == "scheduled" for run in unfinished)

    def _end_unfinished(self, dag_id: str) -> None:
        """Fail and delete what an earlier demo left, or what waits for a file that this shop will never get."""
        for run in self._get(f"dags/{dag_id}/dagRuns?state=queued&state=running&limit=1000")["dag_runs"]:
            path = f"dags/{dag_id}/dagRuns/{quote(run['dag_run_id'], safe='')}"
            self._call("PATCH", path, {"state": "failed"})
            self._call("DELETE", path)

    def _wait(
        self, is_done: Callable[[], bool], seconds: float, what: str, since: datetime, *, settle: int = 0
    ) -> None:
        """Until done, `settle` times in a row; a task that failed since then ends the waiting at once."""
        times = [0]

        def is_settled() -> bool:
            times[0] = times[0] + 1 if is_done() else 0
            return times[0] > settle

        wait_until(is_settled, seconds, what, lambda: self._check_tasks(since), every=1.5)

    def _check_tasks(self, since: datetime) -> None:
        states = "&".join(f"state={state}" for state in FAILED)
        since_text = quote(since.isoformat())
        failed = self._get(f"dags/~/dagRuns/~/taskInstances?{states}&start_date_gte={since_text}&limit=10")
        for task in failed["task_instances"]:
            raise AirflowFailed(
                f"Task {task['task_id']} of {task['dag_id']} is {task['state']} "
                f"(run {task['dag_run_id']}, try {task['try_number']}):\n{self._log_excerpt(task)}"
            )

    def _log_excerpt(self, task: Mapping[str, Any]) -> str:
        """What a task's log says of its error, without frames; or else its last lines."""
        path = f"dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}/taskInstances/{task['task_id']}"
        lines = self._get(f"{path}/logs/{max(task['try_number'], 1)}?full_content=true")["content"]
        causes = [
            f"{each['exc_type']}: {each['exc_value']}" for line in lines for each in line.get("error_detail") or ()
        ]
        return "\n".join(causes or [str(line["event"]) for line in lines[-LOG_LINES:]])

    def _pause(self, dag_id: str, *, is_paused: bool) -> None:
        self._call("PATCH", f"dags/{dag_id}?update_mask=is_paused", {"is_paused": is_paused})

    def _get(self, path: str) -> Any:
        return self.server.call("GET", path)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.server.call(method, path, body)


def _stay(server: Airflow, say: Callable[[str], None]) -> None:
    say("Up until Ctrl-C; meanwhile `intent sql`, `intent profile` and `intent search` work in another terminal.")
    try:
        while True:
            server.check_alive()
            time.sleep(1)
    except KeyboardInterrupt:
        say("Stopping.")


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with open(home / "demo_lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IntentError(
                f"Another demo runs in {home.absolute()}; stop it, or give another INTENT_HOME."
            ) from error
        yield


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that what was started is stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
