"""Tuning the encoder: which pairs, what is learned, when the frozen encoder stays, how a release carries the tuned."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch
from model_shop import NOON, catalogue, history, many_histories

from intent_platform.errors import SettingInvalid
from intent_platform.model import parts, tuning
from intent_platform.model.behaviour import ModelCard, load_model, save_model
from intent_platform.model.examples import make_examples
from intent_platform.model.inputs import positions_of
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.rows import Rows
from intent_platform.model.text import find_encoder
from intent_platform.model.tuning import Pairs, pairs_of, tune_encoder
from intent_platform.sequences import Split
from intent_platform.settings import Settings

DAY = NOON.date()
TITLES = catalogue()["title"].to_pylist()
SPLIT = Split(train=(DAY - timedelta(days=1), DAY), validation=(DAY + timedelta(days=2),), test=())


def pairs_from(*tables: pa.Table) -> Pairs:
    rows = Rows.of(pa.concat_tables(tables))
    item = positions_of(catalogue()["item_id"].combine_chunks(), rows)
    train = make_examples(rows, item, SPLIT, Settings())["train"]
    return pairs_of(rows, item, train, TITLES, np.zeros(len(TITLES), np.int64))


def as_tuples(pairs: Pairs) -> list[tuple[str, str]]:
    return [(asked, TITLES[item]) for asked, item in zip(pairs.asked, pairs.item, strict=True)]


def one_session(*events: tuple, **given) -> pa.Table:
    table = history(*events, **given)
    began = pa.array([table["occurred_at"][0].as_py()] * table.num_rows, table["session_started_at"].type)
    return table.set_column(table.schema.get_field_index("session_started_at"), "session_started_at", began)


def test_a_search_pairs_with_the_first_item_after_it_and_a_history_with_the_next_other_item():
    rows = one_session((0.5, "search", "Warm  SHOES"), (0.4, "view", 0), (0.3, "view", 0), (0.2, "add_to_cart", 5))
    assert as_tuples(pairs_from(rows)) == [
        ("warm shoes", "red running shoes"),
        ("red running shoes", "wireless headphones"),
    ]


def test_a_history_names_its_newest_items_first_and_none_of_them_is_an_answer():
    found = pairs_from(one_session((4, "view", 0), (3, "view", 1), (2, "view", 2), (1, "view", 9)))
    assert as_tuples(found)[-1] == ("trail running shoes. blue running shoes", "steel frying pan")
    assert found.own[-1] == (1, 2)
    returned = pairs_from(one_session((3, "view", 0), (2, "view", 1), (1, "view", 0)))
    assert as_tuples(returned) == [("red running shoes", "blue running shoes")]


def test_a_search_without_an_item_of_its_own_makes_no_pair():
    assert not len(pairs_from(one_session((1, "search", "kettle"), (0.5, "search", "pan"))))
    assert not len(pairs_from(history((5, "search", "kettle"), (1, "view", 12))))  # another session
    other = one_session((0.5, "view", 12), user_id="u1_b")
    assert not len(pairs_from(one_session((1, "search", "kettle")), other))  # another shopper


def test_what_happens_from_the_validation_days_on_makes_no_pair():
    past = one_session((3, "search", "kettle"), (2, "view", 12), (1, "view", 9))
    future = one_session((3, "search", "knife"), (2, "view", 11), (1, "view", 0), at=NOON + timedelta(days=2))
    assert as_tuples(pairs_from(pa.concat_tables([past, future]))) == as_tuples(pairs_from(past))


def made_up_pairs(count: int = 400) -> Pairs:
    """Invented words, each of which always means one item: nothing that the frozen encoder could know."""
    chance = np.random.default_rng(5)
    item = chance.integers(0, len(TITLES), count)
    words = ["zorb", "quav", "mipl", "frost", "gant", "lurn", "opsi", "brek", "teld", "wixo", "yand", "dulk", "haff"]
    return Pairs(
        asked=[f"{words[each]} {number % 7}" for number, each in enumerate(item)],
        item=item,
        own=[()] * count,
        is_query=np.ones(count, bool),
        texts=TITLES,
        category=np.array([0] * 5 + [1] * 4 + [2] * 4),
    )


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(
        home=tmp_path_factory.mktemp("tuning"), device="cpu", threads=2, encoder_tuning="lora", encoder_tuning_steps=20
    )


@pytest.fixture(scope="module")
def tuned(settings):
    folder = settings.home / "tuned"
    return tune_encoder(made_up_pairs(), find_encoder(settings), settings, folder), folder


def test_tuning_learns_the_words_of_the_shop(settings, tuned):
    encoder, folder = tuned
    report = json.loads((folder / "tuning.json").read_text())
    assert report["is_kept"]
    assert report["tuned"]["query_mrr"] > report["frozen"]["query_mrr"] + 0.2
    assert encoder.digest == report["digest"] != find_encoder(settings).digest
    assert encoder.name.endswith("+lora")


def test_the_adapter_beside_gives_the_merged_weights(settings, tuned):
    from peft import PeftModel

    encoder, folder = tuned
    base = find_encoder(settings).load()
    with_adapter = replace(base, network=PeftModel.from_pretrained(base.network, folder / "adapter").eval())
    texts = ["zorb 1", *TITLES]
    np.testing.assert_allclose(with_adapter.embed(texts), encoder.load().embed(texts), atol=1e-5)
    named = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
    assert {"encoder/config.json", "encoder/model.safetensors", "encoder/tokenizer.json"} <= named
    assert not any(b"/" + settings.home.name.encode() in (folder / name).read_bytes() for name in named)


def test_equal_input_gives_equal_bytes(settings, tuned):
    folder = settings.home / "again"
    tune_encoder(made_up_pairs(), find_encoder(settings), settings, folder)
    assert parts.digest_of_folder(folder) == parts.digest_of_folder(tuned[1])


def test_a_training_that_was_interrupted_does_not_tune_again(settings, tuned, monkeypatch):
    monkeypatch.setattr(tuning, "Tuning", lambda *_: pytest.fail("tuned again"))
    again = tune_encoder(made_up_pairs(), find_encoder(settings), settings, tuned[1])
    assert again.digest == tuned[0].digest


def test_an_encoder_that_is_behind_on_the_newest_pairs_is_not_kept(settings, monkeypatch):
    monkeypatch.setattr(tuning.Tuning, "fit", lambda self: _spoil(self.network))
    frozen, pairs = find_encoder(settings), made_up_pairs()
    known = replace(pairs, asked=[f"a good {TITLES[each]}" for each in pairs.item])  # found without tuning
    found = tune_encoder(known, frozen, settings, settings.home / "spoilt")
    assert found is frozen
    report = json.loads((settings.home / "spoilt" / "tuning.json").read_text())
    assert report["reason"].startswith("query_")
    assert not (settings.home / "spoilt" / "encoder").exists()


def _spoil(network) -> int:
    with torch.no_grad():
        for name, each in network.named_parameters():
            if "lora_B" in name:
                each.normal_(std=3.0)
    return 1


def test_too_few_pairs_tune_nothing(settings):
    frozen = find_encoder(settings)
    assert tune_encoder(made_up_pairs(30), frozen, settings, settings.home / "few") is frozen
    assert "too_few_pairs: 30 of 200" in (settings.home / "few" / "tuning.json").read_text()


def test_adalora_chooses_among_weights_of_final_rank_only(settings):
    given = replace(settings, encoder_tuning="adalora")
    found = tune_encoder(made_up_pairs(), find_encoder(given), given, settings.home / "adalora")
    report = json.loads((settings.home / "adalora" / "tuning.json").read_text())
    assert report["is_kept"]
    assert report["best_step"] >= 12
    assert found.name.endswith("+adalora")
    rank = json.loads((settings.home / "adalora" / "adapter" / "adapter_config.json").read_text())["rank_pattern"]
    assert 0 < sum(sum(each) for each in rank.values()) <= 8 * len(rank)


def test_no_hard_negative_is_an_answer_to_its_text(settings):
    pairs = made_up_pairs(60)
    near = tuning.nearest_wrong(pairs, find_encoder(settings), pairs.answers())
    for asked, found in zip(pairs.asked, near, strict=True):
        right = pairs.answers()[asked]
        assert not right & set(found[: len(TITLES) - len(right)].tolist())


def test_a_release_brings_its_tuned_encoder_along(tuned, tmp_path):
    encoder, folder = tuned
    card = ModelCard(
        kind="bootstrap",
        purchase_scorer="none",
        item_scorer="popularity",
        intent_missing_reason="test",
        horizon_hours=24,
        window_events=50,
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        data_digests={},
        seed=7,
    )
    save_model(folder, card, fit_lexical(TITLES))
    digest = parts.publish_part(str(tmp_path / "lake"), "model", folder)
    elsewhere = Settings(home=tmp_path / "home", device="cpu", threads=2, encoder="none")
    model = load_model(str(tmp_path / "lake"), digest, elsewhere)
    assert model.text.encoder.digest == encoder.digest
    np.testing.assert_array_equal(model.text.encoder.encode(TITLES), encoder.encode(TITLES))


@pytest.mark.parametrize("given", [{"encoder_tuning": "qlora"}, {"encoder_tuning_steps": 3}])
def test_settings_that_make_no_sense_are_refused(given):
    with pytest.raises(SettingInvalid, match="INTENT_ENCODER_TUNING"):
        Settings(**given)


def test_a_training_with_tuning_makes_a_model_with_an_encoder_of_its_own(settings, tmp_path, monkeypatch):
    from intent_platform.model.candidate import TrainingInput, make_candidate

    monkeypatch.setattr(tuning, "behind_in", lambda *_: [])  # random shoppers teach nothing that would be kept
    given = replace(settings, home=tmp_path / "home", encoder_tuning_steps=10, max_epochs=1)
    days = [DAY - timedelta(days=each) for each in range(16)][::-1]
    split = Split(train=tuple(days[:8]), validation=tuple(days[9:11]), test=tuple(days[12:14]))
    rows = TrainingInput(
        rows=many_histories(150), items=catalogue(), split=split, data_digests={str(each): "" for each in days}
    )
    make_candidate(rows, tmp_path / "candidate", given)
    digest = parts.publish_part(str(tmp_path / "lake"), "model", tmp_path / "candidate" / "model")
    model = load_model(str(tmp_path / "lake"), digest, given)
    assert model.card.encoder.endswith("+lora")
    assert model.text.encoder.digest == model.card.encoder_digest != find_encoder(given).digest
