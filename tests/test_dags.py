"""House rules that every DAG keeps, how the assets link them, and which day a run is about."""

import json
import os
import subprocess
import sys
from collections import deque
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout
from airflow.timetables.trigger import CronPartitionTimetable

from intent_platform import db, errors
from intent_platform.paths import resource_folder

DAGS, PLUGINS = resource_folder("dags"), resource_folder("plugins")
FILES = sorted(path.stem for path in DAGS.glob("*.py"))
SLOW_OR_UNSAFE = {"torch", "faiss", "transformers", "great_expectations", "ibis", "duckdb", "sklearn", "lightgbm"}
MOST_TASK_RUNS_A_DAY = 8
SECONDS_TO_PARSE = 5


@pytest.fixture(scope="module")
def dags():
    bag = DagBag(str(DAGS))
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture(params=FILES)
def dag(request, dags):
    return dags[request.param]


@pytest.fixture(scope="module")
def intent_days(dags):  # noqa: ARG001 - parsing puts the plugins on the path
    import intent_days

    return intent_days


def test_parsing_is_fast_and_imports_nothing_that_a_fork_cannot_bear():
    script = (
        "import json, sys, time; from airflow.dag_processing.dagbag import DagBag; began = time.monotonic();"
        f"bag = DagBag({str(DAGS)!r});"
        "print(json.dumps([time.monotonic() - began, bag.import_errors, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=True)
    seconds, errors, modules = json.loads(done.stdout.splitlines()[-1])
    assert errors == {}
    assert seconds < SECONDS_TO_PARSE
    assert SLOW_OR_UNSAFE.isdisjoint(modules)
    assert {name for name in modules if name.startswith("intent_platform.")} <= {
        "intent_platform.settings",
        "intent_platform.domain",
        "intent_platform.errors",
    }


def test_no_file_imports_the_package_at_its_top():
    for path in [*DAGS.glob("*.py"), *PLUGINS.glob("*.py")]:
        tops = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not [line for line in tops if "intent_platform" in line], path


def test_each_file_holds_the_dag_of_its_name(dags):
    assert sorted(dags) == FILES


def test_a_dag_explains_itself(dag):
    assert "**When**" in dag.doc_md
    assert dag.description
    assert "intent" in dag.tags
    assert all(task.owner == "intent-platform" for task in dag.tasks)


def test_a_dag_runs_once_at_a_time_and_catches_up_nothing(dag):
    assert dag.max_active_runs == 1
    assert dag.catchup is False


def test_a_task_is_tried_again_after_a_pause_and_ends_some_time(dag):
    for task in dag.tasks:
        assert task.retries >= 1
        assert task.retry_delay >= timedelta(minutes=1)
        assert task.execution_timeout


def test_what_another_try_would_meet_again_is_not_tried_again(dag):
    for task in dag.tasks:
        assert type(task.retry_policy).__name__ == "RetryWhatMayPass", task.task_id


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (errors.DatabaseUnavailable("away"), RetryAction.DEFAULT),
        (OSError("not ours"), RetryAction.DEFAULT),
        (errors.MappingInvalid("no such column"), RetryAction.FAIL),
    ],
    ids=lambda each: type(each).__name__,
)
def test_only_what_may_pass_by_itself_is_tried_again(dags, error, action):  # noqa: ARG001 - parsing puts plugins on the path
    from intent_retries import RETRY_WHAT_MAY_PASS

    assert RETRY_WHAT_MAY_PASS.evaluate(error, try_number=1, max_tries=2).action == action


def test_every_field_of_a_form_says_what_it_is(dag):
    for name in dag.params:
        field = dag.params.get_param(name)
        assert field.description, name
        assert {"title", "type"} <= set(field.schema), name


def test_with_approval_a_person_stands_between_the_gate_and_the_promotion(monkeypatch):
    monkeypatch.setenv("INTENT_REQUIRE_APPROVAL", "1")
    bag = DagBag(str(DAGS / "retrain_classifier.py"))
    assert bag.import_errors == {}
    dag = bag.dags["retrain_classifier"]
    assert {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks} == {
        "retrain": [],
        "describe": ["retrain"],
        "approve": ["describe"],
        "settle": ["approve", "retrain"],
    }
    assert [task.task_id for task in dag.tasks if task.outlets] == ["settle"]


def test_training_waits_for_the_pool_of_the_gpu(dags):
    assert [task.pool for task in dags["retrain_classifier"].tasks] == ["gpu"]


def test_the_assets_link_the_dags(dags):
    listens = {name: sorted(each.name for each in _heard(dag)) for name, dag in dags.items()}
    gives = {name: sorted(each.name for task in dag.tasks for each in task.outlets) for name, dag in dags.items()}
    assert listens == {
        "validate_events": [],
        "refresh_profiles": ["clean_events", "intent_model", "item_index"],
        "retrain_classifier": ["clean_events"],
        "rebuild_item_index": ["catalogue"],
        "promote_release": [],
        "replay_quarantine": [],
        "watch_nearline": [],
    }
    assert gives == {
        "validate_events": ["catalogue", "clean_events"],
        "refresh_profiles": ["user_profiles"],
        "retrain_classifier": ["intent_model"],
        "rebuild_item_index": ["item_index"],
        "promote_release": ["intent_model"],
        "replay_quarantine": ["clean_events"],
        "watch_nearline": [],
    }


def test_a_dag_that_hears_assets_keeps_their_days_apart(dags):
    for name in ("refresh_profiles", "retrain_classifier", "rebuild_item_index"):
        assert type(dags[name].timetable).__name__ == "PartitionedAssetTimetable"


def test_a_day_takes_at_most_eight_task_runs_even_with_a_new_catalogue_and_a_new_model(dags):
    todo, task_runs = deque([dags["validate_events"]]), 0
    while todo:
        dag = todo.popleft()
        task_runs += len(dag.tasks)
        given = {each.name for task in dag.tasks for each in task.outlets}
        for other in dags.values():
            todo.extend([other] * len(given & {each.name for each in _heard(other)}))
    assert task_runs <= MOST_TASK_RUNS_A_DAY


def test_the_daily_run_is_about_the_finished_day_in_the_shops_time_zone(intent_days, monkeypatch):
    monkeypatch.setenv("INTENT_TIME_ZONE", "Asia/Shanghai")
    given = intent_days.daily_for_the_finished_day()
    timetable = CronPartitionTimetable(
        given.expression, timezone=given.timezone, run_offset=given.run_offset, key_format=given.key_format
    )
    midnight_in_shanghai = datetime(2026, 8, 21, 16, tzinfo=UTC)
    assert timetable._get_partition_info(_pendulum(midnight_in_shanghai))[1] == "2026-08-21"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Santiago", "Asia/Shanghai"])
def test_a_backfill_names_each_day_once_with_both_ends_also_when_clocks_change(intent_days, monkeypatch, zone):
    monkeypatch.setenv("INTENT_TIME_ZONE", zone)
    given = intent_days.daily_for_the_finished_day()
    timetable = CronPartitionTimetable(
        given.expression, timezone=given.timezone, run_offset=given.run_offset, key_format=given.key_format
    )
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)
    keys = [info.partition_key for info in timetable.iter_partition_dagrun_infos(earliest=first, latest=last)]
    assert keys == [(first + timedelta(days=each)).date().isoformat() for each in range(365)]


def test_a_day_in_the_form_wins(intent_days):
    assert intent_days.run_day(_run(partition_key="2026-08-02"), {"day": "2026-08-01"}) == "2026-08-01"


@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "asset_triggered"])
def test_a_partitioned_run_is_about_its_partition(intent_days, run_type):
    run = _run(run_type=run_type, partition_key="2026-08-02", logical_date=None)
    assert intent_days.run_day(run, {"day": None}) == "2026-08-02"
    assert intent_days.run_day(run, {}) == "2026-08-02"


def test_a_hand_started_run_without_a_day_is_about_the_last_finished_one(intent_days, monkeypatch):
    started = _run(run_type="manual", logical_date=datetime(2026, 8, 21, 23, 30, tzinfo=UTC))
    assert intent_days.run_day(started, {"day": None}) == "2026-08-20"
    monkeypatch.setenv("INTENT_TIME_ZONE", "Europe/Berlin")  # where the 22nd has begun
    assert intent_days.run_day(started, {"day": None}) == "2026-08-21"


def test_a_run_about_no_day_fails_at_once_and_says_what_to_give(intent_days):
    with pytest.raises(AirflowFailException, match="Give the day in the form"):
        intent_days.run_day(_run(run_type="manual"), {"day": None})


def test_files_are_waited_for_until_one_that_is_not_empty_is_there(tmp_path, monkeypatch, dags):
    monkeypatch.setenv("INTENT_EVENTS_PATH", str(tmp_path / "{day}.csv"))
    sensor = _sensor(dags, path="")
    assert not sensor.poke({})
    (tmp_path / "2026-08-21.csv").touch()
    assert not sensor.poke({})
    (tmp_path / "2026-08-21.csv").write_text("event_id\n")
    assert sensor.poke({})


@pytest.mark.parametrize("path", ["{day}", "{day}/part-*.csv", "file://{root}/{day}"])
def test_a_folder_a_pattern_and_an_address_are_waited_for_too(tmp_path, dags, path):
    path = path.replace("{root}", str(tmp_path)) if "{root}" in path else str(tmp_path / path)
    sensor = _sensor(dags, path=path)
    assert not sensor.poke({})
    (tmp_path / "2026-08-21").mkdir()
    assert not sensor.poke({})
    (tmp_path / "2026-08-21" / "part-1.csv").write_text("event_id\n")
    assert sensor.poke({})


def test_waiting_holds_no_worker(dags):
    assert dags["validate_events"].get_task("wait_for_files").reschedule


def test_a_missing_path_is_named_but_where_events_come_through_the_inbox(dags, settings, monkeypatch):
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("INTENT_EVENTS_PATH", raising=False)
    with pytest.raises(AirflowFailException, match="INTENT_EVENTS_PATH"):
        _sensor(dags, path="").poke({})
    with db.connect(settings) as connection:
        db.query(connection, "put_events", events='{"event_id": "e1"}', shop=settings.shop)
    assert not _sensor(dags, path="").poke({})
    with db.connect(settings) as connection:
        event = "INSERT INTO inbox.accepted (shop, received_on, seq, event_id, event_type, occurred_at, day)"
        connection.execute(sa.text(f"{event} VALUES ('main', '2026-08-21', 1, 'e1', 'view', now(), '2026-08-21')"))
    assert _sensor(dags, path="").poke({})


def test_files_that_never_came_are_named_with_what_to_do(dags, monkeypatch):
    sensor = _sensor(dags, path="/drop/{day}.csv")

    def gives_up(*_):
        raise AirflowSensorTimeout

    monkeypatch.setattr(type(sensor), "poke", gives_up)
    sensor.mode = "poke"  # the other mode asks the API when the first look was
    with pytest.raises(AirflowFailException, match=r"no file came to /drop/2026-08-21\.csv within 12 hours"):
        sensor.execute({})


def _heard(dag):
    condition = getattr(dag.timetable, "asset_condition", None)
    return getattr(condition, "objects", [condition]) if condition else []


def _run(*, run_type="manual", partition_key=None, logical_date=None):
    return SimpleNamespace(
        dag_id="validate_events", run_id="r", run_type=run_type, partition_key=partition_key, logical_date=logical_date
    )


def _sensor(dags, *, path):  # noqa: ARG001 - parsing puts the plugins on the path
    from intent_files import WaitForFiles

    return WaitForFiles(task_id="wait", day="2026-08-21", path=path, timeout=12 * 3600)


def _pendulum(moment: datetime):
    import pendulum

    return pendulum.instance(moment)
