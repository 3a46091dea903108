"""What score() gives: the columns, the windows, interests, recommendations; all with a real release."""

import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from model_shop import CATALOGUE, NOON, catalogue, history, many_histories

from intent_platform.scoring import recommend, score
from intent_platform.settings import Settings

PROFILE_COLUMNS = [
    "user_id", "last_event_at", "last_event_type", "events_1d", "events_7d", "events_30d", "views_7d", "searches_7d",
    "add_to_carts_7d", "purchases_30d", "spent_30d", "spent_currency", "purchase_intent", "intent_missing_reason",
    "intent_band", "top_categories", "price_low", "price_high", "price_currency", "valid_at",
]  # fmt: skip

SETTINGS = Settings(threads=2)


def one_profile(release, rows: pa.Table) -> dict:
    return score(release, rows, valid_at=NOON, settings=SETTINGS).profiles.to_pylist()[0]


def recommended(release, rows: pa.Table) -> list[dict]:
    return score(release, rows, valid_at=NOON, settings=SETTINGS).recommendations.to_pylist()


def test_profile_columns_are_the_agreed_ones(release):
    assert (
        score(release, history((1, "view", 0)), valid_at=NOON, settings=SETTINGS).profiles.column_names
        == PROFILE_COLUMNS
    )


def test_windows_end_at_valid_at_and_later_rows_are_not_seen(release):
    rows = history((-1, "purchase", 0), (0, "view", 1), (24, "view", 1), (23, "add_to_cart", 2), (200, "purchase", 3))
    profile = one_profile(release, rows)
    assert (profile["events_1d"], profile["events_7d"], profile["events_30d"]) == (2, 3, 4)
    assert (profile["views_7d"], profile["add_to_carts_7d"], profile["purchases_30d"]) == (2, 1, 1)
    assert profile["last_event_at"] == NOON
    assert profile["valid_at"] == NOON


def test_later_rows_change_nothing(release):
    early = history((5, "view", 0), (4, "add_to_cart", 1))
    late = history((5, "view", 0), (4, "add_to_cart", 1), (-1, "purchase", 1), (-2, "view", 7))
    one, two = (score(release, rows, valid_at=NOON, settings=SETTINGS) for rows in (early, late))
    assert one.profiles.equals(two.profiles)
    assert one.interests.equals(two.interests)
    assert one.recommendations.equals(two.recommendations)


def test_money_is_never_summed_across_currencies(release):
    rows = history(
        (5, "purchase", 0, {"price": 10.0, "currency": "EUR", "quantity": 2}),
        (4, "purchase", 1, {"price": 30.0, "currency": "EUR"}),
        (3, "purchase", 2, {"price": 900.0, "currency": "JPY"}),
    )
    profile = one_profile(release, rows)
    assert (profile["spent_30d"], profile["spent_currency"]) == (50.0, "EUR")


def test_a_log_without_currency_still_has_prices(release):
    rows = history(
        (5, "purchase", 0, {"price": 10.0, "currency": None}), (4, "view", 1, {"price": 20.0, "currency": None})
    )
    profile = one_profile(release, rows)
    assert (profile["spent_30d"], profile["spent_currency"]) == (10.0, None)
    assert (profile["price_low"], profile["price_high"], profile["price_currency"]) == (10.0, 20.0, None)


def test_bootstrap_intent_is_missing_with_its_reason(release):
    profile = one_profile(release, history((1, "view", 0)))
    assert profile["purchase_intent"] is None
    assert profile["intent_missing_reason"] == "too_few_mature_labels: 12 of 200"
    assert profile["intent_band"] == "unknown"


def test_interests_sum_to_one_and_recent_attention_counts_more(release):
    scores = score(release, history((1, "view", 0), (400, "view", 6)), valid_at=NOON, settings=SETTINGS)
    interests = scores.interests.to_pylist()
    assert [each["category"] for each in interests] == ["shoes.running", "electronics.audio"]
    assert sum(each["weight"] for each in interests) == pytest.approx(1.0)
    assert interests[0]["weight"] > 0.8
    assert scores.profiles["top_categories"][0].as_py()[0]["category"] == "shoes.running"


def test_an_event_without_category_counts_for_its_items_category(release):
    rows = history((1, "view", 9, {"category": None}))
    assert score(release, rows, valid_at=NOON, settings=SETTINGS).interests["category"].to_pylist() == ["home.kitchen"]


def test_equal_interests_come_by_name_whether_or_not_the_index_knows_them(release):
    names = ["a.unknown", "home.kitchen", "home.unknown", "home.unlisted", "shoes.running", "z.unknown"]
    rows = history(*((1, "view", 9, {"category": name}) for name in reversed(names)))
    assert score(release, rows, valid_at=NOON, settings=SETTINGS).interests["category"].to_pylist() == names


def test_popular_items_of_the_shoppers_category_come_first(release):
    first = recommended(release, history((1, "view", 9)))[:3]
    items = {row["item_id"]: row["category"] for row in catalogue().to_pylist()}
    assert [items[each["item_id"]] for each in first] == ["home.kitchen"] * 3
    assert first[0]["reason"] == "popular in home.kitchen"


def test_a_cart_left_alone_is_remembered_and_a_bought_one_is_not(release):
    assert recommended(release, history((2, "add_to_cart", 4)))[0]["origin"] == "recent"
    bought = recommended(release, history((2, "add_to_cart", 4), (1, "purchase", 4)))
    assert "i04" not in {each["item_id"] for each in bought}
    removed = recommended(release, history((2, "add_to_cart", 4), (1, "remove_from_cart", 4)))
    assert "recent" not in {each["origin"] for each in removed}


def test_a_search_alone_gives_items_that_fit_it(release):
    first = recommended(release, history((1, "search", "wireless headphones")))[0]
    assert (first["item_id"], first["origin"], first["reason"]) == ("i05", "text", "fits the last search")


def test_a_chinese_search_finds_by_characters(release):
    assert recommended(release, history((1, "search", "运动鞋")))[0]["item_id"] == "i03"


def test_nothing_that_is_sold_out_is_recommended(release):
    items = catalogue()
    sold_out = items.set_column(
        items.column_names.index("is_available"), "is_available", pc.starts_with(items["category"], "shoes")
    )
    rows = history((3, "add_to_cart", 9), (2, "view", 6), (1, "search", "coffee"))
    shown = {each["item_id"] for each in recommended(release.with_catalogue(sold_out), rows)}
    assert shown == {"i00", "i01", "i02", "i03", "i04"}


def test_a_shopper_of_one_unknown_event_still_gets_items(release):
    rows = history((1, "view", None, {"item_id": "never-seen", "category": "garden"}))
    shown = recommended(release, rows)
    assert len(shown) == SETTINGS.recommendations
    assert {each["reason"] for each in shown} == {"popular now"}


def consumables(release, **days: float):
    """The same release in a shop where items of some categories are bought again after so many days."""
    names = {name.split(".")[0]: each for name, each in days.items()}
    categories = [name.split(".")[0] for name in release.index.items["category"].to_pylist()]
    return_days = np.array([names.get(name, np.inf) for name in categories], np.float32)
    return replace(release, index=replace(release.index, return_days=return_days))


def test_a_consumable_comes_back_when_it_is_due_and_a_one_time_good_does_not(release):
    shop = consumables(release, home=10.0)
    rows = history((6 * 24, "purchase", 10), (11 * 24, "purchase", 9), (12 * 24, "purchase", 0))
    shown = {each["item_id"]: each for each in recommended(shop, rows)}
    assert (shown["i09"]["origin"], shown["i09"]["rank"]) == ("again", 1)
    assert shown["i09"]["reason"] == "time to buy it again"
    assert "i10" not in shown  # bought six days ago: four more to go
    assert "i00" not in shown
    assert "i09" not in {each["item_id"] for each in recommended(release, rows)}


def test_a_second_purchase_starts_the_days_again(release):
    rows = history((20 * 24, "purchase", 9), (2 * 24, "purchase", 9))
    assert "i09" not in {each["item_id"] for each in recommended(consumables(release, home=10.0), rows)}


def test_no_brand_and_no_category_crowds_the_list_while_there_is_something_else(release):
    rows = history((1, "view", 0), (2, "view", 1))
    few = replace(SETTINGS, recommendations=6, recommendations_per_brand=3, recommendations_per_category=2)
    shown = score(release, rows, valid_at=NOON, settings=few).recommendations["item_id"].to_pylist()
    items = {row["item_id"]: row for row in catalogue().to_pylist()}
    assert Counter(items[each]["category"] for each in shown) == dict.fromkeys(CATALOGUE, 2)
    assert Counter(items[each]["brand"] for each in shown).most_common(1)[0][1] <= 3
    all_there_is = replace(few, recommendations=13, recommendations_per_category=1)
    assert score(release, rows, valid_at=NOON, settings=all_there_is).recommendations.num_rows == 13


def test_what_is_of_no_brand_or_category_is_never_too_much():
    some_none, own = np.array([0, 1, -1, -1]), np.arange(4)
    for brand, category in ((some_none, own), (own, some_none)):
        user, place, column = recommend._best(
            np.array([[3, 2, 1, 0]]), np.array([[4.0, 3, 2, 1]]), np.ones((1, 4), bool), [(brand, 1), (category, 1)], 3
        )
        assert (user.tolist(), place.tolist(), column.tolist()) == ([0, 0, 0], [0, 1, 2], [0, 1, 2])


def test_no_item_twice_and_ranks_count_from_one(release):
    scores = score(release, many_histories(300), valid_at=NOON, settings=SETTINGS)
    table = scores.recommendations.to_pandas()
    assert not table.duplicated(["user_id", "item_id"]).any()
    assert (
        table.groupby("user_id")["rank"].apply(list)
        == table.groupby("user_id").size().map(lambda n: [*range(1, n + 1)])
    ).all()


def test_users_are_scored_alike_alone_and_together(release):
    rows = many_histories(40)
    together = score(release, rows, valid_at=NOON, settings=SETTINGS)
    for user in ("u1_00000000", "u1_00000017", "u1_00000039"):
        alone = score(release, rows.filter(pc.equal(rows["user_id"], user)), valid_at=NOON, settings=SETTINGS)
        for name in ("profiles", "interests", "recommendations"):
            of_user = getattr(together, name).filter(pc.equal(getattr(together, name)["user_id"], user))
            assert of_user.to_pylist() == getattr(alone, name).to_pylist()


def test_no_rows_give_empty_tables(release):
    scores = score(release, history((1, "view", 0)).slice(0, 0), valid_at=NOON, settings=SETTINGS)
    assert (scores.profiles.num_rows, scores.interests.num_rows, scores.recommendations.num_rows) == (0, 0, 0)
    future = score(release, history((1, "view", 0)), valid_at=NOON - timedelta(days=2), settings=SETTINGS)
    assert future.profiles.num_rows == 0


def test_one_shopper_is_scored_in_milliseconds_and_many_in_seconds(release):
    one = history((3, "view", 1), (2, "view", 1))
    score(release, one, valid_at=NOON, settings=SETTINGS)
    began = time.perf_counter()
    for _ in range(20):
        score(release, one, valid_at=NOON, settings=SETTINGS)
    assert (time.perf_counter() - began) / 20 < 0.02  # 1.3 ms on a quiet machine
    many = many_histories(20_000)
    began = time.perf_counter()
    assert score(release, many, valid_at=NOON, settings=SETTINGS).profiles.num_rows == 20_000
    assert time.perf_counter() - began < 5  # 0.4 s on a quiet machine
