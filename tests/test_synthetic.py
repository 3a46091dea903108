"""The invented shop: its files say what dirt.json says, and its posterior is what an observer can know, no more."""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from intent_platform.errors import SettingInvalid
from intent_platform.synthetic import Dirt, shop, write_shop
from intent_platform.synthetic.clock import TICK_MS, TICKS_PER_DAY, shop_ms, ticks_within, wall_ms
from intent_platform.synthetic.law import ACTIONS, BUYING, LONGEST_WAIT_TICKS, STAGES, STATES, make_law
from intent_platform.synthetic.posterior import purchase_within

FIRST_DAY = date(2026, 8, 1)
DAYS = 7
HORIZON_MS = 24 * 3_600_000
COLUMNS = (
    "event_id,event_type,occurred_at,user_id,anonymous_id,session_id,item_id,query_text,"
    "category,brand,price,currency,quantity,rating,order_id,device,market"
)
ACTION_OF_TYPE = {
    "view": "look", "click": "look", "search": "search", "add_to_cart": "add", "remove_from_cart": "remove",
    "purchase": "buy", "rating": "rate", "refund": "refund",
}  # fmt: skip
KINDS = (
    "clean", "late", "duplicate_in_file", "duplicate_from_earlier_file", "torn", "too_late", "future",
    "impossible_price", "unknown_event_type", "broken_encoding", "user_missing",
)  # fmt: skip


def to_ms(text):
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def first_ms():
    return to_ms(f"{FIRST_DAY}T00:00:00Z")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "out"
    write_shop(folder, first_day=FIRST_DAY, days=DAYS, users=700, seed=11)
    return folder


@pytest.fixture(scope="module")
def truth(out):
    rows = []
    for path in sorted((out / "truth").iterdir()):
        rows += pq.read_table(path).to_pylist()
    return {row["event_id"]: row for row in rows}


@pytest.fixture(scope="module")
def events(out, truth):
    """Clean events in order of time, each once, as read from the daily files."""
    found = {}
    for path in sorted((out / "events").iterdir()):
        text = path.read_bytes().decode("utf-8", errors="replace")
        for row in csv.DictReader(io.StringIO(text)):
            if row["event_id"] in truth and row["market"] is not None:
                found[row["event_id"]] = row
    return sorted(found.values(), key=lambda row: row["occurred_at"])


@pytest.fixture(scope="module")
def journeys(events):
    """Each shopper's events; the login event, which carries both ids, joins what came before it."""
    known_as = {e["anonymous_id"]: e["user_id"] for e in events if e["anonymous_id"] and e["user_id"]}
    by_shopper = defaultdict(list)
    for event in events:
        by_shopper[event["user_id"] or known_as.get(event["anonymous_id"], event["anonymous_id"])].append(event)
    return by_shopper


@pytest.fixture(scope="module")
def catalogue(out):
    with (out / "catalogue.csv").open(encoding="utf-8", newline="") as file:
        return {row["item_id"]: row for row in csv.DictReader(file)}


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def auc(label, score):
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    _, group = np.unique(score, return_inverse=True)
    ranks = (np.bincount(group, ranks) / np.bincount(group))[group]
    positives = label.sum()
    return (ranks[label].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives))


def test_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_shop(tmp_path / name, first_day=FIRST_DAY, days=2, users=60, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_shop_is_not_written_into_a_folder_in_use(out):
    with pytest.raises(SettingInvalid, match="is not empty"):
        write_shop(out, first_day=FIRST_DAY, days=1, users=1, seed=1)


def test_dirt_is_a_share(tmp_path):
    with pytest.raises(SettingInvalid, match=r"torn_ratio is 1\.5"):
        write_shop(tmp_path / "x", first_day=FIRST_DAY, days=1, users=1, seed=1, dirt=Dirt(torn_ratio=1.5))


def kind_of(line: bytes, day: date, seen_here: set[str], seen_before: set[str]) -> str:
    try:
        fields = next(csv.reader([line.decode()]))
    except UnicodeDecodeError:
        return "broken_encoding"
    if len(fields) != 17:
        return "torn"
    row = dict(zip(COLUMNS.split(","), fields, strict=True))
    if row["event_id"] in seen_here:
        return "duplicate_in_file"
    if row["event_id"] in seen_before:
        return "duplicate_from_earlier_file"
    seen_here.add(row["event_id"])
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    occurred_at = datetime.fromisoformat(row["occurred_at"])
    if occurred_at >= start + timedelta(days=1):
        return "future"
    if occurred_at < start - timedelta(hours=48):
        return "too_late"
    if not row["user_id"] and not row["anonymous_id"]:
        return "user_missing"
    if row["event_type"] not in ACTION_OF_TYPE:
        return "unknown_event_type"
    if row["price"] in ("-5.00", "1000000000000", "abc"):
        return "impossible_price"
    return "late" if occurred_at < start else "clean"


def test_files_hold_exactly_the_dirt_that_dirt_json_says(out):
    told = json.loads((out / "dirt.json").read_text(encoding="utf-8"))
    seen_before: set[str] = set()
    for path in sorted((out / "events").iterdir()):
        header, *lines = path.read_bytes().split(b"\n")[:-1]
        assert header.decode() == COLUMNS
        seen_here: set[str] = set()
        counted = Counter(kind_of(line, date.fromisoformat(path.stem), seen_here, seen_before) for line in lines)
        counted["clean"] += counted["late"]
        assert {kind: counted[kind] for kind in KINDS} == {kind: told[path.stem][kind] for kind in KINDS}
        assert told[path.stem]["rows_written"] == len(lines)
        seen_before |= seen_here
    quarantined = sum(day[kind] for day in told.values() for kind in KINDS[4:])
    assert 0.004 < quarantined / sum(day["rows_written"] for day in told.values()) < 0.006
    assert all(sum(day[kind] for day in told.values()) > 0 for kind in KINDS)


def test_every_clean_event_has_one_truth(out, truth, events):
    told = json.loads((out / "dirt.json").read_text(encoding="utf-8"))
    assert len(events) == len(truth) == sum(day["clean"] for day in told.values())
    for event in events:
        row = truth[event["event_id"]]
        assert row["user_id"] == (event["user_id"] or event["anonymous_id"])
        assert round(row["occurred_at"].timestamp() * 1000) == to_ms(event["occurred_at"])


def test_will_buy_is_a_purchase_strictly_later_within_the_horizon_in_another_order(journeys, truth):
    end_ms = first_ms() + DAYS * 86_400_000
    compared = 0
    for journey in journeys.values():
        purchases = [(to_ms(e["occurred_at"]), e["order_id"]) for e in journey if e["event_type"] == "purchase"]
        for event in journey:
            at = to_ms(event["occurred_at"])
            if at + HORIZON_MS >= end_ms:
                continue
            expected = any(
                at < bought_at <= at + HORIZON_MS and (event["event_type"] != "purchase" or order != event["order_id"])
                for bought_at, order in purchases
            )
            assert truth[event["event_id"]]["will_buy"] == expected
            compared += 1
    assert compared > 10_000


def test_posterior_follows_from_the_files_and_the_law_alone(journeys, truth, catalogue):
    law = make_law(0.8)
    within = purchase_within(law, TICKS_PER_DAY)[TICKS_PER_DAY]
    shelves = Shelves(catalogue)
    for journey in list(journeys.values())[:250]:
        for event_id, belief in watched(journey, law, shelves):
            assert truth[event_id]["posterior"] == pytest.approx(belief @ within, abs=1e-9)


class Shelves:
    """Each item's category, and its place there by price."""

    def __init__(self, catalogue):
        by_leaf = defaultdict(list)
        for item in catalogue.values():
            by_leaf[item["category"]].append((float(item["price"]), item["item_id"]))
        self.place = {}
        self.last = {}
        for leaf, items in by_leaf.items():
            for number, (_, item_id) in enumerate(sorted(items)):
                self.place[item_id] = (leaf, number)
            self.last[leaf] = len(items) - 1


def watched(journey, law, shelves):
    """Yield (event_id, P(state)) after each event, by the plain forward recursion, one shopper at a time."""
    belief, focus, cart, before, was_search = law.first, None, [], None, False
    for event in journey:
        if before is not None and event["order_id"] and before["occurred_at"] == event["occurred_at"]:
            yield event["event_id"], belief  # another row of the same order
            continue
        if before is not None:
            gap_ms = np.diff(shop_ms(np.array([to_ms(e["occurred_at"]) - first_ms() for e in (before, event)])))[0]
            ticks = round(gap_ms / TICK_MS)
            kind = sum(ticks > longest for longest in LONGEST_WAIT_TICKS)
            belief = (belief * law.wait[:, kind] * law.wait_ticks[kind][:, ticks]) @ law.next_state[kind]
            cart = cart if ticks <= 3 * TICKS_PER_DAY else []
        action = ACTION_OF_TYPE[event["event_type"]]
        seen = law.action[:, ACTIONS.index(action)].copy()
        if action == "look":
            seen += law.action[:, ACTIONS.index("add")] * (len(cart) == 4)
            seen += law.action[:, ACTIONS.index("remove")] * (len(cart) == 0)
            if focus and not was_search:
                seen *= relation_likelihood(law, shelves, focus, event["item_id"])
        elif action == "search":
            words = {1: ("cheap", "on sale", "便宜", "特价"), 2: ("buy", "in stock", "购买", "现货")}
            modifier = next((number for number, starts in words.items() if event["query_text"].startswith(starts)), 0)
            seen *= law.modifier[:, modifier]
        belief = belief * seen / (belief @ seen)
        yield event["event_id"], belief
        if action in ("look", "add"):
            focus = event["item_id"]
        if action == "add" and event["item_id"] not in cart:
            cart = [*cart, event["item_id"]]
        elif action == "remove":
            assert cart[0] == event["item_id"]
            cart = cart[1:]
        elif action == "buy":
            cart = []
        was_search, before = action == "search", event


def relation_likelihood(law, shelves, focus, item):
    same, cheaper, dearer, elsewhere = law.relation.T
    (leaf, place), (new_leaf, new_place) = shelves.place[focus], shelves.place[item]
    if leaf != new_leaf:
        return elsewhere
    if place == new_place:
        return same
    if new_place < place:
        return cheaper + dearer * (place == shelves.last[leaf])
    return dearer + cheaper * (place == 0)


def test_purchase_within_equals_the_plain_recursion():
    law, ticks = make_law(0.8), 800
    plain = np.zeros((ticks + 1, STATES))
    arriving = np.zeros((3, ticks + 1, STATES))
    buys = np.arange(STATES) % len(STAGES) == BUYING
    for tick in range(ticks + 1):
        for kind in range(3):
            waits = law.wait_ticks[kind][:, : tick + 1].T[1:]
            plain[tick] += law.wait[:, kind] * (waits * arriving[kind, :tick][::-1][: len(waits)]).sum(axis=0)
        for kind in range(3):
            arriving[kind, tick] = law.next_state[kind] @ np.where(buys, 1.0, plain[tick])
    np.testing.assert_allclose(purchase_within(law, ticks), plain, atol=1e-12)


def test_any_day_is_as_long_on_the_shops_clock_as_on_the_wall():
    at = np.random.default_rng(0).integers(0, 5 * 86_400_000, 1000)
    assert (ticks_within(at, 24) == TICKS_PER_DAY).all()
    assert abs(shop_ms(wall_ms(at)) - at).max() < 2


def test_every_table_of_the_law_sums_to_one():
    law = make_law(0.8)
    for table in (law.first, law.action, law.relation, law.modifier, law.wait, law.next_state, *law.wait_ticks):
        np.testing.assert_allclose(table.sum(axis=-1), 1.0)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Posterior, label and cart count of a shop large enough to measure on."""
    folder = tmp_path_factory.mktemp("big") / "out"
    summary = write_shop(folder, first_day=FIRST_DAY, days=10, users=3000, seed=5)
    table = pq.ParquetDataset(folder / "truth").read()
    return summary, table["posterior"].to_numpy(), table["will_buy"].to_numpy()


def test_posterior_is_calibrated(big):
    _, posterior, will_buy = big
    edges = np.quantile(posterior, np.linspace(0, 1, 21)[1:-1])
    group = np.searchsorted(edges, posterior)
    rows = np.bincount(group)
    off = abs(np.bincount(group, posterior) - np.bincount(group, will_buy)) / rows
    assert (off * rows).sum() / rows.sum() < 0.01  # events of one shopper hang together: not binomial
    assert abs(posterior.mean() - will_buy.mean()) < 0.01


def test_purchases_are_predictable_but_not_trivially(big):
    summary, posterior, will_buy = big
    assert 0.05 < will_buy.mean() < 0.15
    assert 0.80 < auc(will_buy, posterior) < 0.88
    assert summary.posterior_auc == pytest.approx(auc(will_buy, posterior), abs=1e-3)
    assert summary.will_buy_ratio == pytest.approx(will_buy.mean())


def test_cart_says_something_and_the_posterior_much_more(journeys, truth):
    added, posterior, label = [], [], []
    for journey in journeys.values():
        in_visit = Counter()
        for event in journey:
            in_visit[event["session_id"]] += event["event_type"] == "add_to_cart"
            added.append(in_visit[event["session_id"]])
            posterior.append(truth[event["event_id"]]["posterior"])
            label.append(truth[event["event_id"]]["will_buy"])
    by_cart, ceiling = auc(np.array(label), np.array(added)), auc(np.array(label), np.array(posterior))
    assert 0.53 < by_cart < ceiling - 0.15


def test_purchased_items_are_in_the_catalogue_and_were_mostly_seen_before(journeys, catalogue):
    seen_before = []
    for journey in journeys.values():
        seen = set()
        for event in journey:
            if event["event_type"] == "purchase":
                item = catalogue[event["item_id"]]
                assert (event["price"], event["category"]) == (item["price"], item["category"])
                assert event["order_id"]
                assert int(event["quantity"]) >= 1
                seen_before.append(event["item_id"] in seen)
            elif event["item_id"]:
                seen.add(event["item_id"])
    assert np.mean(seen_before) > 0.9


def test_some_orders_hold_several_items_at_one_moment(events):
    orders = defaultdict(list)
    for event in events:
        if event["event_type"] == "purchase":
            orders[event["order_id"]].append(event)
    assert any(len(rows) > 1 for rows in orders.values())
    for rows in orders.values():
        assert len({(row["occurred_at"], row["user_id"], row["session_id"]) for row in rows}) == 1
        assert len({row["item_id"] for row in rows}) == len(rows)


def test_anonymous_shoppers_log_in_by_one_event_that_carries_both_ids(events):
    links = [e for e in events if e["user_id"] and e["anonymous_id"]]
    users = {e["anonymous_id"]: e["user_id"] for e in links}
    assert len(users) > 10
    linked_at = {e["anonymous_id"]: e["occurred_at"] for e in links}
    alone = [e for e in events if e["anonymous_id"] and not e["user_id"]]
    assert {e["anonymous_id"] for e in alone} - set(users)  # some never log in
    assert all(e["occurred_at"] < linked_at[e["anonymous_id"]] for e in alone if e["anonymous_id"] in users)
    assert all(len({e["occurred_at"] for e in links if e["anonymous_id"] == device}) == 1 for device in users)


def is_chinese(text):
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


def test_titles_and_searches_are_english_and_chinese(catalogue, events):
    chinese = [is_chinese(item["title"].split(" ", 1)[1]) for item in catalogue.values()]
    assert 0.3 < np.mean(chinese) < 0.6
    queries = {event["query_text"] for event in events if event["event_type"] == "search"}
    assert "新款运动鞋" in queries
    assert any("headphones" in query for query in queries)
    assert any("," in query for query in queries)  # so that quoting matters


def test_a_search_for_sports_shoes_leads_to_sports_shoes(journeys):
    found = [
        after["category"]
        for journey in journeys.values()
        for before, after in pairwise(journey)
        if "运动鞋" in before["query_text"] and after["event_type"] in ("view", "click")
    ]
    assert len(found) > 20
    assert set(found) == {"sports.shoes.trainers"}


def test_items_show_up_only_once_they_are_on_sale(events, catalogue):
    new_later = {i["item_id"]: i["updated_at"] for i in catalogue.values() if i["updated_at"][:10] > str(FIRST_DAY)}
    seen = [e for e in events if e["item_id"] in new_later]
    assert seen
    assert all(event["occurred_at"] >= new_later[event["item_id"]] for event in seen)
    unavailable = {i["item_id"] for i in catalogue.values() if i["is_available"] == "false"}
    assert unavailable
    assert not unavailable & {event["item_id"] for event in events}


def test_taste_makes_the_next_item_predictable_beyond_popularity(journeys):
    looks = {
        who: [e["item_id"] for e in journey if e["event_type"] in ("view", "click")]
        for who, journey in journeys.items()
    }
    popular = {item for item, _ in Counter(item for items in looks.values() for item in items).most_common(10)}
    pairs = [(items[:n], items[n]) for items in looks.values() for n in range(5, len(items))]
    by_popularity = np.mean([item in popular for _, item in pairs])
    by_history = np.mean([item in dict(Counter(past).most_common(10)) for past, item in pairs])
    assert by_history > 3 * by_popularity


def test_memory_is_bounded_by_a_block_of_shoppers(tmp_path, monkeypatch):
    blocks = []
    simulate = shop.simulate
    monkeypatch.setattr(shop, "_USERS_PER_BLOCK", 50)
    monkeypatch.setattr(
        shop, "simulate", lambda world, users, seed: (blocks.append(users), simulate(world, users, seed))[1]
    )
    write_shop(tmp_path / "out", first_day=FIRST_DAY, days=1, users=120, seed=1)
    assert blocks == [range(0, 50), range(50, 100), range(100, 120)]
    assert not Path(tmp_path / "out" / ".shards").exists()
