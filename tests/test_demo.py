"""The whole loop under Airflow's own scheduler, on a small shop: as a newcomer sees it."""

import fcntl
import os
import shutil
import socket
import tempfile
import uuid
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from intent_platform import db
from intent_platform.db.embedded import url_of_database
from intent_platform.demo import run_demo
from intent_platform.demo.server import AirflowFailed, free_port
from intent_platform.errors import IntentError, SettingInvalid
from intent_platform.settings import Settings

DAYS, USERS = 2, 60


@pytest.fixture(scope="module")
def home():
    """As root the server is another user, who cannot enter pytest's own folders."""
    folder = Path(tempfile.gettempdir()) / f"intent-demo-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def settings(home):
    return Settings(home=home / "home", postgres_home=str(home / "postgres"), threads=2)


@pytest.fixture(scope="module")
def told(settings):
    """What two demos one after the other said."""
    return [_run(settings), _run(settings)]


def test_airflow_runs_every_day_and_the_story_adds_up(told):
    first, _ = told
    assert any(f"{DAYS} of {DAYS} days are validated" in line for line in first)
    counts = next(line for line in first if "rows read =" in line)
    read, accepted, quarantined, duplicate = (
        int(word.replace(",", "")) for word in counts.split() if word[0].isdigit()
    )
    assert read == accepted + quarantined + duplicate
    assert any(line.startswith("Search: 新款运动鞋") for line in first)
    assert sum(line.startswith("    → ") for line in first) == 9


def test_each_day_went_through_each_dag_as_itself(settings, told):  # noqa: ARG001 - after both demos
    runs = _metadata(settings, "SELECT dag_id, partition_key, run_type, state FROM dag_run ORDER BY id")
    days = [f"2026-08-0{day}" for day in range(1, DAYS + 1)]
    assert [key for dag, key, kind, _ in runs if (dag, kind) == ("validate_events", "backfill")] == days
    refreshed = [key for dag, key, kind, _ in runs if (dag, kind) == ("refresh_profiles", "asset_triggered")]
    assert sorted(set(refreshed)) == days
    assert {state for *_, state in runs} == {"success"}


def test_a_second_demo_runs_nothing_again_and_tells_the_same(settings, told):
    first, second = told
    assert _story(first) == _story(second)
    assert any("in Postgres already" in line for line in second)
    assert _metadata(settings, "SELECT count(*) FROM dag_run WHERE dag_id = 'retrain_classifier'") == [(1,)]


def test_no_process_stays_behind(settings, told):  # noqa: ARG001 - after both demos
    assert _processes_of(settings) == []


def test_a_file_that_does_not_fit_its_mapping_is_told_with_the_tasks_own_message(settings, tmp_path):
    events = tmp_path / "events.csv"
    events.write_text("when,what\n2019-10-01,view\n")
    with pytest.raises(
        AirflowFailed, match=r"Task validate of validate_events is (up_for_retry|failed)(.|\n)*event_time"
    ):
        run_demo(settings, is_once=True, source="rees46", events=events, day=date(2019, 10, 1), say=lambda _: None)
    assert _processes_of(settings) == []


def test_a_real_file_needs_its_mapping_and_its_day(tmp_path):
    with pytest.raises(SettingInvalid, match="all three"):
        run_demo(Settings(home=tmp_path), events=tmp_path / "x.csv", say=lambda _: None)


def test_two_demos_in_one_home_are_refused(tmp_path):
    with open(tmp_path / "demo_lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(IntentError, match="Another demo"):
            run_demo(Settings(home=tmp_path), say=lambda _: None)


def test_a_port_that_is_taken_is_not_used():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port


def _run(settings: Settings) -> list[str]:
    lines: list[str] = []
    run_demo(settings, is_once=True, days=DAYS, users=USERS, say=lines.append)
    return lines


def _story(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith(("[", "Airflow:"))]


def _metadata(settings: Settings, query: str) -> list[tuple]:
    with db.serve(settings):
        engine = sa.create_engine(url_of_database(settings, "airflow"))
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(sa.text(query))]
        engine.dispose()
    return rows


def _processes_of(settings: Settings) -> list[str]:
    """Living processes that were started with this demo's Airflow home."""
    mark = f"AIRFLOW_HOME={settings.home.absolute() / 'airflow'}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found
