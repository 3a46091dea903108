"""DAGs as Airflow runs them, task by task, with their retries (dag.test), on real files and a real Postgres."""

import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time import task_runner
from received import DAY, an_event, dump, write_file
from typer.testing import CliRunner

from intent_platform import cli, daily, training
from intent_platform.errors import DatabaseUnavailable
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake
from intent_platform.paths import resource_folder

REES46_DAY = date(2019, 10, 1)
REES46 = Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data")) / "rees46" / f"{REES46_DAY}.csv"
needs_rees46 = pytest.mark.skipif(not REES46.exists(), reason=f"benchmark data is absent: {REES46}")
GOOD = [an_event(number) for number in range(20)]


@pytest.fixture(scope="module")
def dags():
    """All DAGs beside a metadata database of their own; a retry does not wait."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    bag = DagBag(str(resource_folder("dags")))
    for dag in bag.dags.values():
        for task in dag.tasks:
            task.retry_delay = timedelta(0)
    return bag.dags


@pytest.fixture
def shop(settings, monkeypatch):
    """An empty shop that the tasks find in their environment."""
    _set_environment(monkeypatch, settings)
    return settings


def _set_environment(patch, settings):
    create_missing_keys(settings)
    patch.setenv("INTENT_HOME", str(settings.home))
    patch.setenv("INTENT_DATABASE_URL", settings.database_url)
    patch.setenv("INTENT_ENCODER", "none")  # text by n-grams alone: the encoder takes seconds to load
    patch.setenv("INTENT_THREADS", "2")


@pytest.fixture
def failures(monkeypatch):
    """The errors that Airflow was told of, try by try."""
    seen: list[BaseException] = []
    handle = task_runner._handle_current_task_failed

    def note(ti, exception, *rest):
        seen.append(exception)
        return handle(ti, exception, *rest)

    monkeypatch.setattr(task_runner, "_handle_current_task_failed", note)
    return seen


def run(dag, **form) -> dict[str, tuple[str, int]]:
    """Task → its last state and the number of its tries."""
    ran = dag.test(logical_date=None, run_conf={name: str(value) for name, value in form.items()})
    return {each.task_id: (str(each.state), each.try_number) for each in ran.get_task_instances()}


def test_a_refused_day_fails_at_its_first_try_with_its_message(dags, shop, tmp_path, failures):  # noqa: ARG001
    path = write_file(tmp_path, "events.csv", [an_event(number, price="-1") for number in range(30)])
    tasks = run(dags["validate_events"], day=DAY, path=path)
    assert tasks["validate"] == ("failed", 1)
    assert [str(each).splitlines()[0] for each in failures] == [
        "2026-08-21: 30 of 30 events rejected (100.00 %, allowed 1.00 %)."
    ]


def test_a_file_whose_upload_ends_meanwhile_is_read_by_the_next_try(dags, shop, tmp_path, failures, monkeypatch):  # noqa: ARG001
    path = write_file(tmp_path, "events.csv.gz", GOOD)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    _after_first_try(monkeypatch, lambda: path.write_bytes(whole))
    tasks = run(dags["validate_events"], day=DAY, path=path)
    assert tasks["validate"] == ("success", 2)
    assert [type(each).__name__ for each in failures] == ["FileUnreadable"]


def test_a_database_that_stays_away_is_tried_as_often_as_the_dag_says(dags, shop, tmp_path, failures, monkeypatch):  # noqa: ARG001
    monkeypatch.setenv("INTENT_DATABASE_URL", "postgresql+psycopg2://intent:x@localhost:1/intent")
    tasks = run(dags["validate_events"], day=DAY, path=write_file(tmp_path, "events.csv", GOOD))
    assert tasks["validate"] == ("failed", 3)
    assert [type(each) for each in failures] == [DatabaseUnavailable] * 3


@pytest.fixture(scope="module")
def rees46(dags, module_settings):
    """A real shop's day, twice through the DAGs; after each time what stands in the manifest and in the tables."""
    states = []
    with pytest.MonkeyPatch.context() as patch:
        _set_environment(patch, module_settings)
        for _ in range(2):
            intake = run(dags["validate_events"], day=REES46_DAY, path=REES46, source="rees46")
            refreshed = run(dags["refresh_profiles"], day=REES46_DAY)
            assert intake["validate"] == refreshed["refresh"] == ("success", 1)
            states.append((_published_content(module_settings), dump(module_settings)))
        yield states


@needs_rees46
@pytest.mark.needs_bench_data
def test_a_second_run_of_a_real_day_changes_no_digest_and_no_row(rees46):
    (first_content, first_rows), (second_content, second_rows) = rees46
    assert first_content == second_content
    assert {name for name, rows in first_rows.items() if rows} >= {
        *("quality.file_account", "quality.clean_day", "quality.sequence_day", "profiles.user_profile"),
        *("profiles.user_interest", "profiles.user_recommendation", "profiles.user_profile_history"),
    }
    for table, rows in first_rows.items():
        assert second_rows[table] == rows, table


@needs_rees46
@pytest.mark.needs_bench_data
@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        (
            "SELECT rows_read, accepted, quarantined, duplicate, accepted + quarantined + duplicate "
            "FROM quality.file_account",
            "17435,17429,1,5,17435",
        ),
        ("SELECT broken_rule, rows FROM quality.rule_account", "row_torn,1"),
        ("SELECT purchases_after_view, purchases FROM quality.sequence_day", "212,214"),
        ("SELECT count(*), count(DISTINCT user_id) FROM profiles.user_profile", "4504,4504"),
    ],
)
def test_what_became_of_a_real_day_is_read_by_intent_sql(rees46, statement, answer):  # noqa: ARG001 - after both runs
    shown = CliRunner().invoke(cli.app, ["sql", statement, "--csv"])
    assert shown.stdout.splitlines()[1:] == [answer]


def _published_content(settings) -> dict:
    """Table, partition → what its files hold, by the digests they are published with."""
    tables = Lake(settings.lake_root, settings.shop).snapshot().tables
    return {
        (table, partition): [(file.rows, sorted(file.tags.items())) for file in files]
        for table, partitions in tables.items()
        for partition, files in partitions.items()
    }


def _after_first_try(monkeypatch, mend):
    validate = daily.validate_events

    def mended_afterwards(*arguments, **named):
        try:
            return validate(*arguments, **named)
        finally:
            mend()

    monkeypatch.setattr(daily, "validate_events", mended_afterwards)


def test_a_refused_candidate_leaves_word_of_its_evaluation(dags, shop, monkeypatch):  # noqa: ARG001
    refused = training.TrainingReport(
        day=DAY, is_promoted=False, reason="Behind the champion.", report="reports/evaluation.html"
    )
    monkeypatch.setattr(training, "retrain", lambda *_, **__: refused)
    ran = dags["retrain_classifier"].test(logical_date=None, run_conf={"day": str(DAY)})
    (task,) = ran.get_task_instances()
    assert str(task.state) == "skipped"
    assert task.xcom_pull(task_ids="retrain", key="report") == "reports/evaluation.html"
