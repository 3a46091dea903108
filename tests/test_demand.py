"""What shoppers want, seen from clean days: popularity, consumables, searches, a sample of shoppers."""

from datetime import date, timedelta

import pyarrow as pa
import pytest
from model_shop import NOON, history, many_histories, publish

from intent_platform import db
from intent_platform.index import demand
from intent_platform.index.demand import read_demand
from intent_platform.lake import Lake

DAY = NOON.date()


def days_of(rows: pa.Table) -> dict[date, pa.Table]:
    days = sorted({moment.date() for moment in rows["occurred_at"].to_pylist()})
    at = pa.array([moment.date() for moment in rows["occurred_at"].to_pylist()])
    return {day: rows.filter(pa.compute.equal(at, day)) for day in days}


def purchases(shoppers: int, item: int, *days_ago: int) -> list[pa.Table]:
    """Shoppers who all buy one item on the same days."""
    return [
        history(*((24 * each, "purchase", item) for each in days_ago), user_id=f"u1_{item}_{number:03}")
        for number in range(shoppers)
    ]


def read(settings, day: date | None = None):
    return read_demand(Lake(settings.lake_root, settings.shop).snapshot(), day, settings)


def test_a_shop_without_days_has_no_demand(settings):
    publish(settings)
    found = read(settings)
    assert (found.until, found.popularity, found.queries, found.histories.num_rows) == (None, {}, [], 0)


def test_recent_attention_and_purchases_count_more(settings):
    rows = pa.concat_tables([history((0, "view", 0), (72, "view", 1), (0, "purchase", 2), (9 * 24, "view", 3))])
    publish(settings, days=days_of(rows))
    popularity = read(settings).popularity
    assert popularity["i00"] == pytest.approx(2 * popularity["i01"], rel=0.01)
    assert popularity["i02"] == pytest.approx(8 * popularity["i00"])
    assert "i03" not in popularity  # older than a week
    assert read(settings, DAY - timedelta(days=3)).until == DAY - timedelta(days=3)


def test_whether_and_when_buyers_return_is_learned_by_category(settings):
    pans, shoes, audio = purchases(30, 9, 25, 15, 12), purchases(30, 0, 20), purchases(3, 5, 12, 2)
    publish(settings, days=days_of(pa.concat_tables([*pans, *shoes, *audio])))
    found = read(settings)
    assert found.return_days["home.kitchen"] == 10.0  # the first return, 25 → 15 days ago
    assert found.return_days["shoes.running"] == float("inf")
    assert found.return_days["electronics.audio"] == 10.0  # three buyers tell nothing; those of the shop return
    assert found.return_days_of(pa.chunked_array([["garden", None]])).tolist() == [10.0, 10.0]


def test_a_few_purchases_prove_nothing(settings):
    publish(settings, days=days_of(pa.concat_tables(purchases(5, 9, 25, 15))))
    assert read(settings).return_days_of(pa.chunked_array([["home.kitchen"]])).tolist() == [float("inf")]


def test_one_shopper_is_not_twenty(settings):
    one = [history(*((24 * day, "purchase", item) for day in (12, 2)), user_id="u1_a") for item in range(9, 13)]
    publish(settings, days=days_of(pa.concat_tables(one * 6)))
    assert read(settings).return_days_otherwise == float("inf")


def test_two_purchases_on_one_day_are_one(settings):
    rows = pa.concat_tables([history((1, "purchase", 9), (2, "purchase", 9), user_id=f"u1_{n:03}") for n in range(40)])
    publish(settings, days=days_of(rows))
    assert read(settings).return_days == {"home.kitchen": float("inf")}


def test_the_same_searches_and_shoppers_are_taken_each_time(settings, monkeypatch):
    monkeypatch.setattr(demand, "SAMPLED", 25)
    searches = history(*((number, "search", f"Query  {number}") for number in range(20)), (20, "search", " "))
    rows = pa.concat_tables([many_histories(60), searches]).sort_by(
        [("user_id", "ascending"), ("occurred_at", "ascending"), ("event_id", "ascending")]
    )
    publish(settings, days=days_of(rows))
    lake = Lake(settings.lake_root, settings.shop)
    with db.connect(settings) as connection:
        db.exclusive(connection, "lake", settings.shop)
        sequences = {("sequences", f"day={DAY}"): [lake.write("sequences", f"day={DAY}", rows)]}
        lake.publish(sequences, based_on=lake.snapshot())
    one, two = read(settings), read(settings)
    assert len(one.histories["user_id"].unique()) == 25
    assert one.histories.equals(two.histories)
    assert one.queries == two.queries == sorted(f"query {number}" for number in range(20))
