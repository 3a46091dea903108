"""Where nearline meets what is old, late, shared or in the way: found by readers who tried to break it."""

import json
import logging
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
import sqlalchemy as sa
from model_shop import catalogue, publish
from nearline_shop import (
    EVENING,
    TODAY,
    YESTERDAY,
    a_shop,
    at,
    drain,
    item_event,
    profile,
    put,
    rows_of,
    today_event,
    user,
)
from received import write_file
from typer.testing import CliRunner

from intent_platform import cli, daily, db, meeting, nearline, training, watching
from intent_platform.errors import (
    DatabaseUnavailable,
    DayRefused,
    KeyMissing,
    NearlineUnwell,
    NotEnoughData,
    SettingInvalid,
)
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.inbox.merging import Device
from intent_platform.paths import resource_folder
from intent_platform.replaying import replay_inbox
from intent_platform.serving import load_serving

TOMORROW = TODAY + timedelta(days=1)
LONG_AGO = TODAY - timedelta(days=40)


@pytest.fixture
def shop(settings, tmp_path):
    return a_shop(settings, tmp_path)


def publish_first(shop, folder, *events: dict[str, str]) -> None:
    """Today's nearline events and these of a file, which stand before them."""
    daily.run_day(TODAY, shop, path=str(write_file(folder, "first.csv", list(events))))


def told(shop, user_id: str) -> list:
    return rows_of(shop, "SELECT events_30d FROM profiles.user_profile WHERE user_id = :user", user=user_id)


@pytest.mark.parametrize("raw_user", ["bert", ""])
def test_a_login_on_a_device_of_somebody_away_for_long_deletes_no_profile(shop, tmp_path, raw_user):
    event = item_event(1, event_id="old1", user_id=raw_user, anonymous_id="tablet", occurred_at=at(9, LONG_AGO))
    daily.run_day(LONG_AGO, shop, path=str(write_file(tmp_path, "old.csv", [event])))
    away = user(shop, raw_user) if raw_user else Pseudonymiser.of(shop).of_anonymous("tablet")
    drain(shop)
    put(shop, today_event(1, user_id="carla", anonymous_id="tablet"))
    drain(shop)
    assert told(shop, away) == [(1,)]
    assert told(shop, user(shop, "carla")) == [(1,)]


def test_a_login_concerns_the_device_the_user_and_whom_the_user_follows_however_many_share_it(shop):
    device, moment = Device(), datetime(2026, 8, 21, tzinfo=UTC)
    for number in range(100):
        device.link(moment + timedelta(minutes=number), f"u{number}", shop)
    assert device.link(moment + timedelta(minutes=100), "new", shop) == {"new", "u99"}
    assert device.link(moment + timedelta(minutes=50, seconds=30), "late", shop) == {"late", "u50"}
    assert device.link(moment - timedelta(minutes=1), "first", shop) == {"first"}
    assert device.link(moment + timedelta(minutes=101), "new", shop) == set()


def test_a_refused_day_costs_no_event_when_a_later_day_is_published(shop):
    put(shop, today_event(1), *(today_event(number, event_type="hover") for number in range(10, 13)))
    drain(shop)
    with pytest.raises(DayRefused):
        daily.run_day(TODAY, replace(shop, max_rejected_ratio=0.01))
    put(shop, today_event(2, occurred_at=at(9, TOMORROW)))
    drain(shop, EVENING + timedelta(days=1))
    assert profile(shop, "anna", "events_7d") == (7,)
    daily.run_day(TOMORROW, shop)
    assert profile(shop, "anna", "events_7d") == (7,)


def test_an_event_accepted_after_its_day_was_validated_stays_when_the_next_day_is(shop):
    put(shop, today_event(1))
    drain(shop)
    daily.run_day(TODAY, shop)
    put(shop, today_event(2))
    drain(shop)
    put(shop, today_event(3, occurred_at=at(9, TOMORROW)))
    drain(shop, EVENING + timedelta(days=1))
    daily.run_day(TOMORROW, shop)
    assert profile(shop, "anna", "events_30d") == (8,)


def test_a_refresh_between_validating_and_building_takes_nothing_back(shop):
    put(shop, today_event(1, occurred_at=at(22, YESTERDAY)))
    drain(shop)
    daily.validate_events(TODAY, shop)
    publish(shop, items=catalogue().slice(0, 9))
    training.rebuild_index(shop, now=EVENING)
    daily.refresh_profiles(YESTERDAY, shop)
    assert profile(shop, "anna", "events_7d") == (6,)


def test_a_batch_that_meets_a_limit_is_tried_again_with_half(shop, monkeypatch):
    taken = []

    def slow(_connection, _release, fresh, *_given, **_named):
        taken.append(fresh.num_rows)
        if fresh.num_rows > 2:
            raise DatabaseUnavailable("terminating connection due to idle-in-transaction timeout")

    monkeypatch.setattr(nearline, "move_profiles", slow)
    put(shop, *(today_event(number) for number in range(1, 10)))
    scorer, serving = nearline.Scorer(settings=shop, clock=lambda: EVENING), load_serving(shop)
    scorer._most = 8
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            scorer.take(serving)
    scorer.take(serving)
    scorer.close()
    assert taken == [8, 4, 2]


@pytest.mark.parametrize("writes", ["chunks", "catch up"])
def test_a_refresh_that_hangs_holds_shoppers_for_a_minute_at_most(shop, monkeypatch, writes):
    limits, module = [], daily if writes == "chunks" else meeting
    name = "upsert" if writes == "chunks" else "write"
    original = getattr(module, name)

    def look(connection, *given):
        limits.append(connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one())
        return original(connection, *given)

    put(shop, today_event(1))
    drain(shop)
    rows_of(shop, "UPDATE profiles.user_profile SET content_digest = '' RETURNING 1")
    monkeypatch.setattr(module, name, look)
    daily.refresh_profiles(YESTERDAY, shop)
    assert set(limits) == {"1min"}


def test_the_watch_raises_its_alarm_though_events_never_cease(shop, monkeypatch):
    monkeypatch.setattr(watching, "LONGEST_DRAIN_S", 1.0)
    put(shop, today_event(1))
    has_ended, number = threading.Event(), 1
    original = nearline.Scorer.take

    def take(scorer, *given):  # as many come as are taken
        nonlocal number
        if not has_ended.is_set():
            number += 1
            put(shop, today_event(number % 50, event_id=f"more{number}"))
        return original(scorer, *given)

    monkeypatch.setattr(nearline.Scorer, "take", take)
    stops = threading.Timer(30, has_ended.set)  # or a watch that does not end would hold up all tests
    stops.start()
    with pytest.raises(NearlineUnwell, match="No scorer was alive"):
        watching.watch(shop, EVENING)
    assert not has_ended.is_set()
    stops.cancel()


def test_ids_stay_as_long_as_their_events(shop):
    put(shop, today_event(1))
    drain(shop)
    with pytest.raises(NearlineUnwell, match="not all in the lake"):
        watching.watch(shop, EVENING + timedelta(days=6))
    statement = (resource_folder("sql") / "checks" / "nearline_events_are_counted_once.sql").read_text(encoding="utf-8")
    assert rows_of(shop, statement) == []
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted") == [(1,)]


def test_two_rejected_events_under_one_number_end_no_scorer(shop):
    statement = "INSERT INTO inbox.event (seq, slot, event_id, event_type) VALUES (900, :slot, :id, 'hover')"
    with db.connect(shop) as connection:
        for slot in (0, 1):
            connection.execute(sa.text(statement), {"slot": slot, "id": f"h{slot}"})
    put(shop, today_event(1))
    drain(shop)
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(0,)]
    assert profile(shop, "anna", "events_1d") == (1,)


def test_a_log_does_not_tell_what_shoppers_typed(shop, caplog):
    put(shop, today_event(1, event_type="search", item_id="", query_text="my secret illness"))
    taken = """
    INSERT INTO inbox.accepted (shop, received_on, seq, event_id, event_type, occurred_at, day)
    SELECT shop, :day, seq, 'x', 'view', now(), :day FROM inbox.event RETURNING seq
    """
    rows_of(shop, taken, day=TODAY)  # so that the statement that keeps it fails
    with caplog.at_level(logging.INFO):
        drain(shop)
    assert "accepted" in caplog.text
    assert "my secret illness" not in caplog.text


def test_a_day_on_which_nothing_came_is_told_so(shop):
    with pytest.raises(SettingInvalid, match="Nothing came for 2026-08-22: the inbox has no event"):
        daily.run_day(TOMORROW, shop)


def test_a_refresh_of_a_day_to_come_is_refused_and_moves_nobody(shop):
    with pytest.raises(NotEnoughData, match="Neither 2026-08-22 nor a later day was published for shop 'main'"):
        daily.refresh_profiles(TOMORROW, shop)
    assert rows_of(shop, "SELECT DISTINCT valid_at FROM profiles.user_profile") == [
        (datetime(2026, 8, 21, tzinfo=UTC),)
    ]


def test_a_shopper_who_never_came_nearline_stays_the_batchs_while_no_nearline_day_is_validated(shop):
    put(shop, today_event(1, user_id="bert"))
    drain(shop)
    rows_of(shop, "UPDATE profiles.user_profile SET content_digest = '' RETURNING 1")
    daily.refresh_profiles(YESTERDAY, shop)
    assert profile(shop, "anna", "source") == ("batch",)
    assert profile(shop, "bert", "source") == ("nearline",)


def test_psql_and_other_drivers_take_the_address_that_intent_url_prints(shop, monkeypatch):
    monkeypatch.setenv("INTENT_DATABASE_URL", shop.database_url)
    done = CliRunner().invoke(cli.app, ["url"])
    with closing(psycopg2.connect(done.stdout.strip())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM inbox.event")
        assert cursor.fetchone() == (0,)


def test_a_profile_is_shown_by_the_raw_id_of_a_user_or_a_device(shop, monkeypatch):
    for name in ("home", "database_url"):
        monkeypatch.setenv(f"INTENT_{name.upper()}", str(getattr(shop, name)))
    put(shop, today_event(1, user_id="", anonymous_id="cookie-9"))
    drain(shop)
    for raw_id, pseudonym in (
        ("anna", user(shop, "anna")),
        ("cookie-9", Pseudonymiser.of(shop).of_anonymous("cookie-9")),
    ):
        assert pseudonym in CliRunner().invoke(cli.app, ["profile", raw_id]).stdout
    assert "nor under the pseudonyms" in str(CliRunner().invoke(cli.app, ["profile", "nobody"]).exception)


@pytest.mark.parametrize("raw_user", ["", "bert"])
def test_what_the_lake_gives_to_somebody_else_is_taken_from_whom_nearline_told(shop, tmp_path, raw_user):
    put(shop, today_event(1, user_id=raw_user, anonymous_id="tablet"))
    drain(shop)
    told_first = user(shop, raw_user) if raw_user else Pseudonymiser.of(shop).of_anonymous("tablet")
    assert told(shop, told_first) == [(1,)]
    if raw_user:  # an equal id
        of_carla = today_event(1, user_id="carla")
    else:  # a link before the event
        of_carla = today_event(2, user_id="carla", anonymous_id="tablet", occurred_at=at(9))
    publish_first(shop, tmp_path, of_carla)
    assert told(shop, told_first) == []
    assert rows_of(shop, "SELECT 1 FROM nearline.user_state WHERE user_id = :user", user=told_first) == []
    counts = sum(count for (count,) in rows_of(shop, "SELECT events_1d FROM profiles.user_profile WHERE events_1d > 0"))
    assert counts == (1 if raw_user else 2)


def test_what_came_by_file_goes_with_what_came_nearline(shop, tmp_path):
    seen = item_event(1, event_id="seen", user_id="", anonymous_id="tablet", occurred_at=at(12, YESTERDAY))
    daily.run_day(YESTERDAY, shop, path=str(write_file(tmp_path, "seen.csv", [seen])))
    put(shop, today_event(1, user_id="", anonymous_id="tablet"))
    drain(shop)
    tablet = Pseudonymiser.of(shop).of_anonymous("tablet")
    assert told(shop, tablet) == [(2,)]
    publish_first(shop, tmp_path, today_event(2, user_id="carla", anonymous_id="tablet", occurred_at=at(9, YESTERDAY)))
    assert told(shop, tablet) == []
    assert profile(shop, "carla", "events_7d") == (3,)


def test_a_shopper_keeps_no_event_in_mind_that_the_lake_gives_to_somebody_else(shop, tmp_path):
    before = TODAY - timedelta(days=5)
    login = item_event(1, event_id="d1", user_id="dora", anonymous_id="tablet", occurred_at=at(9, before))
    daily.run_day(before, shop, path=str(write_file(tmp_path, "before.csv", [login])))
    put(shop, today_event(1, user_id="", anonymous_id="tablet"))
    drain(shop)
    assert profile(shop, "dora", "events_7d") == (2,)
    publish_first(shop, tmp_path, today_event(2, user_id="carla", anonymous_id="tablet", occurred_at=at(9)))
    put(shop, today_event(3, user_id="dora", occurred_at=at(9, TOMORROW)))
    drain(shop, EVENING + timedelta(days=1))
    assert profile(shop, "dora", "events_7d") == (2,)
    assert profile(shop, "carla", "events_7d") == (2,)


def test_who_was_away_for_longer_than_the_window_keeps_the_profile_that_nearline_told(shop):
    put(shop, today_event(1, user_id="bert"))
    drain(shop)
    much_later = TODAY + timedelta(days=shop.history_days + 1)
    put(shop, today_event(2, occurred_at=at(9, much_later)))
    drain(shop, EVENING + timedelta(days=shop.history_days + 1))
    daily.run_day(TODAY, shop)
    rows_of(
        shop,
        "UPDATE nearline.user_state SET newest_received_on = :day WHERE newest_received_on IS NULL RETURNING 1",
        day=TODAY,
    )
    daily.run_day(much_later, shop)
    assert profile(shop, "bert", "events_1d") == (1,)


def test_a_late_login_parts_what_logins_by_file_had_made_one(shop, tmp_path):
    logins = [
        item_event(hour, event_id=f"l{hour}", user_id="dora", anonymous_id="tablet", occurred_at=at(hour, YESTERDAY))
        for hour in (9, 20)
    ]
    daily.run_day(YESTERDAY, shop, path=str(write_file(tmp_path, "logins.csv", logins)))
    drain(shop)
    put(shop, today_event(1, user_id="carla", anonymous_id="tablet", occurred_at=at(12, YESTERDAY)))
    drain(shop)
    put(shop, today_event(2, user_id="", anonymous_id="tablet"))
    drain(shop)
    assert profile(shop, "carla", "events_7d") == (1,)
    assert profile(shop, "dora", "events_7d") == (3,)


def test_a_host_with_another_key_than_the_shops_is_refused(shop, tmp_path, monkeypatch):
    put(shop, today_event(1))
    file = write_file(tmp_path, "today.csv", [today_event(2)])
    monkeypatch.setenv("INTENT_PSEUDONYM_KEY", "ab" * 32)
    for step in (drain, lambda settings: daily.validate_events(TODAY, settings, path=str(file))):
        with pytest.raises(KeyMissing, match="not the one that shop 'main' began with"):
            step(shop)
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(1,)]
    monkeypatch.delenv("INTENT_PSEUDONYM_KEY")
    drain(shop)
    assert profile(shop, "anna", "events_7d") == (6,)


def test_a_study_can_leave_out_what_was_recorded_later(shop):
    ((recorded,),) = rows_of(shop, "SELECT max(recorded_at) FROM profiles.user_profile_history")
    put(shop, today_event(1, occurred_at=at(22, YESTERDAY)))
    drain(shop)
    statement = "SELECT events_7d FROM profiles.profile_as_of(:user, :midnight, 'main'{})"
    asked = {"user": user(shop, "anna"), "midnight": daily.end_of_day(YESTERDAY, shop), "until": recorded}
    assert rows_of(shop, statement.format(""), **asked) == [(6,)]
    assert rows_of(shop, statement.format(", :until"), **asked) == [(5,)]
    assert rows_of(shop, statement.format(", '2020-01-01'"), **asked) == []


def test_an_object_in_a_field_is_set_aside_and_the_others_of_its_call_go_on(shop):
    odd = [today_event(2) | {"event_id": {"a": 1}}, today_event(3) | {"price": [1]}, today_event(4) | {"user_id": {}}]
    put(shop, today_event(1), *odd, today_event(5) | {"unknown": {"a": 1}})
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted ORDER BY seq") == [("t1",), ("t5",)]
    assert rows_of(shop, "SELECT broken_rule FROM inbox.rejected") == [("row_torn",)] * 3
    report = replay_inbox(TODAY, shop, EVENING)
    assert (report.accepted, dict(report.still_rejected)) == (0, {"row_torn": 3})


def test_rejected_events_are_written_out_as_they_came(shop, tmp_path, monkeypatch):
    for name in ("home", "database_url"):
        monkeypatch.setenv(f"INTENT_{name.upper()}", str(getattr(shop, name)))
    put(shop, today_event(1), event := today_event(2, event_type="hover"))
    drain(shop)
    out = tmp_path / "rejected.jsonl"
    CliRunner().invoke(
        cli.app, ["quarantine", str(TODAY), "--source", "inbox", "--out", str(out)], catch_exceptions=False
    )
    (row,) = map(json.loads, out.read_text().splitlines())
    ((seq,),) = rows_of(shop, "SELECT seq FROM inbox.rejected")
    assert (row["file"], row["line"], row["broken_rule"]) == ("inbox", seq, "event_type_unknown")
    assert json.loads(row["raw"]) == event
