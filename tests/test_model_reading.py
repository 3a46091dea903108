"""What scores without torch says what the network says that was trained with it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from model_shop import catalogue, history, many_histories
from threadpoolctl import threadpool_info, threadpool_limits

from intent_platform.model import reading, remembered
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


def test_events_are_read_where_no_item_is_known(release):
    rows = Rows.of(history((3, "view", None, {"category": "garden"}), (2, "search", None)))
    events = read_events(rows, np.array([-1, -1]), np.zeros(0, np.int64), release.model.text)
    assert np.isfinite(events.numbers).all()


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


VIEWS = [(100 - number, "view", number % 13) for number in range(60)]
SEARCHES = [(hours, "search", f"garden chair {number % 7}") for number, (hours, _, _) in enumerate(VIEWS)]
MIXED = [(SEARCHES if number % 3 else VIEWS)[number] for number in range(60)]
UNKNOWN = {"item_id": "never-seen", "category": "garden"}


class Asked:
    """A Reading that is asked again and again; each answer is compared with the network's."""

    def __init__(self, network: BehaviourNetwork, release, monkeypatch) -> None:
        self.network, self.release, self.reading = network, release, Reading.of(network)
        self.vectors = np.random.default_rng(5).normal(size=(13, network.shape.width)).astype(np.float32)
        self.rows_read: list[int] = []  # of each answer
        run = reading.Gates.run

        def watched(gates, rows, *others):
            self.rows_read.append(len(rows[0]))
            return run(gates, rows, *others)

        monkeypatch.setattr(reading.Gates, "run", watched)

    def ask(self, *histories: pa.Table) -> None:
        """Of the newest row of each."""
        rows = Rows.of(pa.concat_tables(histories).sort_by([("user_id", "ascending"), ("occurred_at", "ascending")]))
        events = events_of(rows, self.release)
        windows = last_events(rows, rows.starts[1:] - 1, self.network.shape.window_events)
        states = self.reading.states(events, windows, self.vectors)
        np.testing.assert_allclose(states, self.network.read_out(events, windows, self.vectors), atol=5e-6)


@pytest.fixture
def asked(network, release, monkeypatch) -> Asked:
    return Asked(network, release, monkeypatch)


@pytest.mark.parametrize("events", [VIEWS, SEARCHES, MIXED], ids=["views", "searches", "mixed"])
def test_only_what_is_new_is_read(asked, events):
    for count in (20, 21, 24, 24):
        asked.ask(history(*events[:count]))
    assert asked.rows_read == [20, 1, 3, 0]


def test_unknown_items_are_remembered_too(asked):
    events = [*VIEWS[:3], (97, "view", None, UNKNOWN), *VIEWS[4:9]]
    asked.ask(history(*events[:4]))
    asked.ask(history(*events))
    assert asked.rows_read == [4, 5]


@pytest.mark.parametrize(
    ("change", "rows_read"),
    [
        (lambda events: [*events, (90.5, "view", 3)], 13),
        (lambda events: [*events[:10], (90, "view", 12), *events[11:]], 12),
        (lambda events: [*events[:10], (90, "add_to_cart", 10), *events[11:]], 12),
        (lambda events: [*events[:10], (90, "view", None, UNKNOWN), *events[11:]], 12),
        (lambda events: events[:10], 0),
        (lambda events: events[1:], 21),
    ],
    ids=["late", "item", "type", "unknown", "fewer", "without the first"],
)
def test_rows_from_one_that_differs_on_are_read_anew(asked, change: Callable, rows_read: int):
    asked.ask(history(*VIEWS[:22]))
    asked.ask(history(*change(VIEWS[:22])))
    assert asked.rows_read[1] == rows_read


def test_a_query_of_another_text_is_read_anew(asked):
    asked.ask(history(*SEARCHES[:22]))
    asked.ask(history(*SEARCHES[:10], (90, "search", "a green lamp"), *SEARCHES[11:22]))
    assert asked.rows_read == [22, 12]


def test_a_window_that_moved_on_is_read_anew(asked):
    for count in (49, 50, 51, 52):
        asked.ask(history(*MIXED[:count]))
    assert asked.rows_read == [49, 1, 26, 1]


def test_windows_go_on_by_different_numbers_of_rows(asked):
    users = ["u1_a", "u1_b", "u1_c", "u1_d"]
    begun = [(number, *event) for number, event in enumerate(MIXED)]
    own = {user: [(hours + 0.1 * place, *what) for _, hours, *what in begun] for place, user in enumerate(users)}
    for counts in [(5, 30, 1), (7, 30, 2, 20), (12, 31, 50, 21), (13,)]:
        asked.ask(*(history(*own[user][:count], user_id=user) for user, count in zip(users, counts, strict=False)))
    assert asked.rows_read == [36, 2 + 0 + 1 + 20, 5 + 1 + 48 + 1, 1]


def test_windows_that_begin_with_the_same_row_are_read_one_beside_the_other(asked):
    for _ in range(2):
        asked.ask(history(*VIEWS[:5]), history(*VIEWS[:7], user_id="u1_b"))
    assert asked.rows_read == [12, 12]


def test_items_of_other_vectors_are_read_anew(asked):
    asked.ask(history(*VIEWS[:22]))
    asked.vectors = asked.vectors[::-1].copy()
    asked.ask(history(*VIEWS[:23]))
    assert asked.rows_read == [22, 23]


def test_what_failed_half_way_is_read_anew(asked, monkeypatch):
    asked.ask(history(*VIEWS[:22]))
    with monkeypatch.context() as broken:
        broken.setattr(reading.Gates, "run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asked.ask(history(*VIEWS[:23]))
    asked.ask(history(*VIEWS[:23]))
    assert asked.rows_read == [22, 23]


def test_the_window_asked_for_longest_ago_is_forgotten(network, release, monkeypatch):
    monkeypatch.setattr(remembered, "WINDOWS", 2)
    asked = Asked(network, release, monkeypatch)
    for first in (0, 1, 0, 2, 0, 1):
        asked.ask(history(*VIEWS[first : first + 5]))
    assert asked.rows_read == [5, 5, 0, 5, 0, 5]
    assert len(asked.reading.remembered) == 2


def test_many_windows_at_once_are_not_remembered(asked, monkeypatch):
    monkeypatch.setattr(reading, "FEW_WINDOWS", 29)
    for _ in range(2):
        asked.ask(many_histories(30, seed=5))
    assert asked.rows_read == [600, 600]
    assert len(asked.reading.remembered) == 0


def test_threads_read_one_after_the_other_and_leave_blas_its_threads(network, release):
    rows = Rows.of(many_histories(30, seed=5))
    events, windows = events_of(rows, release), last_events(rows, rows.starts[1:] - 1, 50)
    vectors = np.random.default_rng(5).normal(size=(13, network.shape.width)).astype(np.float32)
    wanted = network.read_out(events, windows, vectors)
    shared = Reading.of(network)
    with threadpool_limits(2, "blas"), ThreadPoolExecutor(8) as pool:
        for states in pool.map(lambda _: shared.states(events, windows, vectors), range(40)):
            np.testing.assert_allclose(states, wanted, atol=5e-6)
        assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {2}


def test_what_a_longer_window_left_behind_is_not_looked_at(asked):
    asked.ask(history(*VIEWS[:9]))
    asked.reading.remembered.meant[:, 4:] = np.nan
    asked.reading.remembered.read[:, 4:] = np.nan
    asked.ask(history(*VIEWS[:3]))
