"""Examples, windows, network, opponents, calibration, metrics and gate: what must hold before anything is promoted."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch
from model_shop import NOON, SEQUENCE, catalogue, history, many_histories
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, roc_auc_score

from intent_platform.model import audit, train
from intent_platform.model.audit import find_leaks
from intent_platform.model.behaviour import predict_trees
from intent_platform.model.calibration import IDENTITY, Calibration, Scored, fit_calibration
from intent_platform.model.examples import make_examples
from intent_platform.model.features import FEATURES, RISING, features
from intent_platform.model.inputs import Inputs, catalogue_of, last_events, pack, positions_of, read_events, tile
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.metrics import purchase_metrics, ranking_metrics
from intent_platform.model.opponents import fit_trees, neighbour_ranks
from intent_platform.model.ranking import ranks
from intent_platform.model.rows import Rows, micros
from intent_platform.model.text import TextTower, find_encoder
from intent_platform.model.train import Form, make_material, refit_next_items, train_network, validation_losses
from intent_platform.sequences import Split
from intent_platform.settings import Settings

DAY = NOON.date()
SPLIT = Split(
    train=tuple(DAY - timedelta(days=each) for each in range(14, 7, -1)),
    validation=(DAY - timedelta(days=6), DAY - timedelta(days=5)),
    test=(DAY - timedelta(days=3), DAY - timedelta(days=2)),
)
SETTINGS = Settings(threads=2, max_epochs=2, device="cpu")


def prepared(rows: pa.Table, text, settings: Settings = SETTINGS):
    items = catalogue()
    listed = catalogue_of(items, text.vectors(items["title"].to_pylist()))
    view = Rows.of(rows)
    item = positions_of(listed.item_ids, view)
    category = items["category"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    events = read_events(view, item, category, text)
    examples = make_examples(view, item, SPLIT, settings)
    inputs = Inputs(rows=view, events=events, catalogue=listed)
    return view, make_material(inputs, examples["train"], examples["validation"]), examples


@pytest.mark.parametrize("length", [1, 2, 7, 20])
def test_a_position_is_read_from_where_the_window_begins_that_counts_it(length):
    rows = Rows.of(many_histories(30, seed=5))
    positions = np.random.default_rng(1).permutation(len(rows))
    windows = last_events(rows, positions, length)
    tiles = tile(rows.starts[:-1], rows.starts[1:], length)
    counted = {
        row: start
        for start, stop, counts_from in zip(tiles.start, tiles.stop, tiles.counts_from, strict=True)
        for row in range(counts_from, stop)
    }
    assert windows.start.tolist() == [counted[position] for position in positions]
    assert windows.stop.tolist() == (positions + 1).tolist()
    assert windows.counts_from.tolist() == positions.tolist()


def test_windows_count_every_row_once_with_its_past():
    starts, stops = np.array([0, 7, 7]), np.array([7, 7, 130])
    windows = tile(starts, stops, 20)
    counted = np.concatenate([np.arange(a, b) for a, b in zip(windows.counts_from, windows.stop, strict=True)])
    assert sorted(counted.tolist()) == list(range(130))
    assert ((windows.stop - windows.start) <= 20).all()
    own_start = np.where(windows.start < 7, 0, 7)
    assert (windows.counts_from - windows.start >= np.minimum(windows.counts_from - own_start, 10)).all()


def test_packed_rows_hold_no_padding():
    windows = tile(np.array([0, 3]), np.array([3, 10]), 50)
    packed = pack(windows)
    assert packed.row.tolist() == [3, 0, 4, 1, 5, 2, 6, 7, 8, 9]
    assert packed.batch_sizes.tolist() == [2, 2, 2, 1, 1, 1, 1]


def test_labels_look_forward_only_and_at_most_one_horizon():
    rows = history((50, "view", 0), (30, "view", 1), (27, "purchase", 1), (1, "view", 2))
    split = Split(train=(DAY - timedelta(days=2), DAY - timedelta(days=1)), validation=(), test=())
    view = Rows.of(rows)
    found = make_examples(view, positions_of(catalogue()["item_id"].combine_chunks(), view), split, Settings())["train"]
    at_rows = ~found.is_day_end
    assert found.will_buy[at_rows].tolist() == [True, True, False]
    assert found.next_item[at_rows].tolist() == [
        1,
        -1,
        -1,
    ]  # the purchase is of the same item; the next view is 26 h off
    midnight = found.take(found.is_day_end)
    assert midnight.asked_at.tolist() == [micros(NOON.replace(hour=0) - timedelta(days=each)) for each in (1, 0)]
    assert midnight.will_buy.tolist() == [True, False]


def test_neighbours_know_earlier_sessions_and_of_their_own_only_what_came_before():
    together = {"session_started_at": NOON - timedelta(hours=72)}
    today = {"session_started_at": NOON - timedelta(hours=30)}
    rows = pa.concat_tables(
        [
            history((72, "view", 3, together), (71, "view", 7, together), user_id="u1_a"),
            history((30, "view", 3, today), (29, "view", 7, today), (28, "view", 9, today), user_id="u1_b"),
        ]
    )
    view = Rows.of(rows)
    item = positions_of(catalogue()["item_id"].combine_chunks(), view)
    split = Split(train=(DAY - timedelta(days=1),), validation=(), test=())
    asked = make_examples(view, item, split, Settings())["train"]
    asked = asked.take(~asked.is_day_end & (asked.next_item >= 0))
    assert asked.next_item.tolist() == [7, 9]
    found = neighbour_ranks(view, item, micros(NOON - timedelta(hours=48)), asked, 13)
    assert found["sequential_rules"].tolist() == [1, 13]  # 3 → 7 was seen; nobody went on from 7
    assert found["vstan"].tolist() == [2, 13]  # the neighbour's own 3 is the nearer one; nobody had 9


def test_features_and_states_do_not_change_when_the_future_does(release):
    rows = many_histories(30, seed=5)
    view, material, _ = prepared(rows, release.model.text)
    cut = view.starts[:-1] + 12
    keep = np.concatenate([np.arange(a, b) for a, b in zip(view.starts[:-1], cut, strict=True)])
    early, early_material, _ = prepared(rows.take(pa.array(keep)), release.model.text)
    asked = view.at[cut - 1] + 1_000_000
    np.testing.assert_array_equal(features(view, cut - 1, asked), features(early, early.starts[1:] - 1, asked))
    torch.manual_seed(1)
    network = train_network_of(material)
    vectors = np.eye(13, network.shape.width, dtype=np.float32)
    late = network.read_out(material.events, last_events(view, cut - 1, 50), vectors)
    before = network.read_out(early_material.events, last_events(early, early.starts[1:] - 1, 50), vectors)
    np.testing.assert_allclose(late, before, atol=1e-5)


def train_network_of(material):
    from intent_platform.model.train import FORMS, _new_network

    return _new_network(material, SETTINGS, None, FORMS[0])


def test_an_item_that_was_only_ever_the_last_of_a_shopper_is_known_by_its_id(release):
    _, material, _ = prepared(many_histories(20), release.model.text)
    one = np.flatnonzero(material.train.next_item >= 0)[:1]
    network = train_network_of(replace(material, train=material.train.take(one)))
    target = material.catalogue.item_ids[int(material.train.next_item[one[0]])].as_py()
    assert target in network.known_items


def test_the_form_with_the_least_validation_loss_is_kept_with_the_purchase_half_of_the_first(release, tmp_path):
    settings = replace(SETTINGS, home=tmp_path, threads=1, max_epochs=1)
    _, material, _ = prepared(many_histories(120), release.model.text)
    forms = Form(width=16, dropout=0.0, temperature=16.0), Form(width=8, dropout=0.9, temperature=16.0)
    network = train_network(material, tmp_path / "run", settings, forms=forms)
    losses = {}
    for form in forms:
        progress = json.loads((tmp_path / "run" / form.name / "progress.json").read_text())
        losses[form.width] = progress["best_loss"]["next_item"]
    assert network.shape.width == min(losses, key=losses.__getitem__)
    first = load_file(tmp_path / "run" / forms[0].name / "best-buys.safetensors")
    for name, weight in network.purchase.state_dict().items():
        torch.testing.assert_close(weight, first[f"purchase.{name}"])


def test_a_stopped_training_goes_on_and_ends_the_same(release, tmp_path):

    settings = replace(SETTINGS, home=tmp_path, threads=1)
    _, material, _ = prepared(many_histories(120), release.model.text)
    whole = train_network(material, tmp_path / "whole", settings)
    schedule = replace(settings, max_epochs=2)
    stop = pytest.MonkeyPatch()
    with stop.context() as patch:
        calls = []
        original = train._one_epoch

        def once(*arguments):
            if calls:
                raise KeyboardInterrupt
            calls.append(1)
            return original(*arguments)

        patch.setattr(train, "_one_epoch", once)
        with pytest.raises(KeyboardInterrupt):
            train_network(material, tmp_path / "stopped", schedule)
    resumed = train_network(material, tmp_path / "stopped", schedule)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_a_refit_learns_next_items_from_the_validation_days_too_and_leaves_purchases_alone(release, tmp_path):
    settings = replace(SETTINGS, home=tmp_path, max_epochs=4)
    _, material, _ = prepared(many_histories(120), release.model.text)
    network = train_network(material, tmp_path / "run", settings, forms=(Form(width=16, dropout=0, temperature=16.0),))
    refitted = refit_next_items(material, network, tmp_path / "run", settings)
    before, after = (validation_losses(each, material, settings) for each in (network, refitted))
    assert after["next_item"] < before["next_item"]
    assert after["buys"] == pytest.approx(before["buys"], abs=1e-6)
    again = refit_next_items(material, network, tmp_path / "run", settings)  # goes on where it stands, at the end
    for one, two in zip(refitted.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_a_refit_that_was_stopped_goes_on_and_ends_the_same(release, tmp_path, monkeypatch):
    settings = replace(SETTINGS, home=tmp_path, threads=1, max_epochs=4)
    _, material, _ = prepared(many_histories(120), release.model.text)
    form = Form(width=16, dropout=0, temperature=16.0)
    network = train_network(material, tmp_path / "run", settings, forms=(form,))
    whole = refit_next_items(material, network, tmp_path / "run", settings)
    shutil.rmtree(tmp_path / "run" / f"{form.name}-refit")
    save = train._save_checkpoint

    def save_and_stop(*given):
        save(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        refit_next_items(material, network, tmp_path / "run", settings)
    monkeypatch.undo()
    resumed = refit_next_items(material, network, tmp_path / "run", settings)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_what_gained_at_no_epoch_is_not_refitted(release, tmp_path):
    settings = replace(SETTINGS, home=tmp_path, max_epochs=0)
    _, material, _ = prepared(many_histories(20), release.model.text)
    network = train_network(material, tmp_path / "run", settings)
    assert refit_next_items(material, network, tmp_path / "run", settings) is network


def test_trees_never_fall_when_a_cart_is_added(release):
    _, material, _ = prepared(many_histories(400), release.model.text)
    trees = fit_trees(
        material.train_features, material.train, material.validation_features, material.validation, SETTINGS
    )
    table = material.validation_features
    more = table.copy()
    more[:, [FEATURES.index(name) for name in RISING]] += 1
    assert (predict_trees(trees, more) >= predict_trees(trees, table) - 1e-12).all()


def test_metrics_agree_with_their_definitions():
    chance = np.random.default_rng(1)
    probability = np.round(chance.random(500), 2)  # ties on purpose
    label = chance.random(500) < probability
    metrics = purchase_metrics(probability, label)
    ones = np.ones(500)
    assert metrics["roc_auc"](ones) == pytest.approx(roc_auc_score(label, probability))
    assert metrics["pr_auc"](ones) == pytest.approx(average_precision_score(label, probability))
    doubled = np.where(np.arange(500) < 100, 2.0, 1.0)
    assert metrics["roc_auc"](doubled) == pytest.approx(roc_auc_score(label, probability, sample_weight=doubled))
    assert ranking_metrics(np.array([1, 20, 21]))["recall_at_20"](np.ones(3)) == pytest.approx(2 / 3)
    assert ranking_metrics(np.array([1, 20, 21]))["mrr_at_20"](np.ones(3)) == pytest.approx(1.05 / 3)


def overconfident(count: int, seed: int) -> Scored:
    """Twelve examples of each user, who all buy or none does; the log-odds said of them are too far from 0."""
    chance = np.random.default_rng(seed)
    truth = chance.beta(1, 5, count // 12).repeat(12)
    label = (chance.random(count // 12) < truth[::12]).repeat(12)
    log_odds = 2 * np.log(truth / (1 - truth)) + chance.normal(0, 0.2, count)
    return Scored(probability=1 / (1 + np.exp(-log_odds)), label=label)


def calibration_error(calibration: Calibration, scored: Scored) -> float:
    metrics = purchase_metrics(calibration.apply(scored.probability), scored.label)
    return metrics["calibration_error"](np.ones(len(scored.label)))


def test_calibration_rises_and_repairs_overconfidence():
    held, later = overconfident(12_000, 2), overconfident(240_000, 3)
    fitted = fit_calibration(held, np.arange(12_000) // 12)
    assert fitted.method in ("platt", "isotonic")
    assert calibration_error(fitted, later) < 0.5 * calibration_error(IDENTITY, later)
    line = fitted.apply(np.linspace(0.001, 0.999, 200))
    assert (np.diff(line) >= 0).all()
    assert line.min() > 0
    assert line.max() < 1


def test_calibration_uses_what_was_learned_from_unless_it_was_learned_by_heart():
    held, learned, later = overconfident(2_400, 4), overconfident(120_000, 5), overconfident(240_000, 6)
    users = np.arange(2_400) // 12
    alone, together = (calibration_error(fit_calibration(held, users, each), later) for each in (None, learned))
    assert together < alone
    by_heart = Scored(probability=np.where(learned.label, 0.9, 0.1), label=learned.label)
    assert fit_calibration(held, users, by_heart) == fit_calibration(held, users)


def test_the_first_row_after_a_moment_is_found_for_each_of_many_shoppers():
    """Ten thousand shoppers and times of this century: (user, µs) as one number would not fit 64 bits."""
    day = pa.concat_tables(
        [history((3, "view", 0), (2, "view", 1), (1, "view", 2), user_id=f"u{n:05}") for n in (0, 1)]
    )
    times = day["occurred_at"].combine_chunks()
    users = pa.array([f"u{number:05}" for number in range(10_000)]).take(pa.array(np.repeat(np.arange(10_000), 3)))
    table = pa.table({"user_id": users, "occurred_at": times.take(pa.array(np.tile(np.arange(3), 10_000)))})
    rows = Rows.of(table)
    asked = np.arange(10_000)
    assert (rows.first_after(asked, rows.at[3 * asked + 1]) == 3 * asked + 2).all()
    assert (rows.first_after(asked, rows.at[3 * asked] - 1) == 3 * asked).all()
    assert (rows.first_after(asked, rows.at[3 * asked + 2]) == 3 * asked + 3).all()


def test_the_leak_audit_finds_what_looks_ahead(monkeypatch):
    view = Rows.of(many_histories(60))
    examples = make_examples(view, np.full(len(view), -1), SPLIT, Settings())["test"]
    assert find_leaks(view, examples, Settings()) == []
    told = audit.features

    def look_ahead(rows, positions, asked_at):
        table = told(rows, positions, asked_at)
        following = np.minimum(positions + 1, len(rows) - 1)
        table[:, FEATURES.index("last_event_type")] = rows.type_code[following]
        return table

    monkeypatch.setattr(audit, "features", look_ahead)
    (found,) = find_leaks(view, examples, Settings())
    assert found.startswith("leak: last_event_type differs on ")


def test_the_small_shop_is_in_the_sequence_schema():
    from intent_platform.sequences import SEQUENCE_SCHEMA

    assert SEQUENCE.equals(SEQUENCE_SCHEMA)


def test_days_without_a_buyer_make_no_labels():
    rows = history((100, "view", 0), (50, "view", 1))
    view = Rows.of(rows)
    found = make_examples(view, np.full(len(view), -1), SPLIT, Settings())
    assert not any(each.will_buy.any() for each in found.values())


def test_a_canary_that_sings_is_heard_and_noise_is_not(release, monkeypatch):
    _, material, _ = prepared(many_histories(300), release.model.text)
    known = material.train, material.train_features, material.validation, material.validation_features
    assert audit.find_canary(*known, SETTINGS) == []
    labels = iter([material.train.will_buy, material.validation.will_buy, np.zeros(len(material.validation))])
    monkeypatch.setattr(audit, "planted", lambda *_: next(labels).astype(np.float32))
    (found,) = audit.find_canary(*known, SETTINGS)
    assert found.startswith("leak: a planted column of noise raises the trees' ROC-AUC by 0.")


THINGS = ("ladle", "scarf", "drill", "novel", "teapot", "tent", "violin", "rake", "lamp", "puzzle")


def test_an_item_without_an_event_in_training_is_found_by_its_text(tmp_path):
    """Shoppers stay with one thing; of its eight colours the last two come into the shop on the test days."""
    count, chance = 8 * len(THINGS), np.random.default_rng(1)
    items = pa.table(
        {
            "item_id": [f"i{number:02}" for number in range(count)],
            "title": [f"{thing} no. {number}" for thing in THINGS for number in range(8)],
            "category": pa.nulls(count, pa.string()),
            "price": pa.nulls(count, pa.float64()),
        }
    )
    rows = many_histories(600, seed=4)
    moment = rows["occurred_at"].to_numpy()
    is_new = moment >= np.datetime64(SPLIT.test[0])
    place = np.where(is_new, chance.integers(6, 8, len(moment)), chance.integers(0, 6, len(moment)))
    item = 8 * chance.integers(0, len(THINGS), 600).repeat(20) + place
    rows = rows.set_column(rows.schema.get_field_index("item_id"), "item_id", items["item_id"].take(pa.array(item)))
    view = Rows.of(rows)
    examples = make_examples(view, item, SPLIT, SETTINGS)
    asked = examples["test"].next_item
    test = examples["test"].take(np.flatnonzero((asked >= 0) & (asked % 8 >= 6)))
    titles = items["title"].to_pylist()
    text = TextTower(encoder=find_encoder(Settings(encoder="none")), lexical=fit_lexical(titles))
    settings = replace(SETTINGS, home=tmp_path, max_epochs=3)
    recall = {}
    for name, vectors in (("text", text.vectors(titles)), ("none", np.zeros((count, text.dimensions), np.float32))):
        events = read_events(view, item, np.full(count, -1), text)
        inputs = Inputs(rows=view, events=events, catalogue=catalogue_of(items, vectors))
        material = make_material(inputs, examples["train"], examples["validation"])
        network = train_network(
            material, tmp_path / name, settings, forms=(Form(width=32, dropout=0.1, temperature=16.0),)
        )
        assert not set(network.known_items) & set(items["item_id"].take(pa.array(test.next_item)).to_pylist())
        known = network.item_vectors(items, vectors)
        found = ranks(network.user_vectors(network.states(material, known, test.position)), known, test.next_item)
        recall[name] = ranking_metrics(found)["recall_at_20"](np.ones(len(test)))
    assert recall["text"] > 2 * recall["none"] + 0.2
