"""Next items by a release's blend: from the sessions that stand beside it, not from inside it."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from model_release import blend_release
from model_shop import NOON, history

from intent_platform.model.blend import FEATURES, Blend
from intent_platform.model.neighbours import Decays
from intent_platform.scoring import recommend, score
from intent_platform.settings import Settings

SETTINGS = Settings(threads=2)
PAN, HEADPHONES, KETTLE = 9, 5, 12


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    weights = dict.fromkeys(FEATURES, 0.0) | {"neighbours": 1.0, "is_newest": -10.0}
    blend = Blend(weights=weights, decays=Decays(), sessions_from=date(2026, 8, 1), sessions_until=date(2026, 8, 20))
    return blend_release(tmp_path_factory.mktemp("blend"), blend)


def test_the_network_looks_further_where_most_of_the_shop_is_sold_out(release):
    by_network = replace(release, model=replace(release.model, card=replace(release.model.card, item_scorer="network")))
    almost_gone = replace(by_network, is_available=np.isin(np.arange(13), [4, 11]))
    scores = score(almost_gone, history((1, "view", 0)), valid_at=NOON, settings=Settings(threads=2))
    shown = scores.recommendations.to_pylist()
    assert {(each["item_id"], each["origin"]) for each in shown} == {("i04", "next_item"), ("i11", "next_item")}


@pytest.mark.parametrize("scorer", ["network", "blend"])
def test_a_shop_where_nothing_is_for_sale_recommends_nothing(release, scorer):
    ranked_so = replace(release, model=replace(release.model, card=replace(release.model.card, item_scorer=scorer)))
    sold_out = replace(ranked_so.with_sessions(sessions((1, 2))), is_available=np.zeros(13, bool))
    assert score(sold_out, history((1, "view", 0)), valid_at=NOON, settings=SETTINGS).recommendations.num_rows == 0


def test_a_blend_ranks_what_is_for_sale_before_it_cuts(release, monkeypatch):
    monkeypatch.setattr(recommend, "NEXT_ITEMS", 2)
    last = replace(release.with_sessions(sessions((PAN, HEADPHONES, KETTLE))), is_available=np.arange(13) == KETTLE)
    shown = score(last, history((1, "view", PAN)), valid_at=NOON, settings=SETTINGS).recommendations.to_pylist()
    assert [(each["item_id"], each["origin"]) for each in shown] == [(f"i{KETTLE}", "next_item")]


def sessions(*of_users: tuple[int, ...]) -> pa.Table:
    """One session per user, each item viewed once."""
    began = NOON - timedelta(days=3)
    return pa.concat_tables(
        history(
            *((72 - place, "view", item, {"session_started_at": began}) for place, item in enumerate(items)),
            user_id=f"n{number}",
        )
        for number, items in enumerate(of_users)
    )


def next_items(release, *events) -> list[str]:
    """Item ids of one shopper's recommendations that come from what others touched next, best first."""
    found = score(release, history(*events), valid_at=NOON, settings=SETTINGS).recommendations.to_pylist()
    return [each["item_id"] for each in found if each["origin"] == "next_item"]


def test_what_others_touched_after_the_newest_item_comes_first(release):
    beside = release.with_sessions(sessions((PAN, HEADPHONES), (PAN, HEADPHONES), (PAN, KETTLE), (0, 1)))
    assert next_items(beside, (0.1, "view", PAN))[:2] == ["i05", "i12"]


def test_whoever_is_erased_from_the_lake_no_longer_speaks(release):
    beside = release.with_sessions(sessions((PAN, KETTLE), (0, 1)))
    assert next_items(beside, (0.1, "view", PAN))[0] == "i12"


def test_sessions_of_searches_and_empty_shops_are_ranked_by_the_network(release):
    beside = release.with_sessions(sessions((PAN, KETTLE)).slice(0, 0))
    assert set(next_items(beside, (0.1, "search", "pan"))) <= {f"i{number:02}" for number in range(13)}


def test_alone_and_together_a_shopper_gets_the_same(release):
    beside = release.with_sessions(sessions((PAN, HEADPHONES), (PAN, KETTLE)))
    one, two = history((0.1, "view", PAN), user_id="a"), history((0.1, "view", 0), (0.2, "view", 3), user_id="b")
    together, alone = (
        score(beside, rows, valid_at=NOON, settings=SETTINGS).recommendations
        for rows in (pa.concat_tables([one, two]), one)
    )
    assert together.slice(0, alone.num_rows).equals(alone)
