"""Scorers side by side, overtaken, stopped, cut off, watched: each event is still told once."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue

import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy as sa
from model_shop import catalogue, publish
from nearline_shop import EVENING, TODAY, YESTERDAY, a_shop, drain, profile, put, rows_of, today_event

from intent_platform import daily, db, nearline, serving, training, watching
from intent_platform.errors import DatabaseUnavailable, NearlineUnwell, ReleaseInvalid, ReleaseMoved, ScorerFailed
from intent_platform.inbox import queue
from intent_platform.inbox.states import forget_states, lock_states
from intent_platform.nearline import Scorer
from intent_platform.paths import resource_folder
from intent_platform.serving import BatchReport, Follower, Tally


@pytest.fixture
def shop(settings, tmp_path):
    return a_shop(settings, tmp_path)


def test_what_another_scorer_has_claimed_is_left_alone_and_found_when_it_lets_go(shop):
    put(shop, today_event(1), today_event(2))
    with db.connect(shop) as other:
        assert len(queue.claim(other, shop.shop, queue.EVERYTHING, most=1)) == 1
        drain(shop)
        assert rows_of(shop, "SELECT event_id FROM inbox.accepted") == [("t2",)]
        other.rollback()
    drain(shop)
    assert rows_of(shop, "SELECT event_id FROM inbox.accepted ORDER BY 1") == [("t1",), ("t2",)]


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


def test_a_scorer_that_cannot_load_what_serves_keeps_late_events_for_the_refresh(shop, monkeypatch):
    def fail(_settings):
        raise ReleaseInvalid("No such release here.")

    put(shop, today_event(2))
    drain(shop)
    with (
        Follower(shop, "one", Tally(), lambda: EVENING) as follower,
        closing(Scorer(settings=shop, clock=lambda: EVENING)) as scorer,
    ):
        monkeypatch.setattr(serving, "load_serving", fail)
        publish(shop, items=catalogue().slice(0, 9))
        training.rebuild_index(shop, now=EVENING)
        daily.refresh_profiles(YESTERDAY, shop)
        assert seconds_until(lambda: follower.serving.is_behind) < 1
        put(shop, today_event(1), today_event(1, event_id="carlas", user_id="carla"))
        assert scorer.take(follower.serving) == 2
    assert profile(shop, "anna", "events_1d, promotion_number") == (1, 2)
    assert profile(shop, "carla", "events_1d, promotion_number") == (1, 1)
    daily.run_day(TODAY, shop)
    assert profile(shop, "anna", "events_1d, promotion_number") == (2, 2)


def seconds_until(is_so: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < 20
        time.sleep(0.01)
    return time.monotonic() - began


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


@pytest.mark.parametrize(("module", "step"), [(queue, "claim"), (nearline, "move")])  # then a statement; a commit
@pytest.mark.parametrize("most", [1, 1_000])
def test_a_scorer_that_was_stopped_for_too_long_gives_its_events_back_and_goes_on(
    shop, monkeypatch, module, step, most
):
    put(shop, today_event(1))
    original = getattr(module, step)

    def stopped(connection, *more, **named):
        result = original(connection, *more, **named)
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
        time.sleep(0.2)
        return result

    monkeypatch.setattr(module, step, stopped)
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


def test_the_watch_tells_why_what_waits_cannot_be_scored_and_forgets_all_the_same(shop, monkeypatch):
    put(shop, today_event(1))
    drain(shop)
    now = datetime.now(UTC)
    put(shop, today_event(2, occurred_at=now.isoformat()))
    monkeypatch.setattr(nearline, "MOST_SET_ASIDE", 0)
    monkeypatch.setattr(nearline, "move_profiles", lambda *_, **__: 1 // 0)
    with pytest.raises(NearlineUnwell, match="The newest 0 events could not be scored"):
        watching.watch(shop, now)
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(1,)]
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted") == [(0,)]


def test_the_watch_names_a_scorer_that_went_silent_and_is_content_with_one_that_stopped(shop):
    put(shop, today_event(1))
    drain(shop)
    assert watching.watch(shop, EVENING + timedelta(minutes=5)).dead == 0
    rows_of(shop, "UPDATE nearline.worker SET stopped_at = NULL RETURNING 1")
    with pytest.raises(NearlineUnwell, match="1 scorers went silent"):
        watching.watch(shop, EVENING + timedelta(minutes=5))


def test_a_scorer_that_was_started_since_stands_in_for_one_that_went_silent(shop):
    put(shop, today_event(1))
    drain(shop)
    rows_of(shop, "UPDATE nearline.worker SET stopped_at = NULL, worker = 'gone/1' RETURNING 1")
    later = EVENING + timedelta(minutes=5)
    with Follower(shop, "new/1", Tally(), lambda: later):
        assert watching.watch(shop, later + timedelta(seconds=1)).dead == 0
    assert watching.watch(shop, later + timedelta(minutes=5)).dead == 0  # though it has ended, in order
    assert watching.watch(shop, EVENING + timedelta(days=1, minutes=10)).dead == 0


def test_scorers_that_were_silent_for_a_week_are_forgotten_with_the_next_heartbeat(shop):
    for days, name in ((0, "box/1/aa"), (1, "box/1/bb"), (8, "box/1/cc")):
        now = EVENING + timedelta(days=days)
        with Follower(shop, name, Tally(), lambda now=now: now):
            pass
    assert rows_of(shop, "SELECT worker FROM nearline.worker ORDER BY 1") == [("box/1/bb",), ("box/1/cc",)]


def test_the_watch_of_a_shop_without_a_release_asks_for_a_day_and_not_for_workers(settings):
    settings = replace(settings, shop="other")
    put(settings, today_event(1))
    rows_of(settings, "UPDATE inbox.event SET put_at = :put_at RETURNING 1", put_at=EVENING)
    with pytest.raises(NearlineUnwell) as raised:
        watching.watch(settings, EVENING + timedelta(minutes=5))
    assert "Add workers" not in str(raised.value)
    assert "No release serves shop 'other' yet, so nothing can be scored: run `intent day` first." in str(raised.value)


def test_a_scorer_that_ended_with_an_error_is_dead_like_one_that_was_killed(shop):
    with pytest.raises(ZeroDivisionError), Follower(shop, "one", Tally(), lambda: EVENING):
        raise ZeroDivisionError
    assert rows_of(shop, "SELECT stopped_at FROM nearline.worker") == [(None,)]


def test_the_rejected_share_is_that_of_the_last_hour(shop):
    tally = Tally()
    for minutes, rejected in ((0, 0), (90, 8)):
        batch = BatchReport(claimed=10, accepted=10 - rejected, rejected=rejected)
        tally.add(batch, seconds=0.01, now=EVENING + timedelta(minutes=minutes))
    assert tally.of_last_hour(EVENING + timedelta(minutes=91)) == (10, 8)
    later = EVENING + timedelta(minutes=92)
    with Follower(shop, "one", tally, lambda: later):
        pass
    with pytest.raises(NearlineUnwell, match="8 of 10 events of the last hour were rejected"):
        watching.watch(shop, later)


def test_a_scorer_is_heard_of_while_the_lake_cannot_be_read(shop, monkeypatch):
    monkeypatch.setattr(serving, "BEAT_S", 0.05)
    monkeypatch.setattr(serving, "TIDY_S", 0.05)
    now = [EVENING]
    with Follower(shop, "one", Tally(), lambda: now[0]):
        (manifest,) = Path(shop.lake_root).rglob("manifest.json")
        manifest.write_text("{")
        time.sleep(0.5)
        now[0] += timedelta(seconds=1)
        beat = "SELECT 1 FROM nearline.worker WHERE beat_at > :began"
        assert seconds_until(lambda: rows_of(shop, beat, began=EVENING)) < 5


def test_a_scorer_stops_when_no_event_can_be_scored_and_the_rest_wait(shop, monkeypatch):
    monkeypatch.setattr(nearline, "MOST_SET_ASIDE", 3)
    put(shop, *(today_event(number) for number in range(5)))

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(nearline, "move_profiles", broken)
    for _ in range(2):  # nor does one that is started again set more aside
        with pytest.raises(ScorerFailed, match="The newest 3 events could not be scored"):
            drain(shop)
        assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(2,)]
    assert rows_of(shop, "SELECT DISTINCT broken_rule FROM inbox.rejected") == [("not_scorable",)]
    monkeypatch.undo()
    drain(shop)
    assert rows_of(shop, "SELECT count(*) FROM inbox.accepted") == [(2,)]


def test_a_state_that_is_forgotten_while_another_waits_for_it_is_locked_all_the_same(shop):
    with db.connect(shop) as first:
        lock_states(first, shop.shop, ["anna"])
    with db.connect(shop) as first:
        lock_states(first, shop.shop, ["anna"])
        locked = Queue()

        def wait_for_it() -> None:
            with db.connect(shop) as second:
                lock_states(second, shop.shop, ["anna"])
                locked.put(second.execute(sa.text("SELECT count(*) FROM nearline.user_state")).scalar_one())

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        seconds_until(lambda: rows_of(shop, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        forget_states(first, shop.shop, ["anna"])
    waiting.join()
    assert locked.get(timeout=5) == rows_of(shop, "SELECT count(*) FROM nearline.user_state")[0][0]
    assert rows_of(shop, "SELECT 1 FROM nearline.user_state WHERE user_id = 'anna'") == [(1,)]


def test_all_scorers_end_when_one_ends_with_an_error(shop):
    environment = {**os.environ, **replace(shop, encoder="no-such-encoder").as_environment()}
    command = [sys.executable, "-m", "intent_platform.cli", "nearline", "--workers", "2"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "scorers ended with an error" in ended.stderr + ended.stdout


def test_a_suspect_is_set_aside_itself_whatever_other_scorers_take_meanwhile(shop, monkeypatch):
    put(shop, today_event(1), today_event(2))
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    release, promotion = training.current_release(shop)
    serving = nearline.Serving(release=release, promotion=promotion)

    def poisoned(*_, **__):
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
    followers[0]._beat(has_ended=True)
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


def test_events_of_several_minutes_are_claimed_in_order_of_arrival(shop):
    put(shop, *(today_event(number) for number in range(8)))
    rows_of(shop, "UPDATE inbox.event SET slot = 3 - (seq / 2) % 4 RETURNING seq")  # as many partitions
    with db.connect(shop) as connection:
        seqs = [row["seq"] for row in queue.claim(connection, shop.shop, queue.EVERYTHING, most=6)]
    assert seqs == sorted(seqs)
    assert len(seqs) == 6


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

    def move_unless_poisoned(connection, release, fresh, *more, **named):
        assert "t3" not in fresh["event_id"].to_pylist(), "poison"
        move(connection, release, fresh, *more, **named)

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


def test_two_scorers_drain_side_by_side_and_their_lines_can_be_told_apart(shop, capfd):
    now = str(datetime.now(UTC))
    put(shop, *(today_event(number, user_id=f"u{number % 7}", occurred_at=now) for number in range(200)))
    nearline.run(shop, workers=2, drain=True)
    ready = re.findall(r"pid=(\d+) action=scorer_ready worker=\S+/(\d+)/", capfd.readouterr().err)
    assert len(set(ready)) == 2
    assert all(pid == named for pid, named in ready)
    assert rows_of(shop, "SELECT count(*), count(DISTINCT event_id) FROM inbox.accepted") == [(200, 200)]
    assert rows_of(shop, "SELECT count(*) FROM inbox.event") == [(0,)]
    assert rows_of(shop, "SELECT sum(events_1d) FROM profiles.user_profile WHERE source = 'nearline'") == [(200,)]
