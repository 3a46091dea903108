"""A network's two readers laid out for scoring: what BehaviourNetwork says of each window's newest row, only sooner.

A batch of a few shoppers is bound by the number of calls and by weights on their way through the caches. So both
readers go through time side by side, attention asks for the newest rows alone, and of a window that goes on from one
read before only the new rows are read. It runs on the CPU whatever the device, so that a refresh and a scorer compute
alike.

W windows of P rows in packed order, T rows of the longest, D width, H hidden width of both readers side by side (the
first is for items), S state as of the network
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController
from torch import nn

from intent_platform.model.inputs import (
    EventInputs,
    KnownItems,
    Packed,
    Windows,
    batches,
    last_events,
    pack,
    read_events,
)
from intent_platform.model.network import PURCHASE_WIDTH, BehaviourNetwork, Shape, array_of
from intent_platform.model.remembered import Remembered, contents_of
from intent_platform.model.rows import Rows
from intent_platform.model.text import TextTower

ROWS_AT_ONCE = 1_024
"""Rows that are read together: they stay in the caches, and every window is compared with all of them."""

FEW_WINDOWS = 200
"""As many are asked for by a scorer of a stream, soon again; the thousands of a refresh pass by what is remembered."""

FEW_ROWS = 8
"""As many rows are multiplied by a matrix one after the other: for several at once BLAS would copy the matrix first."""

_THREADS = ThreadpoolController()
"""Of numpy's BLAS: for a step's small products they would wait for each other longer than they work."""

_ALONE = threading.Lock()
"""How many threads BLAS takes is a matter of the process, and so is what a Reading remembers: one reads at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gates:
    """Both readers' GRUs as one (Cho et al. 2014): gates (3, …, H) are reset, update and new."""

    of_row: list[np.ndarray]  # float32 (3, H of one reader, the same)
    of_state: list[np.ndarray]  # likewise
    bias: np.ndarray  # float32 (3, 1, H)
    new_bias: np.ndarray  # float32 (H,): added to the new gate before the reset gate is applied

    @classmethod
    def of(cls, readers: list[nn.GRU]) -> "Gates":
        of_row, of_state, bias, state_bias = (
            [array_of(getattr(reader, name)).reshape(3, reader.hidden_size, -1) for reader in readers]
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        )
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, and numpy has a quick tanh.
        half = np.array([0.5, 0.5, 1.0], np.float32)[:, None, None]
        bias_3H1, state_bias_3H1 = (np.concatenate(each, axis=1) for each in (bias, state_bias))
        bias_3H1[:2] += state_bias_3H1[:2]
        return cls(
            of_row=[np.ascontiguousarray((half * each).swapaxes(1, 2)) for each in of_row],
            of_state=[np.ascontiguousarray((half * each).swapaxes(1, 2)) for each in of_state],
            bias=(half * bias_3H1).swapaxes(1, 2),
            new_bias=state_bias_3H1[2, :, 0],
        )

    def run(self, rows: list[np.ndarray], batch_sizes: list[int], state_WH: np.ndarray) -> np.ndarray:
        """float32 (P, H): the states after each packed row. rows: float32 (P, H of one reader).

        state_WH: before the first rows, in their order.
        """
        middle, width = rows[0].shape[1], len(self.new_bias)
        given_3PH = np.empty((3, len(rows[0]), width), np.float32)
        np.matmul(rows[0], self.of_row[0], out=given_3PH[:, :, :middle])
        np.matmul(rows[1], self.of_row[1], out=given_3PH[:, :, middle:])
        given_3PH += self.bias
        state_PH = np.empty(given_3PH.shape[1:], np.float32)
        start = 0
        for count in batch_sizes:
            before, now = state_WH[:count], slice(start, start + count)
            gates_3WH = np.empty((3, count, width), np.float32)
            _multiply(before[:, :middle], self.of_state[0], out=gates_3WH[:, :, :middle])
            _multiply(before[:, middle:], self.of_state[1], out=gates_3WH[:, :, middle:])
            opened, new = gates_3WH[:2], gates_3WH[2]  # opened: reset and update
            opened += given_3PH[:2, now]
            np.tanh(opened, out=opened)
            opened += 1.0
            opened *= 0.5
            new += self.new_bias
            new *= opened[0]
            new += given_3PH[2, now]
            np.tanh(new, out=new)
            kept = before - new
            kept *= opened[1]
            state_WH = np.add(new, kept, out=state_PH[now])
            start += count
        return state_PH


def _multiply(rows_WH: np.ndarray, weight_3HH: np.ndarray, out: np.ndarray) -> None:
    if len(rows_WH) <= FEW_ROWS:
        np.matmul(rows_WH[:, None], weight_3HH[:, None], out=out[:, :, None])
    else:
        np.matmul(rows_WH, weight_3HH, out=out)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """The weights of a network that learns no more; lists hold one entry per reader, the one for items first."""

    shape: Shape
    query: np.ndarray  # (text dimensions, width of both readers' queries)
    numbers: np.ndarray  # (numbers, width of both readers' numbers)
    numbers_bias: np.ndarray
    types: list[np.ndarray]  # (types of events, H of the reader): a type's part of what is joined
    joins: list[np.ndarray]  # (width of query, numbers and, for items, item; H of the reader)
    norms: list[tuple[np.ndarray, np.ndarray]]  # weight and bias
    gates: Gates
    asks: np.ndarray  # (hidden, hidden): from a state to what its dot products with other states are scores of
    remembered: Remembered

    @classmethod
    def of(cls, network: BehaviourNetwork) -> "Reading":
        readers: list[Any] = [network, network.purchase]
        weights = [_parts_of_join(each, has_items=each is network) for each in readers]
        gates = Gates.of([each.reader for each in readers])
        shape = network.shape
        return cls(
            shape=shape,
            query=np.concatenate([array_of(each.query.weight).T for each in readers], axis=1),
            numbers=np.concatenate([array_of(each.numbers[0].weight).T for each in readers], axis=1),
            numbers_bias=np.concatenate([array_of(each.numbers[0].bias) for each in readers]),
            types=[
                array_of(each.event_type.weight) @ of_type + array_of(each.join[0].bias)
                for each, (of_type, _) in zip(readers, weights, strict=True)
            ],
            joins=[others for _, others in weights],
            norms=[(array_of(each.join[1].weight), array_of(each.join[1].bias)) for each in readers],
            gates=gates,
            asks=array_of(network.asks.weight).T @ array_of(network.answers.weight) / shape.width**0.5,
            remembered=Remembered(shape.window_events, shape.width, len(gates.new_bias)),
        )

    def states_at(
        self, rows: Rows, positions: np.ndarray, item: np.ndarray, known: KnownItems, text: TextTower
    ) -> np.ndarray:
        """float32 (len(positions), S): what the newest events up to each position say, at most window_events.

        item: (R,) position in `known` of each row's item, −1 for none.
        """
        events = read_events(rows, item, known.category, text)
        return self.states(events, last_events(rows, positions, self.shape.window_events), known.vectors)

    def states(self, events: EventInputs, windows: Windows, item_vectors: np.ndarray) -> np.ndarray:
        """float32 (W, S): the state after each window's newest row, of at most window_events.

        item_vectors: (N, D), by position.
        """
        with _ALONE, _THREADS.limit(limits=1, user_api="blas"):
            if 0 < len(windows) <= FEW_WINDOWS:
                contents = contents_of(events, windows)
                found = self.remembered.find(contents, item_vectors)
                if found is not None:
                    return self._resume(events, windows, item_vectors, contents, *found)
            states = [self._states(events, some, item_vectors) for some in batches(windows, ROWS_AT_ONCE)]
        return np.concatenate(states) if states else np.zeros((0, self.shape.item_state + PURCHASE_WIDTH), np.float32)

    def _states(self, events: EventInputs, windows: Windows, item_vectors: np.ndarray) -> np.ndarray:
        packed = pack(windows)
        nothing_WH = np.zeros((len(windows), len(self.gates.new_bias)), np.float32)
        read_PH, meant_PD = self._read(events, packed, item_vectors, nothing_WH)
        hidden, newest = self.shape.hidden, _newest_of_windows(packed)
        is_own_WP = packed.window == np.arange(len(windows))[:, None]
        # All rows are asked: one product is quicker.
        attended_WD = _shares((read_PH[newest, :hidden] @ self.asks) @ read_PH[:, :hidden].T, is_own_WP) @ meant_PD
        parts = read_PH[newest, :hidden], attended_WD, meant_PD[newest], read_PH[newest, hidden:]
        return np.concatenate(parts, axis=1)

    def _resume(
        self,
        events: EventInputs,
        windows: Windows,
        item_vectors: np.ndarray,
        contents: list[bytes],
        place: np.ndarray,
        held: np.ndarray,
    ) -> np.ndarray:
        """As _states, but the first `held` rows of each window are remembered at `place`, and then all are."""
        kept, hidden = self.remembered, self.shape.hidden
        new = Windows(start=windows.start + held, stop=windows.stop, counts_from=windows.counts_from)
        packed = pack(new)
        begun = packed.window[packed.row == new.start[packed.window]]
        before_WH = kept.read[place[begun], held[begun] - 1]
        before_WH[held[begun] == 0] = 0.0
        at = place[packed.window], packed.row - windows.start[packed.window]
        kept.read[at], kept.meant[at] = self._read(events, packed, item_vectors, before_WH)
        kept.keep(contents, place)

        size = windows.stop - windows.start
        is_own_WT = np.arange(size.max()) < size[:, None]
        state_WH = kept.read[place, size - 1]
        asked_WH = state_WH[:, :hidden] @ self.asks
        share_WT = np.matmul(kept.read[:, : size.max(), :hidden][place], asked_WH[:, :, None])[:, :, 0]
        meant_WTD = kept.meant[:, : size.max()][place]
        meant_WTD[~is_own_WT] = 0.0  # left there by a longer window, and maybe no number
        attended_WD = np.matmul(_shares(share_WT, is_own_WT)[:, None], meant_WTD)[:, 0]
        parts = state_WH[:, :hidden], attended_WD, kept.meant[place, size - 1], state_WH[:, hidden:]
        return np.concatenate(parts, axis=1)

    def _read(
        self, events: EventInputs, packed: Packed, item_vectors: np.ndarray, before_WH: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """float32 (P, H) states and (P, D) of what each row meant: its item and its query. before_WH: as of Gates."""
        row, width = packed.row, self.shape.width
        item_PD = item_vectors[events.item[row]] * np.float32(self.shape.item_scale)
        item_PD[events.item[row] < 0] = 0.0
        asking = np.flatnonzero(events.query[row] >= 0)
        used, code = np.unique(events.query[row[asking]], return_inverse=True)
        queries = np.zeros((len(row), self.query.shape[1]), np.float32)
        queries[asking] = (events.query_vectors[used] @ self.query)[code]
        joined = self._join(events, row, [queries[:, :width], queries[:, width:]], item_PD)
        return self.gates.run(joined, packed.batch_sizes.tolist(), before_WH), item_PD + queries[:, :width]

    def _join(
        self, events: EventInputs, row: np.ndarray, queries: list[np.ndarray], item_PD: np.ndarray
    ) -> list[np.ndarray]:
        """float32 (P, H of the reader) per reader: what its GRU is given."""
        numbers = events.numbers[row] @ self.numbers + self.numbers_bias
        numbers *= ndtr(numbers)  # GELU
        of_items, of_purchase = np.split(numbers, 2, axis=1)
        parts = [queries[0], of_items, item_PD], [queries[1], of_purchase]
        joined = [np.concatenate(each, axis=1) @ join for each, join in zip(parts, self.joins, strict=True)]
        for each, types, (weight, bias) in zip(joined, self.types, self.norms, strict=True):
            each += types[events.type_code[row]]
            _normalise(each)
            each *= weight
            each += bias
        return joined


def _shares(share: np.ndarray, is_own: np.ndarray) -> np.ndarray:
    """(W, …): how much a newest row takes of each row of its window, in place, from their scores."""
    share[~is_own] = -np.inf
    share -= share.max(axis=1, keepdims=True)
    np.exp(share, out=share)
    share /= share.sum(axis=1, keepdims=True)
    return share


def _parts_of_join(reader: Any, *, has_items: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights of what a reader joins: (width, H) of the types of events, and of the rest in the order of `joins`."""
    weight = array_of(reader.join[0].weight).T
    widths = [reader.event_type.embedding_dim, reader.numbers[0].out_features, reader.query.out_features]
    if not has_items:
        types, numbers, queries = np.split(weight, np.cumsum(widths)[:-1])
        return types, np.concatenate([queries, numbers])
    items, queries, types, numbers = np.split(weight, np.cumsum([widths[2], widths[2], widths[0]]))
    return types, np.concatenate([queries, numbers, items])


def _normalise(rows: np.ndarray) -> None:
    """In place, to mean 0 and variance 1 as of torch's LayerNorm."""
    rows -= rows.mean(axis=1, keepdims=True)
    variance = np.einsum("ph,ph->p", rows, rows) / np.float32(rows.shape[1])
    rows /= np.sqrt(variance + np.float32(1e-5))[:, None]


def _newest_of_windows(packed: Packed) -> np.ndarray:
    """int64 (W,): where each window's newest row stands; only that one is read out."""
    read_out = np.flatnonzero(packed.is_read_out)
    return read_out[np.argsort(packed.window[read_out])]
