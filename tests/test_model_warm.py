"""A training that begins with the champion's weights: what is carried, and when it may be."""

import copy
import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch
from model_shop import NOON, catalogue, many_histories
from test_model_training import SPLIT

import intent_platform.model.train as train
from intent_platform import training
from intent_platform.lake import Lake
from intent_platform.model import candidate, parts
from intent_platform.model.behaviour import load_model, save_model
from intent_platform.model.candidate import TrainingInput, fit, make_candidate
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.network import BehaviourNetwork
from intent_platform.model.text import TextTower, find_encoder
from intent_platform.model.train import FORMS, Form, train_network, validation_losses
from intent_platform.model.warm import CHAMPIONS_SHARE, learn_on_from, why_cold
from intent_platform.sequences import Split
from intent_platform.settings import Settings

FORM = Form(width=32, dropout=0.1, temperature=16.0)
DAY = NOON.date()
EARLY = Split(
    train=tuple(DAY - timedelta(days=each) for each in range(19, 13, -1)),
    validation=(DAY - timedelta(days=12), DAY - timedelta(days=11)),
    test=(DAY - timedelta(days=9), DAY - timedelta(days=8)),
)


def walks(seed: int, items: pa.Table) -> pa.Table:
    """Shoppers who go from each item to the next in the catalogue's order."""
    rows = many_histories(150, seed=seed)
    start = np.random.default_rng(seed).integers(0, items.num_rows, 150).repeat(20)
    item = (start + np.tile(np.arange(20), 150)) % items.num_rows
    for name in ("item_id", "category", "price"):
        values = items[name].combine_chunks().take(pa.array(item))
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def grown() -> pa.Table:
    """The catalogue with one item more, in a category that nobody had seen, before all others."""
    rows = catalogue().to_pylist()
    new = rows[0] | {"item_id": "a-new-item", "category": "books", "title": "a novel about running"}
    return pa.Table.from_pylist([new, *rows], schema=catalogue().schema)


def given(seed: int, split: Split, items: pa.Table, **more) -> TrainingInput:
    """What a training reads, and has looked at: the days up to the split's last."""
    days = [split.train[0] + timedelta(days=each) for each in range((split.test[-1] - split.train[0]).days + 2)]
    known = {day.isoformat(): "a digest" for day in days}
    return TrainingInput(rows=walks(seed, items), items=items, split=split, data_digests=known, **more)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("warm"), threads=1, max_epochs=3, device="cpu", encoder="none")


@pytest.fixture(scope="module")
def champion(settings):
    """A model of the early days, and the lake's root that holds it."""
    root, folder = str(settings.home / "lake"), settings.home / "champion"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("intent_platform.model.candidate.FORMS", (FORM,))
        make_candidate(given(1, EARLY, catalogue()), folder, settings)
    return load_model(root, parts.publish_part(root, "model", folder / "model"), settings), root


@pytest.fixture(scope="module")
def later(settings):
    """The later days of a grown shop, as candidate.prepare reads them."""
    from intent_platform.model.candidate import prepare

    return prepare(given(2, SPLIT, grown()), settings.home / "later", settings)


@pytest.fixture
def begun(champion, later, settings, tmp_path):
    """Networks of the later days before their first step: cold, and warm."""
    model, _ = champion
    earlier = learn_on_from(model, later.text, later.texts, settings)
    unlearned = replace(settings, max_epochs=0)
    return [
        train_network(later.material, tmp_path / name, unlearned, forms=(FORM,), earlier=each)
        for name, each in (("cold", None), ("warm", earlier))
    ]


def test_a_warm_start_begins_far_below_a_cold_one_in_next_items_and_level_in_purchases(begun, later, settings):
    cold, warm = (validation_losses(each, later.material, settings) for each in begun)
    print(cold, warm, sep="\n")
    assert warm["next_item"] < 0.6 * cold["next_item"]
    assert warm["category"] < 0.8 * cold["category"]
    assert warm["buys"] == cold["buys"]


def test_items_and_categories_are_carried_by_name_and_new_ones_begin_as_ever(begun, champion):
    model, _ = champion
    cold, warm = begun
    known: BehaviourNetwork = model.network
    assert "a-new-item" in warm.known_items
    assert "a-new-item" not in known.known_items
    for item_id, number in warm.id_number.items():
        own = cold.tower.id.weight[number]
        before = known.tower.id.weight[known.id_number[item_id]] if item_id in known.id_number else own
        torch.testing.assert_close(warm.tower.id.weight[number], torch.lerp(own, before, CHAMPIONS_SHARE))
    places = {name: (warm.shape.categories.index(name) + 1) for name in warm.shape.categories}
    for layer in ("tower.category.weight", "to_category.weight", "to_category.bias"):
        now, before, fresh = (each.state_dict()[layer] for each in (warm, known, cold))
        torch.testing.assert_close(now[0], torch.lerp(fresh[0], before[0], CHAMPIONS_SHARE))
        torch.testing.assert_close(now[places["books"]], fresh[places["books"]])
        for name in known.shape.categories:
            theirs = before[known.shape.categories.index(name) + 1]
            torch.testing.assert_close(now[places[name]], torch.lerp(fresh[places[name]], theirs, CHAMPIONS_SHARE))


def test_a_text_says_the_same_to_the_network_after_its_letters_were_fitted_anew(champion, settings):
    model, _ = champion
    titles = catalogue()["title"].to_pylist()
    anew = TextTower(encoder=find_encoder(settings), lexical=fit_lexical([*titles, *(f"{each} xl" for each in titles)]))
    earlier = learn_on_from(model, anew, titles, settings)
    before, now = model.text.vectors(titles), anew.vectors(titles)
    weight = model.network.query.weight.detach().numpy()
    said, says = before @ weight.T, now @ (weight @ earlier.turn.T).T
    unturned = now @ weight.T
    assert np.abs(says - said).max() < 0.02 * np.abs(said).max()
    assert np.abs(unturned - said).max() > 0.5 * np.abs(said).max()
    same = learn_on_from(model, model.text, titles, settings)
    np.testing.assert_array_equal(same.turn, np.eye(len(same.turn)))


def test_a_stopped_warm_training_goes_on_and_ends_the_same(champion, later, settings, tmp_path, monkeypatch):
    model, _ = champion
    earlier = learn_on_from(model, later.text, later.texts, settings)

    def trained(name: str) -> BehaviourNetwork:
        return train_network(later.material, tmp_path / name, settings, forms=(FORM,), earlier=earlier)

    whole, again = trained("whole"), trained("again")
    calls = []
    original = train._one_epoch

    def once(*arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_one_epoch", once)
        with pytest.raises(KeyboardInterrupt):
            trained("stopped")
    for resumed in (again, trained("stopped")):
        for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_the_candidates_card_names_the_champion_that_its_network_began_as(champion, settings, monkeypatch):
    monkeypatch.setattr("intent_platform.model.candidate.FORMS", (FORM,))
    model, root = champion
    assert model.card.started_from is None
    wanted = given(2, SPLIT, grown(), champion=model.digest, root=root)
    make_candidate(wanted, settings.home / "candidate", settings)
    card = json.loads((settings.home / "candidate" / "model" / "model.json").read_text())
    assert card["started_from"] == model.digest


def test_what_was_fitted_on_validation_days_was_fitted_before_the_refit_learned_them(champion, settings, monkeypatch):
    monkeypatch.setattr(candidate, "FORMS", (FORM,))
    model, root = champion
    seen = {}

    def fit_blend(network, *_):
        seen["blend"] = network

    def refit(_, network, *more):
        seen["before"], seen["earlier"], seen["after"] = network, more[-1], copy.deepcopy(network)
        return seen["after"]

    monkeypatch.setattr(candidate, "_fit_blend", fit_blend)
    monkeypatch.setattr(candidate, "refit_next_items", refit)
    wanted = given(2, SPLIT, grown(), champion=model.digest, root=root)
    contenders, _ = fit(wanted, settings.home / "refitted", settings)
    assert seen["blend"] is seen["before"]
    assert contenders.network is seen["after"]
    assert seen["earlier"].digest == model.digest


def test_a_champion_whose_form_is_tried_no_more_makes_room_for_those_that_are(champion, settings, caplog):
    model, root = champion
    wanted = given(2, SPLIT, grown(), champion=model.digest, root=root)
    with caplog.at_level("INFO"):
        contenders, _ = fit(wanted, settings.home / "other", replace(settings, max_epochs=1))
    assert contenders.started_from is None
    assert "The champion has a form that is tried no more" in caplog.text
    assert contenders.network.shape.width in {form.width for form in FORMS}


def test_a_champion_that_saw_the_validation_days_is_not_learned_on_from(champion, settings, caplog):
    model, root = champion
    again = given(1, EARLY, catalogue(), champion=model.digest, root=root)
    with caplog.at_level("INFO"):
        contenders, _ = fit(again, settings.home / "again", replace(settings, max_epochs=1))
    assert contenders.started_from is None
    assert "cold_start" in caplog.text
    assert "The champion has looked at days up to 2026-08-14, and validation begins with 2026-08-09" in caplog.text


REASONS = {
    "INTENT_WARM_START is off": lambda model, text, settings: (model, text, replace(settings, warm_start=False)),
    "There is no champion": lambda _, text, settings: (None, text, settings),
    "The champion has no network": lambda model, text, settings: (replace(model, network=None), text, settings),
    "The champion predicts within 24 h instead of 48 h": lambda model, text, settings: (
        model,
        text,
        replace(settings, horizon_hours=48),
    ),
    "window_events 50 instead of 40": lambda model, text, settings: (model, text, replace(settings, window_events=40)),
    "with another encoder, 'none'": lambda model, text, settings: (
        model,
        replace(text, encoder=replace(text.encoder, digest="another")),
        settings,
    ),
    "text_dimensions 64 instead of 32": lambda model, text, settings: (
        model,
        replace(text, lexical=fit_lexical(["some", "texts", "more"], dimensions=32)),
        settings,
    ),
    "The champion has looked at days up to 2026-08-15, and validation begins with 2026-08-15": (
        lambda model, text, settings: (with_day(model, "2026-08-15"), text, settings)
    ),
}


def with_day(model, day: str):
    return replace(model, card=replace(model.card, data_digests=model.card.data_digests | {day: "a digest"}))


@pytest.mark.parametrize("reason", REASONS)
def test_where_the_weights_would_mean_something_else_the_start_is_cold_with_the_reason(
    reason, champion, later, settings
):
    model, _ = champion
    assert why_cold(model, later.text, SPLIT, settings) is None
    assert why_cold(with_day(model, "2026-08-14"), later.text, SPLIT, settings) is None
    *known, used = REASONS[reason](model, later.text, settings)
    assert reason in why_cold(*known, SPLIT, used)


def test_a_model_of_before_has_no_such_line_in_its_card(champion, settings, tmp_path):
    model, _ = champion
    save_model(tmp_path / "model", model.card, model.text.lexical, calibration=model.calibration)
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    del card["started_from"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(card))
    root = str(tmp_path / "lake")
    assert load_model(root, parts.publish_part(root, "model", tmp_path / "model"), settings).card.started_from is None


def test_a_training_beside_another_champion_does_not_take_up_its_checkpoint(settings):
    snapshot = Lake(str(settings.home / "lake"), "main").snapshot()
    folders = [
        training._work_folder(snapshot, SPLIT, DAY, champion, used)
        for champion, used in (
            (None, settings),
            ("a", settings),
            ("b", settings),
            ("a", replace(settings, warm_start=False)),
        )
    ]
    assert len(set(folders)) == 4
    assert training._work_folder(snapshot, SPLIT, DAY, "a", settings) == folders[1]
