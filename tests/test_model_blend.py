"""The learned blend: every candidate once, features that mean what they say, weights that follow the truth."""

import numpy as np
import scipy.sparse as sp

from intent_platform.model.blend import (
    FEATURES,
    Candidates,
    Sources,
    find_candidates,
    fit_blend,
    rank_candidates,
)
from intent_platform.model.neighbours import Runs

N = 12


def sources(wanted: np.ndarray, **given) -> Sources:
    prefixes = len(wanted)
    empty = sp.csr_matrix((prefixes, N), dtype=np.float32)
    vectors = np.eye(N, dtype=np.float32)
    blank = {"neighbours": empty, "rules": empty, "text": None, "popularity": np.ones(N)}
    return Sources(wanted=wanted, vectors=vectors, **{**blank, **given})


def test_candidates_come_from_every_source_once():
    wanted = np.zeros((2, N), np.float32)
    wanted[:, 3] = 1.0
    near = sp.csr_matrix(np.eye(2, N, k=3, dtype=np.float32) + 0.5 * np.eye(2, N, k=7, dtype=np.float32))
    found = find_candidates(Runs.of([[5, 3], [3, 9, 3]]), sources(wanted, neighbours=near), per_source=1)
    items = [sorted(set(row[row >= 0].tolist())) for row in found.item]
    assert items == [[3, 5], [3, 4, 9]]
    assert all((np.diff(row[row >= 0]) > 0).all() for row in found.item)


def test_features_name_what_the_session_holds_and_its_newest_item():
    found = find_candidates(Runs.of([[5, 3], [3]]), sources(np.zeros((2, N), np.float32)), per_source=N)
    held, newest = (found.features[..., FEATURES.index(name)] for name in ("is_in_prefix", "is_newest"))
    assert found.item[0][held[0] > 0].tolist() == [3, 5]
    assert found.item[0][newest[0] > 0].tolist() == [3]
    assert found.item[1][newest[1] > 0].tolist() == [3]


def test_weights_follow_the_truth_and_ignore_noise():
    chance = np.random.default_rng(5)
    features = chance.normal(size=(4_000, 20, len(FEATURES))).astype(np.float32)
    truth = np.array([1.5, 0.8, 0.0, 0.0, -0.5, 0.0, 0.0])
    utility = features @ truth + chance.gumbel(
        size=features.shape[:2]
    )  # whose greatest is a conditional logit's choice
    item = np.tile(np.arange(20), (4_000, 1))
    item[:, 0] = np.where(chance.random(4_000) < 0.5, -1, 0)  # some have a candidate less
    target = np.where(item >= 0, utility, -np.inf).argmax(axis=1)
    batches = [Candidates(item=item[part], features=features[part]) for part in (slice(0, 1_000), slice(1_000, None))]
    weights = fit_blend(batches, [target[:1_000], target[1_000:]])
    np.testing.assert_allclose(weights, truth, atol=0.1)
    best = rank_candidates(batches[0], weights)
    assert np.mean(best[:, 0] == target[:1_000]) > 0.4  # one of twenty by chance
    assert (best[item[:1_000, 0] < 0, -1] == -1).all()
