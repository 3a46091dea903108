"""Index, text search and recall: real encoder, real FAISS."""

from dataclasses import replace

import numpy as np
import pytest
from model_shop import catalogue

from intent_platform.errors import NotEnoughData
from intent_platform.index.item_index import _build_faiss, build_index, exact, load_index, recall
from intent_platform.index.search import search
from intent_platform.model import parts
from intent_platform.settings import Settings


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
    assert wanted in [hit.item_id for hit in search(release, query, 3)]


@pytest.mark.parametrize("query", ["", "   ", "😀😀", "qzx", "x" * 100_000])
def test_search_always_answers(release, query):
    assert len(search(release, query, 5)) == 5


def test_search_leaves_out_what_is_sold_out(release):
    gone = replace(release, is_available=release.index.title != "blue running shoes")
    assert "i01" not in [hit.item_id for hit in search(gone, "blue running shoes", 13)]


def test_equal_input_gives_an_equal_index(release, tmp_path):
    for name in ("one", "two"):
        build_index(release.model, catalogue(), {"i00": 5.0}, Settings(threads=2), tmp_path / name)
    assert parts.digest_of_folder(tmp_path / "one") == parts.digest_of_folder(tmp_path / "two")


def test_an_empty_catalogue_is_refused_and_one_item_is_enough(release, tmp_path):
    with pytest.raises(NotEnoughData, match="no items to index"):
        build_index(release.model, catalogue().slice(0, 0), {}, Settings(), tmp_path / "empty")
    build_index(release.model, catalogue().slice(0, 1), {}, Settings(), tmp_path / "one")
    digest = parts.publish_part(str(tmp_path / "lake"), "index", tmp_path / "one")
    assert load_index(str(tmp_path / "lake"), digest, tmp_path).neighbours.tolist() == [[-1] * 20]


def test_items_are_not_their_own_neighbours(release):
    own = np.arange(len(release.index))[:, None]
    assert not (release.index.neighbours == own).any()


def test_an_inverted_file_is_measured_against_exact_search():
    chance = np.random.default_rng(5)
    centres = chance.normal(size=(60, 32))
    vectors = (centres[chance.integers(0, 60, 6_000)] + 0.3 * chance.normal(size=(6_000, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index, measured = _build_faiss(vectors, Settings(flat_index_max_items=1_000, threads=2))
    assert measured >= 0.99
    queries = vectors[:200]
    found = index.search(queries, 20)[1]
    by_hand = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found, exact(vectors, queries, 20), strict=True)])
    assert recall(vectors, queries, found) == pytest.approx(by_hand, abs=0.02)
    assert recall(vectors, queries, np.full((200, 20), -1)) == 0.0
