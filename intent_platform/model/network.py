"""The behaviour network: two recurrent readers of a shopper's events, and three heads.

One reader, with attention over what was touched, is for the next item and its category. The other is for the purchase:
it reads kinds of events, times, steps of price and queries, but no items, which it would learn by heart.
R rows of events, P of them in packed order, D width, H hidden width, I state for items, S = I + PURCHASE_WIDTH state,
N items, F tabular features
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from scipy.special import ndtr
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from intent_platform.errors import ReleaseInvalid
from intent_platform.model.features import FEATURES, squash
from intent_platform.model.inputs import (
    NUMBERS,
    Catalogue,
    EventInputs,
    Inputs,
    Packed,
    Windows,
    batches,
    catalogue_of,
    pack,
    tile,
)
from intent_platform.model.logistic import LogisticRegression
from intent_platform.model.rows import TYPE_CODE

ROWS_PER_BATCH = 8_192
"""Rows that are read together when nothing is learned: bounds memory."""

PURCHASE_WIDTH = 64

ITEM_SCALE = 4.0
"""Length of an item's vector as the reader sees it: at length 1 it is lost beside the type and the numbers."""

FREE_ITEM_SCALE = 8.0
"""What a vector of learned length is multiplied by instead; at first it is 0.4 long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """network.json: what the weights need to be understood."""

    text_dimensions: int
    window_events: int
    categories: list[str]
    width: int = 128
    hidden: int = 128
    temperature: float | None = 16.0  # next-item logits are cosines times this; None: dot products of any length
    dropout: float = 0.25

    @property
    def item_state(self) -> int:
        """I: what has been read so far, what attention picked of it, and the event itself."""
        return self.hidden + 2 * self.width

    @property
    def item_scale(self) -> float:
        return FREE_ITEM_SCALE if self.temperature is None else ITEM_SCALE


class ItemTower(nn.Module):
    """An item's vector, of length 1 where a temperature is: what was learned of its id, plus text, category, price.

    Ids are dropped at random in training, so an item without one (never seen in training) works from the rest.
    """

    def __init__(self, shape: Shape, known_items: int) -> None:
        super().__init__()
        self.is_unit = shape.temperature is not None
        self.id = nn.Embedding(known_items + 1, shape.width, padding_idx=0)  # 0: unknown
        self.text = nn.Linear(shape.text_dimensions, shape.width, bias=False)
        self.category = nn.Embedding(len(shape.categories) + 1, shape.width, padding_idx=0)  # 0: none
        self.price = nn.Linear(2, shape.width, bias=False)  # a bias would be in every item: all alike at first
        nn.init.normal_(self.id.weight, std=0.05)
        nn.init.normal_(self.category.weight, std=0.05)
        nn.init.normal_(self.price.weight, std=0.05)
        with torch.no_grad():
            self.id.weight[0] = 0
            self.category.weight[0] = 0

    def forward(self, id_N: Tensor, text_NT: Tensor, category_N: Tensor, price_N2: Tensor) -> Tensor:
        vector_ND = self.id(id_N) + self.text(text_NT) + self.category(category_N) + self.price(price_N2)
        return nn.functional.normalize(vector_ND, dim=1) if self.is_unit else vector_ND


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedEvents:
    """What both readers take in of the packed rows."""

    type_P: Tensor
    numbers_PK: Tensor
    query_P: Tensor  # row of `queries`, −1 for none
    queries: Tensor  # (distinct queries, text dimensions)
    batch_sizes: Tensor

    @classmethod
    def of(cls, events: EventInputs, packed: Packed, device: torch.device) -> "PackedEvents":
        columns = (events.type_code, events.numbers, events.query)
        type_P, numbers_PK, query_P = (torch.from_numpy(each[packed.row]).to(device) for each in columns)
        queries = torch.from_numpy(events.query_vectors).to(device)
        return cls(
            type_P=type_P,
            numbers_PK=numbers_PK,
            query_P=query_P,
            queries=queries,
            batch_sizes=torch.from_numpy(packed.batch_sizes),
        )

    def seen_queries(self, to_vector: nn.Linear) -> Tensor:
        """(P, …): to_vector of each row's query; zeros where there is none."""
        if not len(self.queries):
            return self.numbers_PK.new_zeros(len(self.query_P), to_vector.out_features)
        return to_vector(self.queries)[self.query_P.clamp(min=0)] * (self.query_P >= 0).unsqueeze(1)


class PurchaseReader(nn.Module):
    """(P, PURCHASE_WIDTH): how a shopper goes about it so far, and the head that says whether it ends in a purchase."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.event_type = nn.Embedding(len(TYPE_CODE), 16)
        self.numbers = nn.Sequential(nn.Linear(len(NUMBERS), 32), nn.GELU())
        self.query = nn.Linear(shape.text_dimensions, 32, bias=False)
        self.join = nn.Sequential(nn.Linear(16 + 32 + 32, PURCHASE_WIDTH), nn.LayerNorm(PURCHASE_WIDTH))
        self.reader = nn.GRU(PURCHASE_WIDTH, PURCHASE_WIDTH)
        self.dropout = nn.Dropout(shape.dropout)
        self.deep = nn.Sequential(
            nn.Linear(PURCHASE_WIDTH + len(FEATURES), 64), nn.GELU(), nn.Dropout(shape.dropout), nn.Linear(64, 1)
        )
        self.line = nn.Linear(len(FEATURES), 1)
        for weight in self.deep[-1].parameters():
            nn.init.zeros_(weight)

    def forward(self, events: PackedEvents) -> Tensor:
        parts = self.event_type(events.type_P), self.numbers(events.numbers_PK), events.seen_queries(self.query)
        joined = PackedSequence(self.join(torch.cat(parts, dim=1)), events.batch_sizes)
        return self.dropout(self.reader(joined)[0].data)

    def buys(self, read_EW: Tensor, features_EF: Tensor) -> Tensor:
        """(E,): log-odds, by a line through the features and a deep part beside it (Cheng et al. 2016, Wide & Deep)."""
        return (self.deep(torch.cat([read_EW, features_EF], dim=1)) + self.line(features_EF)).squeeze(1)

    def start_as(self, fitted: LogisticRegression) -> None:
        """Begin as a logistic regression on the same features: with few buyers, little is learned beyond it."""
        with torch.no_grad():
            self.line.weight.copy_(torch.tensor([fitted.weight]))
            self.line.bias.fill_(fitted.bias)


class BehaviourNetwork(nn.Module):
    """Reads events in order; a row's output knows that row and the ones before it, nothing later."""

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, shape: Shape, known_items: list[str]) -> None:
        super().__init__()
        self.shape, self.known_items = shape, known_items
        self.tower = ItemTower(shape, len(known_items))
        self.event_type = nn.Embedding(len(TYPE_CODE), 16)
        self.query = nn.Linear(shape.text_dimensions, shape.width, bias=False)
        self.numbers = nn.Sequential(nn.Linear(len(NUMBERS), 32), nn.GELU())
        self.join = nn.Sequential(nn.Linear(2 * shape.width + 16 + 32, shape.hidden), nn.LayerNorm(shape.hidden))
        self.reader = nn.GRU(shape.hidden, shape.hidden)
        self.asks = nn.Linear(shape.hidden, shape.width, bias=False)
        self.answers = nn.Linear(shape.hidden, shape.width, bias=False)
        self.dropout = nn.Dropout(shape.dropout)
        self.to_item = nn.Linear(shape.item_state, shape.width)
        self.to_category = nn.Linear(shape.item_state, len(shape.categories) + 1)
        self.purchase = PurchaseReader(shape)
        self.register_buffer("feature_mean", torch.zeros(len(FEATURES)))
        self.register_buffer("feature_scale", torch.ones(len(FEATURES)))
        self.id_number = {item_id: number for number, item_id in enumerate(known_items, start=1)}
        self.eval()  # but for the epochs of a training

    @property
    def device(self) -> torch.device:
        return self.feature_mean.device

    def forward(
        self,
        events: EventInputs,
        packed: Packed,
        item_vectors_ND: Tensor,
        place: np.ndarray | None = None,
        *,
        is_purchase_read: bool = True,
    ) -> Tensor:
        """State (P, S) after each packed row; (P, I) where the purchase half is not read.

        item_vectors_ND: by position in the catalogue; or of a few items only, and `place` then says for each position
        of the catalogue in which row they stand.
        """
        given = PackedEvents.of(events, packed, self.device)
        item = events.item[packed.row]
        item_P = torch.from_numpy(item if place is None else np.where(item >= 0, place[item], -1)).to(self.device)
        item_PD = self.dropout(
            self.shape.item_scale * item_vectors_ND[item_P.clamp(min=0)] * (item_P >= 0).unsqueeze(1)
        )
        query_PD = given.seen_queries(self.query)
        parts = item_PD, query_PD, self.event_type(given.type_P), self.numbers(given.numbers_PK)
        joined_PH = self.join(torch.cat(parts, dim=1))
        read_PH = self.reader(PackedSequence(joined_PH, given.batch_sizes))[0].data
        meant_PD = item_PD + query_PD
        attended_PD = self._attend(read_PH, meant_PD, given.batch_sizes)
        of_items_PI = self.dropout(torch.cat([read_PH, attended_PD, meant_PD], dim=1))
        return torch.cat([of_items_PI, self.purchase(given)], dim=1) if is_purchase_read else of_items_PI

    def _attend(self, read_PH: Tensor, meant_PD: Tensor, batch_sizes: Tensor) -> Tensor:
        """(P, D): each row's mix of what its own and the earlier events meant. Causal, so padding behind is unseen."""
        asks, answers, meant = (
            pad_packed_sequence(PackedSequence(each, batch_sizes), batch_first=True)[0]
            for each in (self.asks(read_PH), self.answers(read_PH), meant_PD)
        )
        mixed_WTD = nn.functional.scaled_dot_product_attention(asks, answers, meant, is_causal=True)
        is_real_TW = torch.arange(mixed_WTD.shape[0]) < batch_sizes[:, None]
        return mixed_WTD.transpose(0, 1)[is_real_TW.to(mixed_WTD.device)]

    def buy_logits(self, state_ES: Tensor, features_EF: Tensor) -> Tensor:
        """(E,): log-odds of a purchase within the horizon."""
        of_purchase = state_ES[:, self.shape.item_state :]
        return self.purchase.buys(of_purchase, features_EF)

    def wanted_items(self, state_PS: Tensor) -> Tensor:
        """(P, D): its dot products with item vectors are the next-item logits; of length `temperature` if any."""
        wanted_PD = self.to_item(state_PS[:, : self.shape.item_state])
        temperature = self.shape.temperature
        return wanted_PD if temperature is None else temperature * nn.functional.normalize(wanted_PD, dim=1)

    def category_logits(self, state_PS: Tensor) -> Tensor:
        """(P, categories + 1): log-odds of the next item's category; 0 is none."""
        return self.to_category(state_PS[:, : self.shape.item_state])

    def scaled(self, table: np.ndarray) -> Tensor:
        """Tabular features on the scale that the head was trained with; unknown becomes the mean."""
        return torch.from_numpy(self._scaled(table)).to(self.device)

    def _scaled(self, table: np.ndarray) -> np.ndarray:
        scaled = (squash(table) - array_of(self.feature_mean)) / array_of(self.feature_scale)
        return np.clip(np.where(np.isnan(scaled), np.float32(0.0), scaled), -5, 5)

    def tower_inputs(self, catalogue: Catalogue) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        category_number = {name: number for number, name in enumerate(self.shape.categories, start=1)}
        ids = [self.id_number.get(item_id, 0) for item_id in catalogue.item_ids.to_pylist()]
        categories = [category_number.get(name or "", 0) for name in catalogue.categories]
        is_priced = np.isfinite(catalogue.log_price)
        price = np.stack([np.nan_to_num(catalogue.log_price) / 5, is_priced], axis=1).astype(np.float32)
        inputs = (
            torch.tensor(ids),
            torch.from_numpy(catalogue.text_vectors),
            torch.tensor(categories),
            torch.from_numpy(price),
        )
        return tuple(each.to(self.device) for each in inputs)  # type: ignore[return-value]

    @torch.inference_mode()
    def item_vectors(self, items: pa.Table, text_vectors: np.ndarray) -> np.ndarray:
        """float32 (N, D), for any items, also such that training never saw."""
        return self.tower(*self.tower_inputs(catalogue_of(items, text_vectors))).cpu().numpy()

    @torch.inference_mode()
    def read_out(
        self,
        events: EventInputs,
        windows: Windows,
        item_vectors: np.ndarray,
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """float32 (…, S): states of the rows that are read out, and wanted (bool (R,)), by (window, row)."""
        vectors = torch.from_numpy(item_vectors).to(self.device)
        found, places = [], []
        before = 0
        for batch in batches(windows, ROWS_PER_BATCH):
            packed = pack(batch)
            hidden = self(events, packed, vectors)
            kept = np.flatnonzero(packed.is_read_out if wanted is None else packed.is_read_out & wanted[packed.row])
            found.append(hidden[torch.from_numpy(kept).to(self.device)].cpu().numpy())
            places.append(np.stack([packed.window[kept] + before, packed.row[kept]]))
            before += len(batch)
        if not found:
            return np.zeros(0, np.float32)
        window, row = np.concatenate(places, axis=1)
        return np.concatenate(found)[np.lexsort((row, window))]

    def states(self, inputs: Inputs, item_vectors: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """float32 (len(positions), S): many positions of the same users, read in overlapping windows.

        Each position has at least half a window of events before it, if there are as many.
        """
        rows, length = inputs.rows, self.shape.window_events
        distinct, of = np.unique(positions, return_inverse=True)
        users, first = np.unique(rows.user[distinct], return_index=True)
        last = np.append(first[1:], len(distinct)) - 1
        begin = np.maximum(rows.starts[users], distinct[first] - length // 2)
        wanted = np.zeros(len(rows), bool)
        wanted[distinct] = True
        # Windows come in order of rows and count each row once, so what is read out is in order of position.
        windows = tile(begin, distinct[last] + 1, length)
        return self.read_out(inputs.events, windows, item_vectors, wanted)[of]

    # What follows is computed in numpy: torch's first calls in a batch of a few shoppers cost more than the products.

    def purchase_probability(self, hidden: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Raw probability, float64 (E,), from states and tabular features."""
        features = self._scaled(table)
        first, last = self.purchase.deep[0], self.purchase.deep[-1]
        deep = linear(first, np.concatenate([hidden[:, self.shape.item_state :], features], axis=1))
        deep *= ndtr(deep)  # GELU
        logits = linear(last, deep) + linear(self.purchase.line, features)
        return 1.0 / (1.0 + np.exp(-logits[:, 0].astype(np.float64)))

    def user_vectors(self, hidden: np.ndarray) -> np.ndarray:
        """float32 (E, D): queries for the item index."""
        wanted = linear(self.to_item, hidden[:, : self.shape.item_state])
        if self.shape.temperature is None:
            return wanted
        length = np.sqrt(np.einsum("ed,ed->e", wanted, wanted))
        return wanted * (np.float32(self.shape.temperature) / np.maximum(length, np.float32(1e-12)))[:, None]

    def save(self, folder: Path) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / "network.safetensors")
        (folder / "network.json").write_text(json.dumps(asdict(self.shape), ensure_ascii=False), encoding="utf-8")
        (folder / "known_items.json").write_text(json.dumps(self.known_items, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str) -> "BehaviourNetwork":
        shape = Shape(**json.loads((folder / "network.json").read_text(encoding="utf-8")))
        network = cls(shape, json.loads((folder / "known_items.json").read_text(encoding="utf-8")))
        try:
            network.load_state_dict(load_file(folder / "network.safetensors"))
        except RuntimeError as error:
            raise ReleaseInvalid(
                f"{folder} holds the network of another version of this package; run `intent train` for a new one. "
                f"({str(error).splitlines()[0]})"
            ) from error
        return network.to(pick_device(device)).eval()


def array_of(weight: Tensor) -> np.ndarray:
    """Its numbers on the CPU, without a copy if they are there."""
    return weight.detach().cpu().numpy()


def linear(layer: Any, given: np.ndarray) -> np.ndarray:
    return given @ array_of(layer.weight).T + array_of(layer.bias)


def pick_device(wanted: str) -> torch.device:
    """cuda, cpu, or for auto cuda when there is one."""
    is_there = torch.cuda.is_available()
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and is_there) else "cpu")
