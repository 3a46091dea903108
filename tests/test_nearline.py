"""Events through the inbox: judged, counted once, told within the batch, and equal to what the batch says."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy as sa
from model_shop import catalogue, publish
from received import an_event, write_file

from intent_platform import daily, db, meeting, nearline, training, watching
from intent_platform.errors import DatabaseUnavailable, NearlineUnwell, ParityBroken, ReleaseMoved
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.events.quarantine import Place, Unsealer
from intent_platform.inbox import queue
from intent_platform.inbox.merging import Device
from intent_platform.keys import create_missing_keys
from intent_platform.model.text import Encoder
from intent_platform.nearline import Scorer
from intent_platform.parity import TOLERANCE, check_parity
from intent_platform.paths import resource_folder
from intent_platform.scoring import recommend
from intent_platform.serving import Follower, Tally
from intent_platform.settings import Settings

TODAY = date(2026, 8, 21)
YESTERDAY = TODAY - timedelta(days=1)
EVENING = datetime(2026, 8, 21, 23, 30, tzinfo=UTC)


@pytest.fixture
def shop(settings, tmp_path):
    """Settings of a shop with a bootstrap release, a catalogue, and one day of events that came by file."""
    settings = replace(settings, threads=1, max_rejected_ratio=0.5)
    create_missing_keys(settings)
    publish(settings)
    file = write_file(
        tmp_path, "yesterday.csv", [item_event(number, occurred_at=at(number, YESTERDAY)) for number in range(5)]
    )
    daily.run_day(YESTERDAY, settings, path=str(file))
    return settings


def at(hour: int, day: date = TODAY, minute: int = 0) -> str:
    return f"{day}T{hour:02d}:{minute:02d}:00Z"


def item_event(number: int, **changes: str) -> dict[str, str]:
    return an_event(number, **({"event_id": f"y{number}", "item_id": f"i{number:02}", "user_id": "anna"} | changes))


def today_event(number: int, **changes: str) -> dict[str, str]:
    return item_event(number, **({"event_id": f"t{number}", "occurred_at": at(10, minute=number)} | changes))


def put(settings, *events: dict[str, str]) -> None:
    with db.connect(settings) as connection:
        db.query(connection, "put_events", events=json.dumps(events))


def drain(settings, now: datetime = EVENING):
    return Scorer(settings=settings, clock=lambda: now).run(drain=True)


def rows_of(settings, statement: str, **parameters) -> list:
    with db.connect(settings) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), parameters)]


def user(settings, raw_id: str) -> str:
    return Pseudonymiser.of(settings).of_user(raw_id)


def profile(settings, raw_id: str, columns: str) -> tuple:
    found = rows_of(
        settings, f"SELECT {columns} FROM profiles.user_profile WHERE user_id = :user", user=user(settings, raw_id)
    )
    assert len(found) == 1
    return found[0]


def content(settings) -> list:
    columns = "user_id, valid_at, events_1d, events_7d, events_30d, last_event_type, top_categories, recommended_items"
    return rows_of(settings, f"SELECT {columns} FROM profiles.user_profile ORDER BY user_id")


def test_an_event_moves_its_shoppers_profile_and_knows_what_came_by_file(shop):
    put(shop, today_event(7))
    drain(shop)
    found = profile(shop, "anna", "source, events_1d, events_7d, last_event_at, valid_at")
    assert found == (
        "nearline",
        1,
        6,
        datetime(2026, 8, 21, 10, 7, tzinfo=UTC),
        datetime(2026, 8, 21, 10, 7, tzinfo=UTC),
    )
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(0,)]


def test_every_claimed_event_is_accepted_rejected_or_a_repeat(shop):
    put(shop, today_event(1), today_event(1), today_event(2, event_type="hover"), today_event(3, event_id=""))
    put(shop, today_event(1), today_event(4, occurred_at=at(3, TODAY - timedelta(days=9))))
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted") == [("t1",)]
    assert rows_of(shop, "SELECT event_id FROM inbox.duplicate") == [("t1",), ("t1",)]
    assert rows_of(shop, "SELECT broken_rule FROM inbox.rejected ORDER BY 1") == [
        ("event_id_missing",), ("event_type_unknown",), ("occurred_outside_window",),
    ]  # fmt: skip


def test_a_rejected_event_is_sealed_and_opens_with_the_private_key(shop):
    put(shop, today_event(2, event_type="hover"))
    drain(shop)
    ((seq, sealed),) = rows_of(shop, "SELECT seq, sealed_row FROM inbox.rejected")
    assert b"anna" not in bytes(sealed)
    place = Place(shop=shop.shop, received_on=TODAY, file="inbox", line=seq)
    assert json.loads(Unsealer(shop).unseal(bytes(sealed), place))["user_id"] == "anna"


def test_no_raw_id_is_kept_anywhere_once_the_scorer_was_there(shop):
    put(shop, today_event(1, user_id="berta", anonymous_id="cookie-7"))
    drain(shop)
    tables = ("inbox.accepted", "nearline.user_state", "nearline.device", "profiles.user_profile", "inbox.event")
    for table in tables:
        assert "berta" not in str(rows_of(shop, f"SELECT * FROM {table}"))
        assert "cookie-7" not in str(rows_of(shop, f"SELECT * FROM {table}"))


def test_the_order_of_arrival_and_the_size_of_batches_do_not_matter(shop, monkeypatch):
    events = [today_event(number, user_id=f"user-{number % 3}") for number in range(12)]
    put(shop, *events)
    drain(shop)
    expected = content(shop)
    for table in ("inbox.seen_event", "inbox.accepted", "nearline.user_state", "nearline.seeded_day"):
        rows_of(shop, f"DELETE FROM {table} RETURNING 1")
    rows_of(shop, "DELETE FROM profiles.user_profile RETURNING 1")
    daily.refresh_profiles(YESTERDAY, shop)
    monkeypatch.setattr(nearline, "EVENTS_PER_BATCH", 1)
    put(shop, *reversed(events))
    drain(shop)
    assert content(shop) == expected


def test_a_device_is_its_users_from_the_link_on_whichever_came_first(shop):
    before = today_event(1, user_id="", anonymous_id="c1", occurred_at=at(9))
    login = today_event(2, user_id="carla", anonymous_id="c1", occurred_at=at(10))
    after = today_event(3, user_id="", anonymous_id="c1", occurred_at=at(11))
    put(shop, after)
    drain(shop)
    put(shop, before, login)
    drain(shop)
    assert profile(shop, "carla", "events_1d, last_event_at") == (2, datetime(2026, 8, 21, 11, tzinfo=UTC))
    device = Pseudonymiser.of(shop).of_anonymous("c1")
    assert rows_of(shop, "SELECT events_1d FROM profiles.user_profile WHERE user_id = :user", user=device) == [(1,)]


def test_links_of_a_device_are_kept_in_order_and_say_nothing_twice():
    device, settings = Device(), Settings()
    moments = [EVENING - timedelta(hours=hour) for hour in (3, 2, 1, 0)]
    assert device.link(moments[2], "b", settings)
    assert device.link(moments[0], "a", settings)
    assert not device.link(moments[1], "a", settings)
    assert [device.user_at(moment, settings) for moment in moments] == ["a", "a", "b", "b"]
    assert device.user_at(moments[0] - timedelta(hours=1), settings) is None


def test_a_link_is_forgotten_after_history_days_as_the_batch_does_unless_it_was_renewed():
    device, settings = Device(), Settings(history_days=10)
    device.link(EVENING, "a", settings)
    assert device.user_at(EVENING + timedelta(days=10), settings) == "a"
    assert device.user_at(EVENING + timedelta(days=11), settings) is None
    assert device.link(EVENING + timedelta(days=5), "a", settings)
    assert device.user_at(EVENING + timedelta(days=11), settings) == "a"


def test_a_link_that_comes_late_moves_events_that_came_by_file(shop, tmp_path):
    seen = item_event(5, user_id="", anonymous_id="c1", occurred_at=at(20, YESTERDAY))
    file = write_file(tmp_path, "more.csv", [seen])
    daily.run_day(YESTERDAY, shop, path=str(file))
    put(shop, today_event(1, user_id="carla", anonymous_id="c1", occurred_at=at(18, YESTERDAY)))
    drain(shop)
    assert profile(shop, "carla", "events_7d, last_event_at") == (2, datetime(2026, 8, 20, 20, tzinfo=UTC))
    device = Pseudonymiser.of(shop).of_anonymous("c1")
    assert rows_of(shop, "SELECT 1 FROM profiles.user_profile WHERE user_id = :user", user=device) == []


def test_parity_compares_at_the_moment_told_though_its_event_has_moved_since(shop, tmp_path, monkeypatch):
    hours = [item_event(hour, user_id="", anonymous_id="c1", occurred_at=at(hour)) for hour in range(9, 22)]
    login = item_event(22, user_id="carla", anonymous_id="c1", occurred_at=at(10, minute=30))
    daily.run_day(TODAY, shop, path=str(write_file(tmp_path, "today.csv", [*hours, login])))
    monkeypatch.setattr("intent_platform.parity.LARGEST_BATCH", 1)
    report = check_parity(TODAY, shop)
    assert (report.users, report.users_differing) == (2, 0)


def test_a_batch_that_fails_leaves_everything_as_it_was(shop, monkeypatch):
    put(shop, today_event(1))
    before = content(shop)
    monkeypatch.setattr(nearline.queue, "keep_rejected", broken)
    with pytest.raises(ZeroDivisionError), db.connect(shop) as connection:
        take_one_batch(connection, shop)
    assert content(shop) == before
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted UNION ALL SELECT count(*) FROM inbox.event") == [
        (0,),
        (1,),
    ]


def broken(*_, **__):
    raise ZeroDivisionError


def take_one_batch(connection, settings) -> None:
    scorer = Scorer(settings=settings, clock=lambda: EVENING)
    release, promotion = training.current_release(settings)
    serving = nearline.Serving(release=release, promotion=promotion)
    try:
        nearline.take_batch(connection, serving, scorer._door_of(EVENING), settings, most=10, now=EVENING)
    finally:
        scorer.close()


def test_an_event_that_cannot_be_scored_is_set_aside_and_the_others_go_on(shop, monkeypatch):
    move = nearline.move_profiles

    def move_unless_poisoned(connection, release, fresh, *more):
        assert "t2" not in fresh["event_id"].to_pylist(), "poison"
        move(connection, release, fresh, *more)

    monkeypatch.setattr(nearline, "move_profiles", move_unless_poisoned)
    put(shop, *(today_event(number) for number in range(1, 5)))
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted ORDER BY 1") == [("t1",), ("t3",), ("t4",)]
    assert rows_of(shop, "SELECT broken_rule FROM inbox.rejected") == [("not_scorable",)]


def test_what_another_scorer_has_claimed_is_left_alone_and_found_when_it_lets_go(shop):
    put(shop, today_event(1), today_event(2))
    with db.connect(shop) as other:
        assert len(queue.claim(other, shop.shop, queue.EVERYTHING, most=1)) == 1
        drain(shop)
        assert rows_of(shop, "SELECT event_id FROM inbox.accepted") == [("t2",)]
        other.rollback()
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted ORDER BY 1") == [("t1",), ("t2",)]


def test_nearline_events_become_a_source_of_their_received_day_and_the_refresh_loses_none(shop, tmp_path):
    put(shop, today_event(1), today_event(2, event_type="hover"), today_event(3))
    drain(shop)
    file = write_file(tmp_path, "today.csv", [today_event(1), today_event(5, user_id="dora")])
    received, refreshed = daily.run_day(TODAY, shop, path=str(file))
    accounts = {each.file: (each.rows_read, each.accepted, each.quarantined) for each in received.accounts}
    assert accounts == {"inbox": (3, 2, 1), "today.csv": (2, 2, 0)}
    assert rows_of(shop, "SELECT rows, duplicate FROM quality.clean_day WHERE day = :day", day=TODAY) == [(3, 1)]
    assert refreshed.users == 2
    assert profile(shop, "anna", "source, events_1d, valid_at") == ("batch", 2, datetime(2026, 8, 22, tzinfo=UTC))


def test_a_refresh_of_a_day_before_keeps_what_came_nearline_since(shop):
    put(shop, today_event(1))
    drain(shop)
    before = content(shop)
    daily.refresh_profiles(YESTERDAY, shop)
    assert content(shop) == before


def test_a_late_event_is_told_as_of_what_was_told_before(shop):
    late = today_event(1, occurred_at=at(22, YESTERDAY))
    put(shop, today_event(2, user_id="emil"))
    drain(shop)
    put(shop, late)
    drain(shop)
    midnight = datetime(2026, 8, 21, tzinfo=UTC)
    assert profile(shop, "anna", "events_7d, last_event_at, valid_at") == (6, midnight - timedelta(hours=2), midnight)
    daily.refresh_profiles(YESTERDAY, shop)
    assert profile(shop, "anna", "events_7d") == (6,)


def test_a_refresh_loads_the_encoder_before_it_locks_a_shopper(shop, monkeypatch):
    put(shop, today_event(1, event_type="search", item_id="", query_text="a lamp that nobody asked for"))
    drain(shop)
    steps = []
    for owner, name in ((Encoder, "warm_up"), (meeting, "lock_states")):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, name=name, original=original: (steps.append(name), original(*given))[1]
        )
    daily.refresh_profiles(YESTERDAY, shop)
    assert steps == ["warm_up", "lock_states"]


def test_a_rerun_of_the_day_counts_its_nearline_events_once(shop):
    put(shop, today_event(1))
    drain(shop)
    for _ in range(2):
        daily.run_day(TODAY, shop)
    assert rows_of(shop, "SELECT rows, duplicate FROM quality.clean_day WHERE day = :day", day=TODAY) == [(1, 0)]


def test_a_days_replay_through_the_scorers_code_equals_the_batch(shop):
    put(shop, *(today_event(number, user_id=f"user-{number % 4}", anonymous_id="c9") for number in range(20)))
    put(shop, *(today_event(20 + number, user_id="", anonymous_id="c9") for number in range(9)))
    drain(shop)
    daily.run_day(TODAY, shop)
    report = check_parity(TODAY, shop)
    assert (report.users, report.events, report.users_differing) == (4, 29, 0)
    assert rows_of(shop, "SELECT count(*) FROM profiles.user_profile WHERE shop LIKE 'parity%'") == [(0,)]
    assert rows_of(shop, "SELECT users, users_differing FROM quality.parity") == [(4, 0)]


def test_a_difference_between_nearline_and_batch_is_found(shop, monkeypatch):
    put(shop, *(today_event(number) for number in range(4)))
    drain(shop)
    daily.run_day(TODAY, shop)
    monkeypatch.setattr("intent_platform.rescoring.recent", lambda rows, *_: rows_without_first(rows))
    with pytest.raises(ParityBroken, match="1 of 1 shoppers"):
        check_parity(TODAY, shop)


def rows_without_first(rows):
    return type(rows).of(rows.table.slice(1)) if len(rows) > 1 else rows


@pytest.mark.parametrize(
    ("by_batch", "differing", "reordered"),
    [
        ("a 0.5, b 0.3, c 0.300001, d 0.1", 0, 0),
        ("a 0.5, c 0.3, b 0.3, d 0.1", 0, 1),
        ("b 0.5, a 0.3, c 0.3, d 0.1", 1, 0),
        ("a 0.5, b 0.3, c 0.3, e 0.1", 0, 1),
        ("a 0.5, b 0.3, c 0.3, e 0.2", 1, 0),
        ("a 0.5, b 0.3, e 0.3, d 0.1", 1, 0),
        ("a 0.5, b 0.3, c 0.3", 1, 0),
        ("", 1, 0),
    ],
)
def test_of_items_that_score_the_same_either_may_come_first(shop, by_batch, differing, reordered):
    put(shop, today_event(1))
    drain(shop)
    told = {"parity.nearline": "a 0.5, b 0.3, c 0.3, d 0.1", "parity.batch": by_batch}
    with db.connect(shop) as connection:
        for name, listed in told.items():
            items = [dict(zip(("item_id", "score"), each.split(), strict=True)) for each in listed.split(", ") if each]
            items = [each | {"score": float(each["score"])} for each in items]
            connection.execute(
                sa.text(
                    "INSERT INTO profiles.user_profile SELECT (jsonb_populate_record(known, cast(:new AS jsonb))).* "
                    "FROM profiles.user_profile AS known WHERE known.shop = 'main'"
                ),
                {"new": json.dumps({"shop": name, "recommended_items": items})},
            )
        named = {"nearline": "parity.nearline", "batch": "parity.batch"}
        (row,) = db.query(connection, "parity_of_shops", **named, tolerance=TOLERANCE)
    assert (row["users_differing"], row["users_reordered"]) == (differing, reordered)


def test_many_shoppers_with_items_in_another_order_are_no_chance(shop, monkeypatch):
    put(shop, *(today_event(number, user_id=f"user-{number}") for number in range(4)))
    drain(shop)
    daily.run_day(TODAY, shop)
    best = "intent_platform.scoring.recommend._best"
    original = recommend._best

    def swapped(item, rank_key, *more):  # first and second item of each shopper, in batches of one shopper only
        user, place, column = original(item, rank_key, *more)
        return (user, place, column) if len(item) > 1 else (user, place, column[[1, 0, *range(2, len(column))]])

    monkeypatch.setattr(best, swapped)
    monkeypatch.setattr("intent_platform.parity.LARGEST_BATCH", 1)
    monkeypatch.setattr("intent_platform.parity.TOLERANCE", 1.0)  # so that all scores are the same
    with pytest.raises(ParityBroken, match=r"0 of 4 shoppers .* 4 more"):
        check_parity(TODAY, shop)


def test_a_heartbeat_says_who_scores_with_what(shop):
    put(shop, today_event(1), today_event(2, event_type="hover"))
    drain(shop)
    ((events, rejected, stopped_at, release_id),) = rows_of(
        shop, "SELECT events, rejected, stopped_at, release_id FROM nearline.worker"
    )
    assert (events, rejected, stopped_at) == (2, 1, EVENING)
    assert release_id.startswith("bootstrap-")


def test_a_running_scorer_takes_a_new_index_within_a_second_and_the_old_one_back(shop):
    with Follower(shop, "one", Tally(), lambda: EVENING) as follower:
        first = follower.serving
        publish(shop, items=catalogue().slice(0, 9))
        training.rebuild_index(shop, now=EVENING)
        assert seconds_until(lambda: len(follower.serving.release.index) == 9) < 1
        training.rollback(shop, reason="Test.", decided_by="test", clock=EVENING)
        assert seconds_until(lambda: follower.serving.release.release_id == first.release.release_id) < 1
        assert follower.serving.release.is_available.sum() == 9  # the catalogue is today's all the same


def test_a_scorer_that_a_newer_promotion_has_overtaken_keeps_no_event_it_may_not_tell(shop):
    put(shop, today_event(2))
    drain(shop)
    release, promotion = training.current_release(shop)
    outdated = nearline.Serving(release=release, promotion=promotion)
    publish(shop, items=catalogue().slice(0, 9))
    training.rebuild_index(shop, now=EVENING)
    daily.refresh_profiles(YESTERDAY, shop)  # the newer promotion tells anna as of her newest event
    put(shop, today_event(1))
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    for scorer._most in (1, 1_000):
        with pytest.raises(ReleaseMoved, match="1 of 1 shoppers were told by promotion 2"):
            scorer.take(outdated)
    scorer.close()
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(1,)]
    drain(shop)
    assert profile(shop, "anna", "events_1d, promotion_number") == (2, 2)


def seconds_until(is_so: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < 20
        time.sleep(0.01)
    return time.monotonic() - began


def test_put_refuses_what_is_no_object_and_takes_nothing(shop):
    with pytest.raises(sa.exc.DatabaseError, match="element 2 of 2 is no object"):
        put(shop, today_event(1), 5)
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(0,)]


def test_history_keeps_one_nearline_move_per_user_and_hour(shop):
    for minute in (1, 2, 3):
        put(shop, today_event(minute))
        drain(shop)
    put(shop, today_event(4, occurred_at=at(12)))
    drain(shop)
    moves = rows_of(shop, "SELECT as_of FROM profiles.user_profile_history WHERE source = 'nearline' ORDER BY 1")
    assert [each.hour for (each,) in moves] == [10, 12]


def test_a_partition_of_the_inbox_is_emptied_only_when_nothing_waits_in_it(shop):
    put(shop, today_event(1))
    rows_of(
        shop, "UPDATE inbox.event SET slot = (extract(epoch FROM clock_timestamp())::bigint / 60 + 2) % 4 RETURNING 1"
    )
    assert rows_of(shop, "SELECT inbox.rotate()") == [(0,)]
    drain(shop)
    assert rows_of(shop, "SELECT inbox.rotate()") == [(1,)]


def test_profiles_are_the_same_however_many_users_a_transaction_holds(shop, monkeypatch):
    put(shop, *(today_event(number, user_id=f"user-{number}") for number in range(6)))
    drain(shop)
    daily.run_day(TODAY, shop)
    whole = content(shop)
    rows_of(shop, "DELETE FROM profiles.user_profile RETURNING 1")
    monkeypatch.setattr(daily, "USERS_PER_TRANSACTION", 2)
    daily.refresh_profiles(TODAY, shop)
    assert content(shop) == whole


def test_a_server_that_goes_away_in_the_middle_is_not_the_events_fault(shop, monkeypatch):
    put(shop, today_event(1))

    def cut_off(connection, *more, **named):
        (pid,) = connection.execute(sa.text("SELECT pg_backend_pid()")).one()
        rows_of(shop, "SELECT pg_terminate_backend(:pid)", pid=pid)
        return claim(connection, *more, **named)

    claim = queue.claim
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    release, promotion = training.current_release(shop)
    serving = nearline.Serving(release=release, promotion=promotion)
    monkeypatch.setattr(queue, "claim", cut_off)
    with pytest.raises(DatabaseUnavailable):
        scorer.take(serving)
    scorer.close()
    monkeypatch.undo()
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted") == [("t1",)]


@pytest.mark.parametrize("step", ["claim", "keep_accepted"])  # a statement follows it; a COPY does
@pytest.mark.parametrize("most", [1, 1_000])
def test_a_scorer_that_was_stopped_for_too_long_gives_its_events_back_and_goes_on(shop, monkeypatch, step, most):
    put(shop, today_event(1))
    original = getattr(queue, step)

    def stopped(connection, *more, **named):
        result = original(connection, *more, **named) if step == "claim" else None
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
        time.sleep(0.2)
        return result if step == "claim" else original(connection, *more, **named)

    monkeypatch.setattr(queue, step, stopped)
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    scorer._most = most
    release, promotion = training.current_release(shop)
    with pytest.raises(DatabaseUnavailable):
        scorer.take(nearline.Serving(release=release, promotion=promotion))
    monkeypatch.undo()
    scorer.close()
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted") == [("t1",)]
    assert rows_of(shop, "SELECT count(*) FROM inbox.rejected") == [(0,)]


def test_a_batch_whose_scorer_stopped_while_reading_an_answer_is_ended_by_the_others(shop):
    put(shop, today_event(1), today_event(2))
    url = sa.make_url(shop.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    stopped = psycopg2.connect(url, async_=True)
    psycopg2.extras.wait_select(stopped)
    stopped.cursor().execute(
        "BEGIN; SELECT * FROM inbox.event FOR UPDATE; SELECT repeat('x', 1000000) FROM generate_series(1, 20)"
    )  # and nobody reads it
    seconds_until(lambda: rows_of(shop, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"))
    drain(shop)
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted") == [(0,)]
    with db.connect(shop) as connection:
        assert queue.end_stuck(connection, after_s=60) == 0
        assert queue.end_stuck(connection, after_s=0) == 1
    seconds_until(lambda: not rows_of(shop, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"))
    drain(shop)
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted") == [(2,)]
    stopped.close()


def test_the_watch_scores_what_waits_when_no_scorer_is_alive_and_says_so(shop):
    put(shop, today_event(1))
    with pytest.raises(NearlineUnwell, match="No scorer was alive: 1 waiting events"):
        watching.watch(shop, datetime.now(UTC))
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(0,)]


def test_the_watch_names_a_scorer_that_went_silent_and_is_content_with_one_that_stopped(shop):
    put(shop, today_event(1))
    drain(shop)
    assert watching.watch(shop, EVENING + timedelta(minutes=5)).dead == 0
    rows_of(shop, "UPDATE nearline.worker SET stopped_at = NULL RETURNING 1")
    with pytest.raises(NearlineUnwell, match="1 scorers went silent"):
        watching.watch(shop, EVENING + timedelta(minutes=5))


def test_the_watch_forgets_ids_only_when_they_could_come_no_more(shop):
    put(shop, today_event(1))
    drain(shop)
    watching.watch(shop, EVENING + timedelta(days=4))
    assert rows_of(shop, "SELECT count(*) FROM inbox.seen_event") == [(1,)]
    watching.watch(shop, EVENING + timedelta(days=5))
    assert rows_of(shop, "SELECT count(*) FROM inbox.seen_event") == [(0,)]


def test_a_refresh_keeps_events_that_came_after_their_received_day_was_validated(shop):
    put(shop, today_event(1))
    drain(shop)
    daily.run_day(TODAY, shop)
    put(shop, today_event(2))
    drain(shop)
    daily.refresh_profiles(TODAY, shop)
    assert profile(shop, "anna", "events_1d") == (2,)


def test_a_suspect_is_set_aside_itself_whatever_other_scorers_take_meanwhile(shop, monkeypatch):
    put(shop, today_event(1), today_event(2))
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    release, promotion = training.current_release(shop)
    serving = nearline.Serving(release=release, promotion=promotion)

    def poisoned(*_):
        monkeypatch.undo()
        scorer_beside = Scorer(settings=shop, clock=lambda: EVENING)
        scorer_beside.take(serving)
        scorer_beside.close()
        raise ZeroDivisionError

    monkeypatch.setattr(nearline, "move_profiles", poisoned)
    scorer._most = 1
    scorer.take(serving)
    scorer.close()
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted") == [("t2",)]
    assert rows_of(shop, "SELECT count(*) FROM inbox.rejected WHERE broken_rule = 'not_scorable'") == [(1,)]


def test_scorers_side_by_side_take_the_events_of_different_shoppers(shop):
    put(shop, *(today_event(number, user_id=f"u{number % 9}") for number in range(54)))
    shoppers = []
    with db.connect(shop) as one, db.connect(shop) as other:
        for part, connection in enumerate((one, other)):
            claimed = queue.claim(connection, shop.shop, queue.Look(part=part, parts=2), most=100)
            shoppers.append({row["user_id"] for row in claimed})
    assert shoppers[0].isdisjoint(shoppers[1])
    assert sorted(shoppers[0] | shoppers[1]) == [f"u{number}" for number in range(9)]
    assert all(shoppers)


def test_events_of_a_part_that_nobody_holds_are_found_by_the_next_look_at_everything(shop):
    put(shop, *(today_event(number, user_id=f"u{number}") for number in range(20)))
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    release, promotion = training.current_release(shop)
    serving = nearline.Serving(release=release, promotion=promotion)
    assert scorer._look(1, 3) == queue.EVERYTHING  # it has not looked yet
    assert 0 < scorer.take(serving, queue.Look(part=1, parts=3)) < 20
    assert scorer.take(serving, queue.Look(part=1, parts=3)) == 0
    scorer.take(serving, scorer._look(1, 3))
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(0,)]
    scorer.close()


def test_whoever_takes_over_shoppers_begins_with_their_oldest_event(shop):
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    scorer._swept_at, scorer._claims = time.monotonic(), deque([(0.0, 70)])
    assert scorer._look() == queue.Look(after=70)
    assert scorer._look(1, 3) == queue.Look(after=0, part=1, parts=3)


def test_a_bulk_that_became_visible_late_is_taken_in_one_go(shop, monkeypatch):
    monkeypatch.setattr(nearline, "EVENTS_PER_BATCH", 4)
    rows_of(shop, "SELECT setval('inbox.event_seq', 1000)")
    put(shop, today_event(40))
    release, promotion = training.current_release(shop)
    serving = nearline.Serving(release=release, promotion=promotion)
    scorer = Scorer(settings=shop, clock=lambda: EVENING, _most=4)
    assert scorer.take(serving) == 1
    scorer._claims.popleft()  # a second is over
    with db.connect(shop) as connection:
        statement = """
            INSERT INTO inbox.event (seq, event_id, event_type, occurred_at, user_id, item_id)
            VALUES (:seq, :event_id, :event_type, :occurred_at, :user_id, :item_id)
        """
        connection.execute(sa.text(statement), [{"seq": number, **today_event(number)} for number in range(1, 11)])
    assert scorer.take(serving, scorer._look()) == 0
    scorer._swept_at = float("-inf")
    assert [scorer.take(serving, scorer._look()) for _ in range(4)] == [4, 4, 2, 0]
    scorer.close()


def test_shoppers_are_divided_among_the_scorers_heard_of_lately(shop):
    clock = [EVENING]
    followers = [Follower(shop, name, Tally(), lambda: clock[0]) for name in ("a", "b", "c")]
    for each in (*followers, *followers):
        each._beat()
    assert [each.share for each in followers] == [(0, 3), (1, 3), (2, 3)]
    followers[0]._beat(is_last=True)
    clock[0] += timedelta(seconds=10)
    followers[1]._beat()  # and c is silent
    assert followers[1].share == (0, 1)
    followers[2]._beat()
    followers[1]._beat()
    assert [each.share for each in followers[1:]] == [(0, 2), (1, 2)]
    clock[0] += timedelta(hours=1)
    followers[2]._beat()
    clock[0] -= timedelta(hours=1)
    followers[1]._beat()  # c was heard of in the future: its clock is wrong
    assert followers[1].share == (0, 1)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_backlog_is_claimed_in_its_order_without_sorting_it(shop, parts):
    put(shop, today_event(1))
    statement = (resource_folder("sql") / "queries" / "claim_events.sql").read_text(encoding="utf-8")
    with db.connect(shop) as connection:
        connection.execute(
            sa.text("""
            INSERT INTO inbox.event (event_id, user_id) SELECT 'b' || n, 'u' || n FROM generate_series(1, 50000) AS n
        """)
        )
    with db.connect(shop) as connection:
        connection.execute(sa.text("ANALYZE inbox.event"))
        look = {"shop": shop.shop, "after": 0, "part": 0, "parts": parts, "most": 1_000}
        plan = "\n".join(connection.execute(sa.text(f"EXPLAIN {statement}"), look).scalars())
    assert "->  Sort" not in plan
    read_whole = [line for line in plan.splitlines() if "Seq Scan" in line]
    assert all("cost=0.00..0.00 " in line for line in read_whole), plan  # of partitions that are empty


def test_after_a_failure_batches_shrink_by_tenths_and_grow_again(shop, monkeypatch):
    put(shop, *(today_event(number) for number in range(1, 8)))
    release, promotion = training.current_release(shop)
    serving = nearline.Serving(release=release, promotion=promotion)
    scorer, asked, claim = Scorer(settings=shop, clock=lambda: EVENING), [], queue.claim

    def claim_and_note(*given, most):
        asked.append(most)
        return claim(*given, most=most)

    def move_unless_poisoned(connection, release, fresh, *more):
        assert "t3" not in fresh["event_id"].to_pylist(), "poison"
        move(connection, release, fresh, *more)

    move = nearline.move_profiles
    monkeypatch.setattr(queue, "claim", claim_and_note)
    monkeypatch.setattr(nearline, "move_profiles", move_unless_poisoned)
    while scorer.take(serving):
        pass
    scorer.close()
    assert asked == [1_000, 100, 10, 1, 2, 1, 2, 1, 2, 4, 8]
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted") == [(6,)]
    assert rows_of(shop, "SELECT broken_rule FROM inbox.rejected") == [("not_scorable",)]


def test_a_scorer_takes_one_thread_whatever_it_loads_later():
    told = """
from intent_platform import nearline
nearline.take_one_thread()
import faiss, torch
from threadpoolctl import threadpool_info
print(torch.get_num_threads(), faiss.omp_get_max_threads(), *{each["num_threads"] for each in threadpool_info()})
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    found = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1"] * 3


def test_two_scorers_drain_side_by_side(shop):
    now = str(datetime.now(UTC))
    put(shop, *(today_event(number, user_id=f"u{number % 7}", occurred_at=now) for number in range(200)))
    nearline.run(shop, workers=2, drain=True)
    assert rows_of(shop, "SELECT count(*), count(DISTINCT event_id) FROM inbox.accepted") == [(200, 200)]
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(0,)]
    assert rows_of(shop, "SELECT sum(events_1d) FROM profiles.user_profile WHERE source = 'nearline'") == [(200,)]
