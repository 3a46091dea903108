"""A network's two readers laid out for scoring: what BehaviourNetwork says of each window's newest row, only sooner.

A batch of a few shoppers is bound by the number of calls and by weights on their way through the caches. So both
readers go through time side by side, and attention asks for the newest rows alone. It runs on the CPU whatever the
device, so that a refresh and a scorer compute alike.

W windows of P rows in packed order, D width, H hidden width of both readers side by side (the first is for items), S
state as of the network
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

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
from intent_platform.model.network import PURCHASE_WIDTH, BehaviourNetwork, Shape
from intent_platform.model.rows import Rows
from intent_platform.model.text import TextTower

ROWS_AT_ONCE = 2_048
"""Rows that are read together: every window is compared with all of them, and they stay in the caches."""

FEW_ROWS = 8
"""As many rows are multiplied by a matrix one after the other: for several at once BLAS would copy the matrix first."""

_THREADS = ThreadpoolController()
"""Of numpy's BLAS: for a step's small products they would wait for each other longer than they work."""


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
            [getattr(reader, name).detach().cpu().numpy().reshape(3, reader.hidden_size, -1) for reader in readers]
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

    def run(self, rows: list[np.ndarray], batch_sizes: list[int]) -> np.ndarray:
        """float32 (P, H): the states after each packed row. rows: float32 (P, H of one reader)."""
        middle, width = rows[0].shape[1], len(self.new_bias)
        given_3PH = np.empty((3, len(rows[0]), width), np.float32)
        np.matmul(rows[0], self.of_row[0], out=given_3PH[:, :, :middle])
        np.matmul(rows[1], self.of_row[1], out=given_3PH[:, :, middle:])
        given_3PH += self.bias
        state_PH = np.empty(given_3PH.shape[1:], np.float32)
        state_WH = np.zeros((batch_sizes[0], width), np.float32)
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
    query: Tensor  # (width of both readers' queries, text dimensions)
    numbers: tuple[Tensor, Tensor]  # weight and bias of both readers
    types: list[Tensor]  # (types of events, H of the reader): a type's part of what is joined
    joins: list[Tensor]  # (width of the other parts, H of the reader)
    norms: list[nn.Module]
    gates: Gates
    asks: Tensor  # (hidden, hidden): from a state to what its dot products with other states are scores of

    @classmethod
    @torch.no_grad()
    def of(cls, network: BehaviourNetwork) -> "Reading":
        readers: list[Any] = [network, network.purchase]
        width, widths = network.shape.width, [_widths_of_parts(each) for each in readers]
        items, queries, types, numbers = readers[0].join[0].weight.T.split([width, *widths[0]])
        buying_types, buying_numbers, buying_queries = readers[1].join[0].weight.T.split([*widths[1][1:], widths[1][0]])
        return cls(
            shape=network.shape,
            query=torch.cat([each.query.weight for each in readers]).cpu(),
            numbers=(
                torch.cat([each.numbers[0].weight for each in readers]).cpu(),
                torch.cat([each.numbers[0].bias for each in readers]).cpu(),
            ),
            types=[
                torch.addmm(each.join[0].bias, each.event_type.weight, weight).cpu()
                for each, weight in zip(readers, (types, buying_types), strict=True)
            ],
            joins=[torch.cat([queries, numbers, items]).cpu(), torch.cat([buying_queries, buying_numbers]).cpu()],
            norms=[deepcopy(each.join[1]).cpu() for each in readers],
            gates=Gates.of([each.reader for each in readers]),
            asks=(readers[0].answers.weight.T @ readers[0].asks.weight / width**0.5).cpu(),
        )

    def states_at(
        self, rows: Rows, positions: np.ndarray, item: np.ndarray, known: KnownItems, text: TextTower
    ) -> np.ndarray:
        """float32 (len(positions), S): what the newest window_events events up to each position say.

        item: (R,) position in `known` of each row's item, −1 for none.
        """
        events = read_events(rows, item, known.category, text)
        return self.states(events, last_events(rows, positions, self.shape.window_events), known.vectors)

    def states(self, events: EventInputs, windows: Windows, item_vectors: np.ndarray) -> np.ndarray:
        """float32 (W, S): the state after each window's newest row. item_vectors: (N, D), by position."""
        with _THREADS.limit(limits=1, user_api="blas"):
            found = [self._states(events, some, item_vectors) for some in batches(windows, ROWS_AT_ONCE)]
        return np.concatenate(found) if found else np.zeros((0, self.shape.item_state + PURCHASE_WIDTH), np.float32)

    @torch.inference_mode()
    def _states(self, events: EventInputs, windows: Windows, item_vectors: np.ndarray) -> np.ndarray:
        packed = pack(windows)
        item_PD = self._items(events.item[packed.row], item_vectors)
        queries = self._queries(events, packed.row)
        joined = self._join(events, packed.row, item_PD, queries)
        read_PH = torch.from_numpy(self.gates.run([each.numpy() for each in joined], packed.batch_sizes.tolist()))
        of_items_PH, of_purchase_PH = read_PH.tensor_split([self.shape.hidden], dim=1)
        meant_PD = item_PD + queries[0]
        newest_W = torch.from_numpy(_newest_of_windows(packed))
        is_own_WP = torch.from_numpy(packed.window == np.arange(len(windows))[:, None])
        attended_WD = self._attend(of_items_PH, newest_W, is_own_WP) @ meant_PD
        parts = of_items_PH[newest_W], attended_WD, meant_PD[newest_W], of_purchase_PH[newest_W]
        return torch.cat(parts, dim=1).numpy()

    def _items(self, item_P: np.ndarray, item_vectors: np.ndarray) -> Tensor:
        """(P, D): as the reader sees them; zeros where there is none."""
        item_PD = item_vectors[item_P] * np.float32(self.shape.item_scale)
        item_PD[item_P < 0] = 0.0
        return torch.from_numpy(item_PD)

    def _queries(self, events: EventInputs, row: np.ndarray) -> tuple[Tensor, ...]:
        """(P, …) per reader; zeros where there is none."""
        known = nn.functional.linear(torch.from_numpy(events.query_vectors), self.query)
        none = known.new_zeros(1, len(self.query))  # is found at −1
        return torch.cat([known, none])[events.query[row]].tensor_split([self.shape.width], dim=1)

    def _join(self, events: EventInputs, row: np.ndarray, item_PD: Tensor, queries: tuple[Tensor, ...]) -> list[Tensor]:
        """(P, H of the reader) per reader: what its GRU is given."""
        numbers = nn.functional.gelu(nn.functional.linear(torch.from_numpy(events.numbers[row]), *self.numbers))
        items_numbers, buying_numbers = numbers.chunk(2, dim=1)
        parts = [queries[0], items_numbers, item_PD], [queries[1], buying_numbers]
        type_P = events.type_code[row]
        return [
            norm(torch.addmm(types[type_P], torch.cat(given, dim=1), join))
            for norm, types, given, join in zip(self.norms, self.types, parts, self.joins, strict=True)
        ]

    def _attend(self, read_PH: Tensor, newest_W: Tensor, is_own_WP: Tensor) -> Tensor:
        """(W, P): how much of each row of its window a newest row takes; every row is asked, for fewer calls."""
        asked_WH = nn.functional.linear(read_PH[newest_W], self.asks)
        return (asked_WH @ read_PH.T).masked_fill_(~is_own_WP, -torch.inf).softmax(dim=1)


def _widths_of_parts(reader: Any) -> list[int]:
    """Of what a reader joins: its queries, types of events and numbers."""
    return [reader.query.out_features, reader.event_type.embedding_dim, reader.numbers[0].out_features]


def _newest_of_windows(packed: Packed) -> np.ndarray:
    """int64 (W,): where each window's newest row stands; only that one is read out."""
    read_out = np.flatnonzero(packed.is_read_out)
    return read_out[np.argsort(packed.window[read_out])]
