"""Events through the inbox: judged, counted once, told within the batch, and equal to what the batch says."""

import json
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pyarrow as pa
import pytest
import sqlalchemy as sa
from nearline_shop import (
    EVENING,
    TODAY,
    YESTERDAY,
    a_shop,
    at,
    content,
    drain,
    item_event,
    profile,
    put,
    rows_of,
    today_event,
    user,
)
from received import write_file

from intent_platform import daily, db, meeting, nearline, rescoring, training, watching
from intent_platform.errors import NearlineUnwell
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.events.quarantine import Place, Unsealer
from intent_platform.inbox.merging import Device
from intent_platform.inbox.states import OWNED_SCHEMA
from intent_platform.model.text import Encoder
from intent_platform.nearline import Scorer
from intent_platform.serving import load_serving
from intent_platform.settings import Settings


@pytest.fixture
def shop(settings, tmp_path):
    return a_shop(settings, tmp_path)


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

    def move_unless_poisoned(connection, release, fresh, *more, **named):
        assert "t2" not in fresh["event_id"].to_pylist(), "poison"
        move(connection, release, fresh, *more, **named)

    monkeypatch.setattr(nearline, "move_profiles", move_unless_poisoned)
    put(shop, *(today_event(number) for number in range(1, 5)))
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted ORDER BY 1") == [("t1",), ("t3",), ("t4",)]
    assert rows_of(shop, "SELECT broken_rule FROM inbox.rejected") == [("not_scorable",)]


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


def test_a_late_event_of_a_shopper_who_has_been_away_is_told_at_once(shop, tmp_path):
    """A refresh tells everyone, but moves the states of those alone who have new events."""
    put(shop, today_event(2, user_id="emil"))
    drain(shop)
    daily.run_day(TODAY, shop)
    for days in (1, 2):
        day = TODAY + timedelta(days=days)
        event = today_event(10 + days, user_id="emil", occurred_at=at(9, day))
        daily.run_day(day, shop, path=str(write_file(tmp_path, f"{day}.csv", [event])))
    told = profile(shop, "anna", "events_7d, valid_at")
    put(shop, today_event(3, occurred_at=at(22, TODAY + timedelta(days=2))))
    drain(shop, EVENING + timedelta(days=3))
    assert profile(shop, "anna", "events_7d, valid_at") == (told[0] + 1, told[1])
    state = "SELECT valid_at FROM nearline.user_state WHERE user_id = :anna"
    assert rows_of(shop, state, anna=user(shop, "anna")) == [(told[1],)]


def test_who_has_no_event_left_is_forgotten_and_not_scored(shop):
    serving = load_serving(shop)
    nobody = OWNED_SCHEMA.empty_table()
    found = rescoring.rescored(serving.release, nobody, {}, ["anna"], serving.stamp(EVENING, shop), shop)
    assert (found.profiles, found.gone) == (None, {"anna"})


def test_who_has_no_event_in_the_window_keeps_profile_and_state(shop):
    serving = load_serving(shop)
    event = {"user_id": "anna", "event_id": "e", "event_type": "view", "occurred_at": EVENING - timedelta(days=40)}
    events = pa.Table.from_pylist([dict.fromkeys(OWNED_SCHEMA.names) | event], schema=OWNED_SCHEMA)
    stamp = serving.stamp(EVENING, shop)
    found = rescoring.rescored(serving.release, events, {"anna": EVENING}, ["anna"], stamp, shop)
    assert (found.profiles, found.gone) == (None, set())


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_device_belongs_to_whom_it_belonged_last_in_whatever_order_its_events_come(shop, order):
    users = {1: "bert", 2: "anna", 3: "bert"}  # by minute
    told = [today_event(minute, anonymous_id="tablet", user_id=each) for minute, each in users.items()]
    for number in order:
        put(shop, told[number])
        drain(shop)
    put(shop, today_event(4, anonymous_id="tablet", user_id=""))
    drain(shop)
    assert profile(shop, "bert", "events_1d") == (3,)
    before = content(shop)
    daily.run_day(TODAY, shop)
    daily.refresh_profiles(TODAY, shop)
    assert profile(shop, "bert", "events_1d") == (3,)
    assert len(content(shop)) == len(before)


def test_a_refresh_forgets_states_and_devices_that_no_window_reaches(shop):
    put(shop, today_event(1, anonymous_id="tablet"), today_event(2, user_id="", anonymous_id="nobodys"))
    drain(shop)
    states, devices = "SELECT count(*) FROM nearline.user_state", "SELECT count(*) FROM nearline.device"
    moment = EVENING - timedelta(days=33)

    def forget() -> int:
        with db.connect(shop) as connection:
            moments = {"told_from": moment, "linked_from": moment}
            return db.query(connection, "forget_dormant", shop=shop.shop, most=10, **moments)[0]["forgotten"]

    assert forget() == 0
    rows_of(shop, "UPDATE nearline.user_state SET valid_at = valid_at - interval '40 days' RETURNING 1")
    assert [forget(), forget(), forget()] == [2, 1, 0]  # both states, then the device that was a shopper of its own
    assert (rows_of(shop, states), rows_of(shop, devices)) == ([(0,)], [(1,)])
    rows_of(shop, "UPDATE nearline.device SET linked_at[1] = linked_at[1] - interval '40 days' RETURNING 1")
    assert forget() == 1


def test_the_watch_keeps_accepted_events_until_the_lake_has_them(shop):
    put(shop, today_event(1))
    drain(shop)
    accepted = "SELECT count(*) FROM inbox.accepted"
    watching.watch(shop, EVENING + timedelta(days=1))  # the day may be validated yet
    with pytest.raises(NearlineUnwell, match="Nearline events of 2026-08-21 are not all in the lake"):
        watching.watch(shop, EVENING + timedelta(days=6))
    assert rows_of(shop, accepted) == [(1,)]
    daily.run_day(TODAY, shop)
    watching.watch(shop, EVENING + timedelta(days=6))
    assert rows_of(shop, accepted) == [(0,)]
    assert rows_of(shop, "SELECT rows FROM quality.clean_day WHERE day = :day", day=TODAY) == [(1,)]


def test_the_watch_keeps_no_accepted_event_longer_than_rejected_ones(shop):
    put(shop, today_event(1))
    drain(shop)
    watching.watch(shop, EVENING + timedelta(days=shop.quarantine_days + 1))
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted") == [(0,)]


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


def test_a_scorer_overtakes_a_refresh_that_is_scoring_and_neither_loses_what_the_other_knows(shop, monkeypatch):
    put(shop, today_event(1), today_event(2, user_id="emil"))
    drain(shop)
    scored = []

    def overtaken(release, events, told_until, wanted, *more):
        scored.append(len(wanted))
        if len(scored) == 1:
            put(shop, today_event(3))
            drain(shop)
        return rescored(release, events, told_until, wanted, *more)

    rescored = meeting.rescored
    monkeypatch.setattr(meeting, "rescored", overtaken)
    monkeypatch.setattr(rescoring, "rescored", lambda *given: scored.append(len(given[3])) or rescored(*given))
    daily.refresh_profiles(YESTERDAY, shop)
    assert scored == [2, 1, 1]  # those ahead, then one under lock by the scorer and one by the refresh
    assert profile(shop, "anna", "events_1d, events_7d") == (2, 7)
    assert profile(shop, "emil", "events_1d") == (1,)
    monkeypatch.undo()
    before = content(shop)
    drain(shop)
    daily.refresh_profiles(YESTERDAY, shop)
    assert content(shop) == before


def test_a_rerun_of_the_day_counts_its_nearline_events_once(shop):
    put(shop, today_event(1))
    drain(shop)
    for _ in range(2):
        daily.run_day(TODAY, shop)
    assert rows_of(shop, "SELECT rows, duplicate FROM quality.clean_day WHERE day = :day", day=TODAY) == [(1, 0)]


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


def test_the_watch_forgets_ids_only_when_they_could_come_no_more(shop):
    put(shop, today_event(1))
    drain(shop)
    daily.run_day(TODAY, shop)
    watching.watch(shop, EVENING + timedelta(days=4))
    assert rows_of(shop, "SELECT count(*) FROM inbox.seen_event") == [(1,)]
    watching.watch(shop, EVENING + timedelta(days=5))  # forgets the event
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
