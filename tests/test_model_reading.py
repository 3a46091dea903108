"""What scores without torch says what the network says that was trained with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_shop import catalogue, history, many_histories
from threadpoolctl import threadpool_info, threadpool_limits

from intent_platform.model import reading
from intent_platform.model.features import FEATURES
from intent_platform.model.inputs import EventInputs, Windows, last_events, read_events
from intent_platform.model.network import PURCHASE_WIDTH, BehaviourNetwork, Shape
from intent_platform.model.reading import Reading
from intent_platform.model.rows import Rows

CATEGORY = np.repeat([0, 1, 2], [5, 4, 4])


@pytest.fixture(scope="module")
def network(release) -> BehaviourNetwork:
    torch.manual_seed(3)
    shape = Shape(
        text_dimensions=release.model.text.dimensions, window_events=50, categories=["a"], width=24, hidden=40
    )
    made = BehaviourNetwork(shape, catalogue()["item_id"].to_pylist())
    for name, weight in made.named_parameters():
        if weight.dim() == 1:  # norms and biases begin as ones and zeros, which hide a mistake
            torch.nn.init.normal_(weight, mean=float("join.1.weight" in name))
    return made


def events_of(rows: Rows, release) -> EventInputs:
    item = np.append(release.index.positions(rows.item[1]), -1)[rows.item[0]]
    return read_events(rows, item, CATEGORY, release.model.text)


def largest_difference(network: BehaviourNetwork, events: EventInputs, windows: Windows) -> float:
    vectors = np.random.default_rng(5).normal(size=(13, network.shape.width)).astype(np.float32)
    states = Reading.of(network).states(events, windows, vectors)
    return float(np.abs(states - network.read_out(events, windows, vectors)).max())


@pytest.mark.parametrize("rows_at_once", [30, 1_024])
def test_windows_of_every_length_are_read_as_by_the_network(network, release, monkeypatch, rows_at_once):
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", rows_at_once)
    rows = Rows.of(many_histories(30, seed=5))
    positions = np.random.default_rng(1).permutation(len(rows))
    assert largest_difference(network, events_of(rows, release), last_events(rows, positions, 20)) < 5e-6


def test_shoppers_without_queries_or_with_unknown_items_are_read_as_by_the_network(network, release):
    unknown = {"item_id": "never-seen", "category": "garden"}
    rows = Rows.of(history((3, "view", 1), (2, "view", None, unknown), (1, "view", 1)))
    events = events_of(rows, release)
    assert len(events.query_vectors) == 0
    assert largest_difference(network, events, last_events(rows, np.array([0, 1, 2]), 50)) < 5e-6


def test_no_windows_have_no_states(network, release):
    rows = Rows.of(history((1, "view", 1)))
    windows = last_events(rows, np.zeros(0, np.int64), 50)
    vectors = np.zeros((13, network.shape.width), np.float32)
    states = Reading.of(network).states(events_of(rows, release), windows, vectors)
    assert states.shape == (0, network.shape.item_state + PURCHASE_WIDTH)


@pytest.mark.parametrize("temperature", [16.0, None])
def test_heads_without_torch_say_what_they_were_trained_to_say(network, temperature):
    chance = np.random.default_rng(9)
    states = chance.normal(size=(7, network.shape.item_state + PURCHASE_WIDTH)).astype(np.float32)
    table = chance.normal(scale=50, size=(7, len(FEATURES))).astype(np.float32)
    table[0] = np.nan
    torch.manual_seed(4)
    made = BehaviourNetwork(replace(network.shape, temperature=temperature), network.known_items)
    torch.nn.init.normal_(made.purchase.deep[-1].weight)
    torch.nn.init.normal_(made.feature_mean)
    with torch.no_grad():
        buys = torch.sigmoid(made.buy_logits(torch.from_numpy(states), made.scaled(table))).numpy()
        wanted = made.wanted_items(torch.from_numpy(states)).numpy()
    np.testing.assert_allclose(made.purchase_probability(states, table), buys, atol=2e-6)
    np.testing.assert_allclose(made.user_vectors(states), wanted, atol=2e-5)


def test_steps_are_computed_by_one_thread_whatever_the_process_takes(network, release, monkeypatch):
    threads, run = [], reading.Gates.run

    def watched(*given):
        threads.extend(each["num_threads"] for each in threadpool_info() if "numpy" in each["filepath"])
        return run(*given)

    monkeypatch.setattr(reading.Gates, "run", watched)
    rows = Rows.of(history((1, "view", 1)))
    with threadpool_limits(2, user_api="blas"):
        largest_difference(network, events_of(rows, release), last_events(rows, np.array([0]), 50))
    assert set(threads) == {1}
