"""Rejected events of the inbox come in exactly once when they are good, into profiles and lake."""

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowSkipException
from model_shop import publish
from nearline_shop import EVENING, TODAY, drain, profile, put, rows_of, today_event
from received import an_event, write_file

from intent_platform import daily, nearline, watching
from intent_platform.errors import NearlineUnwell, SettingInvalid
from intent_platform.events import rules
from intent_platform.inbox import door
from intent_platform.keys import create_missing_keys
from intent_platform.paths import resource_folder
from intent_platform.replaying import replay_inbox

LATER = EVENING + timedelta(days=8)  # ids and accepted events are forgotten by then


@pytest.fixture
def shop(settings):
    settings = replace(settings, threads=1, max_rejected_ratio=0.9)
    create_missing_keys(settings)
    publish(settings)
    daily.ensure_release(settings, TODAY)
    return settings


@pytest.fixture
def strict_rule(monkeypatch):
    """A rule that is too strict, until it is mended."""

    def item_missing(rows, window):
        return original(rows, window) | (rows.item_id == "i02")

    original = rules.item_missing
    monkeypatch.setattr(rules, "RULES", tuple(item_missing if each is original else each for each in rules.RULES))
    return monkeypatch


def figures(settings) -> tuple:
    tables = ("accepted", "rejected", "duplicate", "replayed")
    return tuple(rows_of(settings, f"SELECT count(*) FROM inbox.{table}")[0][0] for table in tables)


def in_lake(settings) -> list:
    return rows_of(
        settings,
        "SELECT rows_read, accepted, quarantined, duplicate FROM quality.file_account "
        "WHERE file = 'inbox' AND status = 'published'",
    )


def clean_rows(settings) -> list:
    return rows_of(settings, "SELECT rows FROM quality.clean_day WHERE day = :day", day=TODAY)


def forget(settings, now: datetime) -> None:
    with suppress(NearlineUnwell):  # as much was rejected
        watching.watch(settings, now)


def put_a_few(settings) -> None:
    """Three good events, two that the strict rule rejects, one that nothing mends."""
    put(settings, *(today_event(number) for number in (1, 3, 4)), today_event(5, event_type="hover"))
    put(settings, today_event(2), today_event(2))
    drain(settings)


def test_an_event_that_a_mended_rule_lets_in_moves_its_profile_and_comes_in_once(shop, strict_rule):
    put_a_few(shop)
    assert figures(shop) == (3, 3, 0, 0)
    strict_rule.undo()
    report = replay_inbox(TODAY, shop, EVENING)
    assert (report.accepted, report.duplicate, dict(report.still_rejected)) == (1, 1, {"event_type_unknown": 1})
    assert figures(shop) == (4, 1, 1, 2)
    assert profile(shop, "anna", "events_1d") == (4,)
    assert rows_of(shop, "SELECT broken_rule, outcome, replayed_on FROM inbox.replayed ORDER BY seq") == [
        ("item_missing", "accepted", TODAY), ("item_missing", "duplicate", TODAY),
    ]  # fmt: skip
    again = replay_inbox(TODAY, shop, EVENING)
    assert (again.accepted, again.duplicate, dict(again.still_rejected)) == (0, 0, {"event_type_unknown": 1})
    put(shop, today_event(2))
    drain(shop)
    assert profile(shop, "anna", "events_1d") == (4,)
    daily.run_day(TODAY, shop)
    assert in_lake(shop) == [(7, 4, 1, 2)]


def test_a_day_that_is_in_the_lake_is_published_again_with_it(shop, strict_rule):
    put_a_few(shop)
    daily.run_day(TODAY, shop)
    assert in_lake(shop) == [(6, 3, 3, 0)]
    strict_rule.undo()
    assert replay_inbox(TODAY, shop, EVENING).days_published == (TODAY,)
    assert in_lake(shop) == [(6, 4, 1, 1)]
    assert clean_rows(shop) == [(4,)]
    assert replay_inbox(TODAY, shop, EVENING).days_published == ()
    daily.validate_events(TODAY, shop)
    assert clean_rows(shop) == [(4,)]


def test_a_day_that_the_inbox_has_forgotten_keeps_in_the_lake_what_it_had(shop, strict_rule):
    put_a_few(shop)
    daily.run_day(TODAY, shop)
    forget(shop, LATER)
    assert figures(shop) == (0, 3, 0, 0)
    strict_rule.undo()
    assert replay_inbox(TODAY, shop, LATER).days_published == (TODAY,)
    assert in_lake(shop) == [(6, 4, 1, 1)]
    assert clean_rows(shop) == [(4,)]
    forget(shop, LATER)
    assert figures(shop)[0] == 1  # until the lake has surely got it
    assert replay_inbox(TODAY, shop, LATER).days_published == ()
    forget(shop, LATER + timedelta(days=8))
    assert figures(shop)[0] == 0
    assert clean_rows(shop) == [(4,)]


def test_replayed_events_that_the_inbox_has_forgotten_stay_in_the_lake_where_none_came_in_at_first(
    shop, strict_rule, tmp_path
):
    file = str(write_file(tmp_path, "today.csv", [an_event(number, item_id="i01") for number in range(4)]))
    put(shop, today_event(2), today_event(5, event_type="hover"))
    drain(shop)
    daily.run_day(TODAY, shop, path=file)
    assert figures(shop)[:2] == (0, 2)
    strict_rule.undo()
    assert replay_inbox(TODAY, shop, LATER).days_published == (TODAY,)
    forget(shop, LATER + timedelta(days=8))
    assert figures(shop) == (0, 1, 0, 1)
    daily.validate_events(TODAY, shop, path=file)
    assert in_lake(shop) == [(2, 1, 1, 0)]
    assert clean_rows(shop) == [(5,)]


def test_replay_says_that_a_day_which_is_not_in_the_lake_must_be_validated(shop, strict_rule):
    put_a_few(shop)
    strict_rule.undo()
    report = replay_inbox(TODAY, shop, LATER)
    assert (report.accepted, report.days_published, report.awaits_validation) == (1, (), True)


def test_what_was_not_scorable_comes_in_and_what_still_is_not_stays(shop, monkeypatch):
    move = nearline.move_profiles

    def broken_for(*poison):
        def move_unless_poisoned(connection, release, fresh, *more, **named):
            assert not set(poison) & set(fresh["event_id"].to_pylist()), "poison"
            move(connection, release, fresh, *more, **named)

        monkeypatch.setattr(nearline, "move_profiles", move_unless_poisoned)
        monkeypatch.setattr("intent_platform.replaying.move_profiles", move_unless_poisoned)

    broken_for("t2", "t3")
    put(shop, *(today_event(number) for number in range(1, 5)))
    drain(shop)
    assert figures(shop) == (2, 2, 0, 0)
    broken_for("t3")
    report = replay_inbox(TODAY, shop, EVENING)
    assert (report.accepted, dict(report.still_rejected)) == (1, {door.NOT_SCORABLE: 1})
    assert figures(shop) == (3, 1, 0, 1)


def test_the_form_in_airflow_replays_the_inbox_as_the_command_does(shop, strict_rule, monkeypatch):
    put_a_few(shop)
    daily.run_day(TODAY, shop)
    strict_rule.undo()
    for name, value in shop.as_environment().items():
        monkeypatch.setenv(name, value)
    replay = DagBag(str(resource_folder("dags"))).dags["replay_quarantine"].get_task("replay").python_callable
    published = []
    event = SimpleNamespace(add_partitions=published.extend)
    form = {"source": "inbox", "fixed": None}
    replay(str(TODAY), params=form, outlet_events=defaultdict(lambda: event))
    assert set(published) == {str(TODAY)}
    assert in_lake(shop) == [(6, 4, 1, 1)]
    with pytest.raises(AirflowSkipException):
        replay(str(TODAY), params=form, outlet_events=defaultdict(lambda: event))
    with pytest.raises(SettingInvalid, match="put a mended event into the inbox again"):
        replay(str(TODAY), params=form | {"fixed": "rows.jsonl"}, outlet_events={})
