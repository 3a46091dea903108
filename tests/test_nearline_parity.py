"""What nearline tells is what the batch tells, and a difference is found."""

import json

import pytest
import sqlalchemy as sa
from nearline_shop import TODAY, a_shop, at, drain, item_event, put, rows_of, today_event
from received import write_file

from intent_platform import daily, db
from intent_platform.errors import ParityBroken
from intent_platform.parity import TOLERANCE, check_parity
from intent_platform.scoring import recommend


@pytest.fixture
def shop(settings, tmp_path):
    return a_shop(settings, tmp_path)


def test_parity_compares_at_the_moment_told_though_its_event_has_moved_since(shop, tmp_path, monkeypatch):
    hours = [item_event(hour, user_id="", anonymous_id="c1", occurred_at=at(hour)) for hour in range(9, 22)]
    login = item_event(22, user_id="carla", anonymous_id="c1", occurred_at=at(10, minute=30))
    daily.run_day(TODAY, shop, path=str(write_file(tmp_path, "today.csv", [*hours, login])))
    monkeypatch.setattr("intent_platform.parity.LARGEST_BATCH", 1)
    report = check_parity(TODAY, shop)
    assert (report.users, report.users_differing) == (2, 0)


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
        ("a 0.5, b 0.9, c 0.3, d 0.1", 1, 0),
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
