"""Index, text search and recall: real encoder, real FAISS."""

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
import torch
from model_release import blend_release
from model_shop import catalogue, many_histories

from intent_platform.errors import IndexInvalid, NotEnoughData
from intent_platform.index.build import build_index
from intent_platform.index.demand import Demand
from intent_platform.index.item_index import load_index
from intent_platform.index.nearest import WANTED_RECALL, Asked, Nearest, build_nearest
from intent_platform.index.search import NEAR_FLOOR, relevance, search
from intent_platform.model import parts
from intent_platform.model.blend import FEATURES, Blend
from intent_platform.model.neighbours import Decays
from intent_platform.settings import Settings

SETTINGS = Settings(threads=2)


def found(release, query: str, k: int = 5, **options) -> list[str]:
    return [hit.item_id for hit in search(release, query, k, **options).hits]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("新款运动鞋", "i03"),
        ("蓝牙耳机", "i08"),
        ("running shoe blue", "i01"),
        ("blutooth speeker", "i06"),
        ("something to boil water", "i12"),
    ],
)
def test_search_finds_by_meaning_by_letters_and_in_chinese(release, query, wanted):
    assert wanted in found(release, query, 3)


@pytest.mark.parametrize("query", ["", "   ", "😀😀", "qzx", "x" * 10_000_000, "under 3", "\x00\ud800 shoes"])
def test_search_always_answers(release, query):
    assert len(found(release, query)) == 5


def test_an_answer_says_what_it_could_not_do(release):
    assert search(release, "😀").notes == ["Nothing fits; these items are popular."]
    assert "only its first 1,000 letters" in search(release, "x" * 2_000).notes[0]
    assert search(release, "red running shoes", 1).notes == []
    gone = replace(release, is_available=np.zeros(len(release.index), bool))
    assert search(gone, "shoes").notes == ["Nothing is for sale."]


def test_an_encoder_is_trusted_as_far_as_it_knows_the_letters(release):
    # To the English encoder all Chinese looks alike: 无线耳机 would be close to 新款 as well.
    scores = relevance(release, ["鼠标", "mouse"])
    assert scores[0].max() < NEAR_FLOOR
    assert relevance(release, ["无线"])[0].argmax() == 8
    assert relevance(release, ["运动"])[0].argmax() == 3


def test_search_leaves_out_what_is_sold_out(release):
    gone = replace(release, is_available=release.index.title != "blue running shoes")
    assert "i01" not in found(gone, "blue running shoes", 13)


def test_items_within_the_price_range_come_first(release):
    assert set(found(release, "running shoes", 3)) == {"i00", "i01", "i02"}  # 10, 11 and 12 EUR
    assert found(release, "running shoes over 11.50", 3)[0] == "i02"
    answer = search(release, "running shoes under 10.50", 3)
    assert [hit.fits_price for hit in answer.hits] == [True, False, False]
    assert "2 of them lie outside the price range" in answer.notes[-1]
    dollars = search(release, "running shoes under 10.50 usd", 1)
    assert [hit.fits_price for hit in dollars.hits] == [True]
    assert "Prices are in EUR, not USD" in dollars.notes[0]
    assert search(release, "under 11", 2).notes == ["The query says no more than a price; these items are popular."]


@pytest.mark.parametrize("k", [0, -1])
def test_less_than_one_item_cannot_be_asked_for(release, k):
    with pytest.raises(ValueError, match="ask for 1 item or more"):
        search(release, "shoes", k)


def test_a_named_category_and_the_shoppers_interests_lift_an_item(release):
    assert {"i10", "i11", "i12"} <= set(found(release, "headphones kitchen", 6))  # no letter of theirs is asked for
    assert set(found(release, "audio", 4)) == {"i05", "i06", "i07", "i08"}
    assert found(release, "black steel")[0] == "i07"
    assert found(release, "black steel", interests={"home.kitchen": 0.9})[0] == "i09"


def test_equal_input_gives_an_equal_index(release, tmp_path):
    for name in ("one", "two"):
        build_index(release.model, catalogue(), Demand(popularity={"i00": 5.0}), SETTINGS, tmp_path / name)
    assert parts.digest_of_folder(tmp_path / "one") == parts.digest_of_folder(tmp_path / "two")


def test_an_empty_catalogue_is_refused_and_one_item_is_enough(release, tmp_path):
    with pytest.raises(NotEnoughData, match="no items to index"):
        build_index(release.model, catalogue().slice(0, 0), Demand(), SETTINGS, tmp_path / "empty")
    build_index(release.model, catalogue().slice(0, 1), Demand(), SETTINGS, tmp_path / "one")
    digest = parts.publish_part(str(tmp_path / "lake"), "index", tmp_path / "one")
    index = load_index(str(tmp_path / "lake"), digest, replace(SETTINGS, home=tmp_path))
    assert index.neighbours.tolist() == [[-1] * 20]
    assert (index.passport.items, index.passport.recall_at_20) == (1, 1.0)


def test_an_item_that_is_there_twice_is_refused_by_name(release, tmp_path):
    doubled = pa.concat_tables([catalogue(), catalogue().slice(4, 2)])
    with pytest.raises(IndexInvalid, match="2 item ids are there more than once, 'i04' among them"):
        build_index(release.model, doubled, Demand(), SETTINGS, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_vectors_that_are_no_numbers_are_refused_by_item(release, tmp_path, monkeypatch):
    def broken(_model, _items, text_vectors):
        text_vectors[3:5, 7] = np.nan, np.inf
        return text_vectors

    monkeypatch.setattr(type(release.model), "item_vectors", broken)
    with pytest.raises(IndexInvalid, match="2 of 13 item vectors hold NaN or infinity, that of item 'i03' among them"):
        build_index(release.model, catalogue(), Demand(), SETTINGS, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_question_of_another_size_is_refused(release):
    with pytest.raises(ValueError, match=r"of shape \(1, 3\); this index takes \(Q, 448\)"):
        release.index.by_vector.search(np.zeros((1, 3), np.float32), 5)


def test_a_file_cut_short_is_refused(tmp_path):
    index, _ = build_nearest(clustered(500), np.zeros((0, 32), np.float32), SETTINGS)
    index.save(tmp_path / "whole.faiss")
    (tmp_path / "cut.faiss").write_bytes((tmp_path / "whole.faiss").read_bytes()[:20_000])
    with pytest.raises(IndexInvalid, match="not a whole FAISS index"):
        Nearest.load(tmp_path / "cut.faiss", "flat", memory_mib=100, threads=1)


def test_items_are_not_their_own_neighbours(release):
    own = np.arange(len(release.index))[:, None]
    assert not (release.index.neighbours == own).any()


def test_an_index_of_a_network_is_measured_on_shoppers_and_on_searches(tmp_path):
    day = date(2026, 8, 20)
    blend = Blend(weights=dict.fromkeys(FEATURES, 1.0), decays=Decays(), sessions_from=day, sessions_until=day)
    release = blend_release(tmp_path, blend)
    demand = Demand(histories=many_histories(40), queries=["running shoes", "运动鞋", "kettle"])
    build_index(release.model, catalogue(), demand, SETTINGS, tmp_path / "measured")
    digest = parts.publish_part(str(tmp_path / "lake"), "index", tmp_path / "measured")
    index = load_index(str(tmp_path / "lake"), digest, replace(SETTINGS, home=tmp_path))
    assert (index.passport.questions, index.passport.text_questions) == (20, 1)  # the other half adjusted it
    assert index.passport.dimensions == release.model.network.shape.width
    assert index.passport.least_recall == 1.0
    assert index.vectors.shape != index.text_vectors.shape


# Indices above the flat kind


def clustered(items: int, *, seed: int = 5, spread: float = 0.3) -> np.ndarray:
    """float32 (items, 32) of unit length, around 60 centres."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(60, 32))
    vectors = centres[chance.integers(0, 60, items)] + spread * chance.normal(size=(items, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


LARGE = Settings(flat_index_max_items=1_000, threads=2)
NOBODY = np.zeros((0, 32), np.float32)


@pytest.mark.parametrize(("spread", "kind"), [(0.3, "lists"), (30.0, "codes")])
def test_lists_are_used_where_questions_lie_in_few_of_them_and_recall_is_what_is_said(spread, kind):
    vectors = clustered(6_000, spread=spread)
    index, measured = build_nearest(vectors, NOBODY, LARGE)
    assert (index.kind, len(index)) == (kind, 6_000)
    assert measured.recall_at_20 >= WANTED_RECALL - 0.01
    questions = clustered(300, seed=6, spread=spread)
    scores, positions = index.search(questions, 20)
    truth = np.argsort(-(questions @ vectors.T), axis=1, kind="stable")[:, :20]
    by_hand = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(positions, truth, strict=True)])
    assert Asked.of(vectors, questions).recall(positions) == pytest.approx(by_hand, abs=0.01)
    assert by_hand > 0.95
    assert Asked.of(vectors, questions).recall(np.full((300, 20), -1)) == 0.0
    assert np.allclose(scores[:, 0], (questions * vectors[positions[:, 0]]).sum(axis=1), atol=1e-5)


def test_an_index_is_the_same_when_built_again_and_when_read_in_pages(tmp_path):
    vectors = clustered(6_000)
    for name in ("one", "two"):
        index, _ = build_nearest(vectors, NOBODY, LARGE)
        index.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    questions = clustered(50, seed=6)
    for memory_mib in (100, 0):
        read = Nearest.load(tmp_path / "one", index.kind, memory_mib=memory_mib, threads=1)
        assert np.array_equal(read.search(questions, 20)[1], index.search(questions, 20)[1])
        assert np.array_equal(read.vectors, vectors)


def test_a_changed_catalogue_lives_on_the_codes_of_the_day_before():
    before, first = build_nearest(clustered(6_000), NOBODY, LARGE)
    changed = np.concatenate([clustered(6_000)[500:], clustered(300, seed=8)])
    after, second = build_nearest(changed, NOBODY, LARGE, before)
    assert (first.is_trained, second.is_trained) == (True, False)
    assert len(after) == 5_800
    assert np.array_equal(after.vectors, changed)
    assert second.recall_at_20 >= WANTED_RECALL - 0.01
    assert len(before) == 6_000


def test_codes_are_learned_again_when_they_find_too_little_or_the_catalogue_grew_a_lot():
    before, _ = build_nearest(clustered(2_000, spread=0.01), NOBODY, LARGE)
    chance = np.random.default_rng(1)
    elsewhere = chance.normal(size=(3_900, 32)).astype(np.float32)
    _, drifted = build_nearest(elsewhere, NOBODY, LARGE, before)
    _, grown = build_nearest(clustered(6_000), NOBODY, LARGE, before)
    assert (drifted.is_trained, grown.is_trained) == (True, True)
    assert drifted.recall_at_20 >= WANTED_RECALL - 0.01


@pytest.mark.parametrize("items", [1, 2, 15, 1_500])
def test_few_or_equal_vectors_make_an_index(items):
    same = np.ones((items, 32), np.float32)
    index, _ = build_nearest(same, NOBODY, replace(LARGE, flat_index_max_items=0))
    assert index.search(same[:1], 5)[0].tolist() == [[32.0] * min(items, 5)]


@pytest.mark.parametrize("share", [0.5, 0.99, 1.0])
def test_items_without_text_do_not_spoil_what_is_measured(share):
    vectors = clustered(6_000)
    vectors[: int(share * 6_000)] = 0.0
    index, measured = build_nearest(vectors, vectors[:50], LARGE)
    assert measured.recall_at_20 >= WANTED_RECALL - 0.01
    assert (measured.questions, len(index)) == (0, 6_000)


def test_vectors_of_an_odd_width_are_scanned_exactly():
    index, _ = build_nearest(clustered(6_000)[:, :31].copy(), np.zeros((0, 31), np.float32), LARGE)
    assert index.kind == "flat"


def test_a_paged_index_lends_no_codes(tmp_path):
    built, _ = build_nearest(clustered(6_000), NOBODY, LARGE)
    built.save(tmp_path / "index.faiss")
    before = Nearest.load(tmp_path / "index.faiss", built.kind, memory_mib=0, threads=1)
    after, measured = build_nearest(clustered(6_000, seed=9), NOBODY, LARGE, before)
    assert (measured.is_trained, len(after)) == (True, 6_000)


def test_asking_leaves_the_threads_of_others_alone():
    index, _ = build_nearest(clustered(500), NOBODY, SETTINGS)
    torch.set_num_threads(2)
    index.search(clustered(1), 5)
    assert torch.get_num_threads() == 2


def test_near_texts_come_in_one_order_however_many_are_asked_at_once():
    chance = np.random.default_rng(3)
    vectors = chance.standard_normal((1_000, 384)).astype(np.float32)
    vectors = np.concatenate([vectors, vectors + chance.standard_normal(vectors.shape).astype(np.float32) * 1e-7])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index, _ = build_nearest(vectors, np.zeros((0, 384), np.float32), SETTINGS)
    questions = vectors[chance.integers(len(vectors), size=1_200)]

    def differing(search) -> int:
        apart = np.concatenate([search(each[None]) for each in questions])
        return int((search(questions) != apart).any(axis=1).sum())

    assert differing(lambda asked: index.search_apart(asked, 10)) == 0
    assert differing(lambda asked: index.search(asked, 10)[1]) > 0
