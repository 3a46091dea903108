"""What a scorer's log says while something is away: little, and enough."""

import logging
import time
from dataclasses import replace
from types import SimpleNamespace

import psycopg2
import pytest
from nearline_shop import EVENING, a_shop

from intent_platform import db, nearline, serving
from intent_platform.errors import DatabaseUnavailable, LakeUnavailable, ReleaseMoved
from intent_platform.inbox import outage, queue
from intent_platform.inbox.outage import Outage
from intent_platform.nearline import Scorer
from intent_platform.serving import Follower, Tally

AWAY = DatabaseUnavailable("Postgres at here failed: no route.", "Mend INTENT_DATABASE_URL, run again.")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = SimpleNamespace(s=1_000.0)
    monkeypatch.setattr(outage, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_failures_are_told_at_once_and_then_every_ten_seconds_whoever_meets_them(clock, caplog):
    told = Outage()
    for _ in range(12):
        told.tell("cannot_follow", AWAY, is_away=True)
        told.tell("bell_lost", psycopg2.OperationalError("gone\nfor good"))
        clock.s += 1.0
    failed = 'error="Postgres at here failed: no route." then=tries_again'
    assert caplog.messages == [f"action=cannot_follow {failed} untold=0", f"action=cannot_follow {failed} untold=19"]


def test_postgres_is_told_to_be_back_once_and_only_where_it_was_away(clock, caplog):
    caplog.set_level(logging.INFO)
    told = Outage()
    told.tell("batch_postponed", ReleaseMoved("A newer one.", "Run the step again."))
    told.is_over()
    told.tell("cannot_follow", AWAY, is_away=True)
    clock.s += 3.5
    told.is_over()
    told.is_over()
    assert caplog.messages == [
        'action=batch_postponed error="A newer one." then=tries_again untold=0',
        'action=cannot_follow error="Postgres at here failed: no route." then=tries_again untold=0',
        "action=database_back away_s=3.5 untold=0",
    ]


def test_what_else_fails_is_told_though_something_fails_all_the_time(caplog):
    told = Outage()
    for _ in range(3):
        told.tell("cannot_follow", LakeUnavailable("The lake is away."))
    told.tell("cannot_follow", ZeroDivisionError("by none"))
    assert "by none" in caplog.text
    assert len(caplog.messages) == 2


def test_what_nobody_foresaw_is_told_with_its_traceback(caplog):
    try:
        raise ZeroDivisionError("by none")
    except ZeroDivisionError as error:
        Outage().tell("cannot_follow", error)
    assert "Traceback" in caplog.text


def test_a_command_tells_the_advice_that_a_scorers_log_leaves_out(settings):
    address = "postgresql+psycopg2://intent:secret@127.0.0.1:1/intent"
    with pytest.raises(DatabaseUnavailable) as raised, db.connect(replace(settings, database_url=address)):
        pass
    assert str(raised.value).endswith("start the server or mend INTENT_DATABASE_URL, then run the step again.")
    assert raised.value.what.startswith("Postgres at postgresql+psycopg2://intent:***@127.0.0.1:1/intent failed: ")
    assert "mend" not in raised.value.what


def test_a_scorer_says_when_it_is_ready_and_when_postgres_is_back(settings, tmp_path, monkeypatch, caplog):
    shop = a_shop(settings, tmp_path)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(serving, "LOOK_S", 0.01)
    monkeypatch.setattr(serving, "BEAT_S", 0.02)
    failing, current = iter([AWAY] * 5), serving.current_promotion

    def away_for_a_while(given):
        if error := next(failing, None):
            raise error
        return current(given)

    monkeypatch.setattr(serving, "current_promotion", away_for_a_while)
    with Follower(shop, "box/1/ab", Tally(), lambda: EVENING) as follower:
        release, until = follower.serving.release.release_id, time.monotonic() + 20
        while "database_back" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
    assert f"action=scorer_ready worker=box/1/ab release={release}" in caplog.messages
    assert "database_back" in caplog.text
    assert caplog.text.count("cannot_follow") == 1


def test_the_bell_and_the_batches_share_what_the_follower_has_told(settings, tmp_path, monkeypatch, caplog):
    shop = a_shop(settings, tmp_path)
    scorer = Scorer(settings=shop, clock=lambda: EVENING)
    failing = iter((AWAY, AWAY))

    def deaf(_):
        raise psycopg2.OperationalError("no route")

    def take(*_):
        if error := next(failing, None):
            raise error
        scorer.stop.set()
        return 0

    monkeypatch.setattr(scorer, "take", take)
    monkeypatch.setattr(queue.Bell, "_listening", deaf)
    scorer.run()
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        'action=batch_postponed error="Postgres at here failed: no route." then=tries_again untold=0'
    ]


def test_two_processes_of_one_host_and_number_have_two_names(monkeypatch):
    first = nearline.worker_name()
    monkeypatch.setattr(nearline, "_PROCESS", "ffffff")
    assert nearline.worker_name() != first
    assert nearline.worker_name().split("/")[:-1] == first.split("/")[:-1]
