"""The learned blend: every candidate once, features that mean what they say, weights that follow the truth."""

from datetime import date

import numpy as np
import pytest

from intent_platform.model import blend, neighbours
from intent_platform.model.blend import (
    FEATURES,
    Blend,
    Candidates,
    Shop,
    find_candidates,
    fit_blend,
    place_of,
    rank_candidates,
)
from intent_platform.model.neighbours import Decays, Runs

N = 12
SESSIONS = Runs.of([[1, 2], [5, 3, 8], [0, 9]])


def shop() -> Shop:
    text = np.eye(N, dtype=np.float32)
    text[4] = text[3]
    return Shop.of(
        SESSIONS,
        Decays(),
        vectors=np.eye(N, dtype=np.float32),
        text_vectors=text,
        encoder_dimensions=0,
        near_by_text=np.where(np.arange(N) == 3, 4, -1)[:, None],
    )


def found_for(*prefixes: list[int]) -> tuple[Candidates, dict[str, np.ndarray]]:
    wanted = np.zeros((len(prefixes), N), np.float32)
    wanted[:, 7] = 2.0
    found = find_candidates(shop(), Runs.of(list(prefixes)), wanted, np.full((len(prefixes), 1), 7))
    return found, {name: found.features[..., place] for place, name in enumerate(FEATURES)}


@pytest.fixture(params=[neighbours.DENSE_ENTRIES, 0], ids=["whole tables", "sorted entries"])
def size(request, monkeypatch):
    for module in (blend, neighbours):
        monkeypatch.setattr(module, "DENSE_ENTRIES", request.param)
    monkeypatch.setattr(blend, "WHOLE_ITEMS", request.param)


@pytest.mark.usefixtures("size")
def test_candidates_come_from_every_source_once():
    found, _ = found_for([5, 3], [6, 6], [])
    items = [row[row >= 0].tolist() for row in found.item]
    # of the first: the session's own, the neighbour's, the rule's, one by text, the network's
    assert items == [[3, 4, 5, 7, 8], [6, 7], [7]]


@pytest.mark.usefixtures("size")
def test_features_say_where_a_candidate_comes_from():
    found, feature = found_for([5, 3], [3])
    place = {item: column for column, item in enumerate(found.item[0].tolist())}
    assert feature["network"][0, place[7]] == 2.0
    assert feature["neighbours"][0, place[8]] > feature["neighbours"][0, place[7]]
    assert feature["rules"][0, place[8]] > feature["rules"][0, place[5]]
    assert feature["letters"][0, place[4]] == 1.0
    assert 0.5 < feature["session_letters"][0, place[4]] < 1.0  # the newest item, diluted by the one before
    assert [item for item in place if feature["is_in_prefix"][0, place[item]]] == [3, 5]
    assert [item for item in place if feature["is_newest"][0, place[item]]] == [3]


def test_a_shop_of_few_items_and_one_of_many_find_alike(monkeypatch):
    chance = np.random.default_rng(7)
    items = 60
    asked = Shop.of(
        Runs.of([chance.integers(0, items, chance.integers(1, 9)).tolist() for _ in range(400)]),
        Decays(neighbours=20),
        vectors=chance.normal(size=(items, 4)).astype(np.float32),
        text_vectors=chance.normal(size=(items, 6)).astype(np.float32),
        encoder_dimensions=4,
        near_by_text=chance.integers(-1, items, (items, 3)),
    )
    prefixes = Runs.of([chance.integers(0, items, length).tolist() for length in (1, 5, 0, 9)])
    wanted, nearest = chance.normal(size=(4, 4)).astype(np.float32), chance.integers(0, items, (4, 5))
    few = find_candidates(asked, prefixes, wanted, nearest, per_source=10)
    monkeypatch.setattr(blend, "WHOLE_ITEMS", 0)
    many = find_candidates(asked, prefixes, wanted, nearest, per_source=10)
    assert few.item.shape[1] < items
    assert np.array_equal(few.item, many.item)
    np.testing.assert_allclose(few.features, many.features, atol=1e-5)


def test_weights_follow_the_truth_and_ignore_noise():
    chance = np.random.default_rng(5)
    features = chance.normal(size=(4_000, 20, len(FEATURES))).astype(np.float32)
    truth = np.array([1.5, 0.8, 0.0, 0.0, -0.5, 0.0, 0.0, 0.3, 0.0, 0.2])
    utility = features @ truth + chance.gumbel(
        size=features.shape[:2]
    )  # whose greatest is a conditional logit's choice
    item = np.tile(np.arange(20), (4_000, 1))
    item[:, 0] = np.where(chance.random(4_000) < 0.5, -1, 0)  # some have a candidate less
    target = np.where(item >= 0, utility, -np.inf).argmax(axis=1)
    batches = [Candidates(item=item[part], features=features[part]) for part in (slice(0, 1_000), slice(1_000, None))]
    weights = fit_blend(batches, [target[:1_000], target[1_000:]])
    np.testing.assert_allclose(weights, truth, atol=0.1)
    best, log_odds = rank_candidates(batches[0], weights)
    assert np.mean(place_of(target[:1_000], best, items=20) == 1) > 0.3  # 0.05 by chance
    assert (np.diff(log_odds[:, :-1], axis=1) <= 0).all()
    assert (best[item[:1_000, 0] < 0, -1] == -1).all()


def test_what_is_no_candidate_comes_last():
    ranked = np.array([[4, 2, -1], [3, 1, 0]])
    assert place_of(np.array([2, 7]), ranked, items=12).tolist() == [2, 12]


def test_a_blend_comes_back_from_its_file(tmp_path):
    weights = {name: float(number) for number, name in enumerate(FEATURES)}
    blend = Blend(
        weights=weights,
        decays=Decays(distance=6.0),
        sessions_from=date(2026, 8, 1),
        sessions_until=date(2026, 8, 21),
    )
    blend.save(tmp_path / "blend.json")
    assert Blend.load(tmp_path / "blend.json") == blend
    assert blend.weight.tolist() == list(range(len(FEATURES)))
