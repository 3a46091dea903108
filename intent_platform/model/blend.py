"""The learned blend for next items: candidates of several sources, ranked by one conditional logit over their scores.

P(item | candidates) = softmax of the weighted features of each candidate (McFadden 1974, "Conditional logit analysis of
qualitative choice behavior"). Networks and neighbours err on different sessions, so a weighted sum of their log scores
beats both; the weights are fitted on validation examples, so a source that adds nothing gets none.

Q prefixes, C candidates of each, N items, D width, T text dimensions, F features
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from intent_platform.model.neighbours import (
    DENSE_ENTRIES,
    Decays,
    Held,
    Runs,
    SessionNeighbours,
    by_value_and_column,
    largest_of_rows,
    sequential_rules,
)

FEATURES = (
    *("network", "neighbours", "rules", "popularity"),
    *("meaning", "letters", "session_meaning", "session_letters"),
    *("is_in_prefix", "is_newest"),
)
"""Of a candidate: dot product with what the network wants; log shares of VSTAN's and the rules' scores and of
popularity; likeness of its text to the newest item's and to the session's, by the encoder and by n-grams; whether the
session holds it."""

SHARE_FLOOR = 1e-4
"""Added to a share before its logarithm: an item without neighbours is unlikely, not impossible."""

RULE_DECAY = 1.5
"""In items: how fast older ones lose weight among the items that rules begin at."""

SESSION_DECAY = 3.0
"""In items: how fast older ones lose weight in what a session's text says."""

NEWEST_BY_TEXT = 3
"""Items of a session whose likes by text are candidates."""

WHOLE_ITEMS = 2_000
"""Of so few items whole tables, a score for each, are made sooner than what concerns a few hundred is gathered."""

PER_SOURCE = 100
RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Blend:
    """blend.json: how the sources are weighted, and which days' sessions are the neighbours.

    The sessions themselves stay in the lake, where a person can be erased from them.
    """

    weights: dict[str, float]  # feature → weight
    decays: Decays
    sessions_from: date
    sessions_until: date

    @property
    def weight(self) -> np.ndarray:
        """float64 (F,), in the order of FEATURES."""
        return np.array([self.weights[name] for name in FEATURES])

    def save(self, path: Path) -> None:
        decays = {name: value if np.isfinite(value) else None for name, value in asdict(self.decays).items()}
        days = {"sessions_from": str(self.sessions_from), "sessions_until": str(self.sessions_until)}
        stored = {"weights": self.weights, "decays": decays, **days}
        path.write_text(json.dumps(stored, indent=1, sort_keys=True), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Blend":
        stored = json.loads(path.read_text(encoding="utf-8"))
        decays: dict[str, Any] = {name: np.inf if each is None else each for name, each in stored["decays"].items()}
        return cls(
            weights=stored["weights"],
            decays=Decays(**decays),
            sessions_from=date.fromisoformat(stored["sessions_from"]),
            sessions_until=date.fromisoformat(stored["sessions_until"]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Shop:
    """What is known of N items, whoever asks."""

    vectors: np.ndarray  # float32 (N, D): the network's
    text_vectors: np.ndarray  # float32 (N, T): [encoder ; n-grams]
    encoder_dimensions: int
    near_by_text: np.ndarray  # int (N, k): items most alike by text, −1 where there are fewer
    neighbours: SessionNeighbours
    rules: sp.csr_matrix  # (N, N)
    popularity: np.ndarray  # float64 (N,): how often the sessions hold an item

    @classmethod
    def of(
        cls,
        sessions: Runs,
        decays: Decays,
        *,
        vectors: np.ndarray,
        text_vectors: np.ndarray,
        encoder_dimensions: int,
        near_by_text: np.ndarray,
    ) -> "Shop":
        return cls(
            vectors=vectors,
            text_vectors=text_vectors,
            encoder_dimensions=encoder_dimensions,
            near_by_text=near_by_text,
            neighbours=SessionNeighbours(sessions=sessions, items=len(vectors), decays=decays),
            rules=sequential_rules(sessions, len(vectors)),
            popularity=np.bincount(sessions.item, minlength=len(vectors)).astype(np.float64),
        )

    @property
    def text_parts(self) -> tuple[slice, slice]:
        """Of text_vectors: the encoder's and the n-grams'."""
        return slice(0, self.encoder_dimensions), slice(self.encoder_dimensions, None)

    @cached_property
    def rule_table(self) -> np.ndarray:
        """float32 (N, N): the rules, whole."""
        return self.rules.toarray()

    @cached_property
    def likeness_table(self) -> np.ndarray:
        """float32 (N, 2 N): dot products of each item's text with every one's, by the encoder and by n-grams."""
        parts = (self.text_vectors[:, part] for part in self.text_parts)
        return np.concatenate([part @ part.T for part in parts], axis=1)

    @cached_property
    def log_popularity(self) -> np.ndarray:
        """float64 (N,): of each item's share in all that the sessions hold."""
        return np.log(self.popularity / max(float(self.popularity.sum()), 1e-9) + SHARE_FLOOR / 100)


Scores: TypeAlias = np.ndarray | sp.csr_matrix
"""(Q, N), none below 0: a whole table for a shop of at most WHOLE_ITEMS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """item: int64 (Q, C), each row in order, −1 first where a prefix has fewer; features: float32 (Q, C, F)."""

    item: np.ndarray
    features: np.ndarray


def find_candidates(
    shop: Shop, prefixes: Runs, wanted: np.ndarray, nearest: np.ndarray, *, per_source: int = PER_SOURCE
) -> Candidates:
    """The best items of every source and those of the prefix itself, each once, for up to PREFIXES_PER_CHUNK prefixes.

    wanted: float32 (Q, D), the network's queries; nearest: int (Q, c), the items they find in the index.
    """
    held = Held.of(prefixes, len(shop.vectors))
    if len(shop.vectors) <= WHOLE_ITEMS:
        near, rules = shop.neighbours.table_of(held), _weighted(prefixes, RULE_DECAY, shop.rule_table)
    else:
        near, rules = shop.neighbours.scores_of(held), _weighted(prefixes, RULE_DECAY, shop.rules)
    by_text = _near_by_text(shop, prefixes)
    sources = (nearest, _top(near, per_source), _top(rules, per_source), by_text, _listed(held))
    item = _each_once(np.concatenate(sources, axis=1))
    row, column = np.arange(len(item))[:, None], np.maximum(item, 0)
    place = held.place_of(row * len(shop.vectors) + column)
    meaning, letters = _likeness(shop, prefixes, column)
    features = [
        _dots(wanted[None], shop.vectors, column)[0],
        np.log(_share_of(near, row, column) + SHARE_FLOOR),
        np.log(_share_of(rules, row, column) + SHARE_FLOOR),
        shop.log_popularity[column],
        meaning[0],
        letters[0],
        meaning[1],
        letters[1],
        place > 0,
        (place > 0) & (place == np.diff(prefixes.starts)[:, None]),
    ]
    return Candidates(item=item, features=np.stack(features, axis=2).astype(np.float32))


def fit_blend(batches: Sequence[Candidates], target: Sequence[np.ndarray]) -> np.ndarray:
    """float64 (F,): weights of greatest likelihood of the targets among their candidates, with a small ridge."""
    chosen, features = [], []
    for candidates, wanted in zip(batches, target, strict=True):
        is_wanted = candidates.item == wanted[:, None]
        kept = is_wanted.any(axis=1)
        chosen.append(is_wanted[kept].argmax(axis=1))
        hidden = candidates.item[kept] < 0
        features.append(np.where(hidden[..., None], np.nan, candidates.features[kept]))
    width = max(each.shape[1] for each in features)
    padded = [np.pad(each, ((0, 0), (0, width - each.shape[1]), (0, 0)), constant_values=np.nan) for each in features]
    table, choice = np.concatenate(padded), np.concatenate(chosen)
    is_real = ~np.isnan(table[..., 0])
    scale = np.maximum(np.nanstd(table.reshape(-1, len(FEATURES)), axis=0), 1e-6)
    table = np.nan_to_num(table / scale)
    own = table[np.arange(len(choice)), choice]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.where(is_real, table @ weights, -np.inf)
        top = scores.max(axis=1, keepdims=True)
        share = np.exp(scores - top)
        total = share.sum(axis=1, keepdims=True)
        value = (np.log(total[:, 0]) + top[:, 0] - own @ weights).mean() + RIDGE * weights @ weights
        expected = np.einsum("qc,qcf->qf", share / total, table)
        return float(value), (expected - own).mean(axis=0) + 2 * RIDGE * weights

    start = np.zeros(len(FEATURES))
    start[0] = scale[0]  # the network alone
    return minimize(loss, start, jac=True, method="L-BFGS-B").x / scale


def rank_candidates(candidates: Candidates, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items (int64 (Q, C)), best first, −1 at the end, and log-odds (float64); of equals the lower position first."""
    scores = np.where(candidates.item >= 0, candidates.features @ weights, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(candidates.item, order, axis=1), np.take_along_axis(scores, order, axis=1)


def place_of(target: np.ndarray, ranked: np.ndarray, items: int) -> np.ndarray:
    """int64 (Q,), from 1: where each target stands among its ranked candidates; one that is no candidate comes last."""
    is_target = ranked == target[:, None]
    return np.where(is_target.any(axis=1), 1 + is_target.argmax(axis=1), items)


def _newest(prefixes: Runs) -> np.ndarray:
    """int64 (Q,): the newest item of each prefix; −1 for an empty one."""
    last = prefixes.starts[1:] - 1
    is_empty = last < prefixes.starts[:-1]
    return np.where(is_empty, -1, np.append(prefixes.item, -1)[last])


def _near_by_text(shop: Shop, prefixes: Runs) -> np.ndarray:
    """int64 (Q, NEWEST_BY_TEXT · k): items like the newest ones of each prefix."""
    place = prefixes.starts[1:, None] - 1 - np.arange(NEWEST_BY_TEXT)
    is_there = place >= prefixes.starts[:-1, None]
    item = np.append(prefixes.item, -1)[np.where(is_there, place, -1)]
    near = np.where(is_there[..., None], shop.near_by_text[item], -1)
    return near.reshape(len(prefixes), -1)


def _likeness(shop: Shop, prefixes: Runs, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (2, Q, C) each, by the encoder and by n-grams: dot products of items' texts with that of the prefix's
    newest item and with that of the session."""
    if len(shop.vectors) <= WHOLE_ITEMS:
        items, own = len(shop.vectors), _newest_and_mean(prefixes, shop.likeness_table)
        row = np.arange(len(column))[:, None]
        return own[:, row, column], own[:, row, items + column]
    own = _newest_and_mean(prefixes, shop.text_vectors)
    meaning, letters = (_dots(own[..., part], shop.text_vectors[:, part], column) for part in shop.text_parts)
    return meaning, letters


def _newest_and_mean(prefixes: Runs, table: np.ndarray) -> np.ndarray:
    """float32 (2, Q, …): the row of table (N, …) that each prefix's newest item has, and a weighted mean of all its
    items' rows, newer ones weighing more."""
    newest = _newest(prefixes)
    total = np.bincount(prefixes.owner, weights=np.exp(-prefixes.from_end / SESSION_DECAY), minlength=len(prefixes))
    found = np.empty((2, len(prefixes), table.shape[1]), np.float32)
    found[0] = np.where(newest[:, None] >= 0, table[newest], 0.0)
    found[1] = _weighted(prefixes, SESSION_DECAY, table) / np.maximum(total, 1e-9)[:, None]
    return found


def _weighted(prefixes: Runs, decay: float, table: Any) -> Any:
    """(Q, …): sums of the rows of table (N, …) that the prefixes' items have, newer items weighing more."""
    weight = np.exp(-prefixes.from_end / decay).astype(np.float32)
    return sp.csr_matrix((weight, prefixes.item, prefixes.starts), shape=(len(prefixes), table.shape[0])) @ table


def _dots(own: np.ndarray, vectors: np.ndarray, column: np.ndarray) -> np.ndarray:
    """float32 (K, Q, C): each of own (K, Q, T) times those rows of vectors (N, T) that column (Q, C) names."""
    if len(vectors) <= WHOLE_ITEMS:
        products = np.concatenate(own) @ vectors.T
        return products.reshape(*own.shape[:2], len(vectors))[:, np.arange(len(column))[:, None], column]
    found = np.empty((len(own), *column.shape), np.float32)
    for query, items in enumerate(column):
        np.matmul(own[:, query], vectors[items].T, out=found[:, query])
    return found


def _listed(held: Held) -> np.ndarray:
    """int64 (Q, longest): the items of each prefix, −1 where it has fewer."""
    length = np.diff(held.starts)
    listed = np.full((len(length), int(length.max(initial=1))), -1)
    row = np.repeat(np.arange(len(length)), length)
    listed[row, np.arange(len(row)) - held.starts[row]] = held.item
    return listed


def _top(scores: Scores, count: int) -> np.ndarray:
    """int64 (Q, count or all N): columns of a row's largest entries, in no order; −1 where it has fewer."""
    if isinstance(scores, np.ndarray):
        rest = max(scores.shape[1] - count, 0)
        key = by_value_and_column(scores, np.arange(scores.shape[1]))
        column = np.argpartition(key, rest, axis=1)[:, rest:]
        return np.where(np.take_along_axis(scores, column, axis=1) > 0, column, -1)
    row, kept = largest_of_rows(scores, count)
    top = np.full((scores.shape[0], count), -1)
    top[row, np.arange(len(row)) - np.searchsorted(row, row)] = scores.indices[kept]
    return top


def _each_once(item: np.ndarray) -> np.ndarray:
    """Sorted by row, repeats and gaps as −1 at the front, cut to the longest row."""
    item = np.sort(item, axis=1)
    item[:, 1:][item[:, 1:] == item[:, :-1]] = -1
    item = np.sort(item, axis=1)
    return item[:, (item >= 0).any(axis=0).argmax() :]


def _share_of(scores: Scores, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """float (Q, C): entries as shares of their rows' sums."""
    total = np.maximum(np.asarray(scores.sum(axis=1)).reshape(-1, 1), 1e-12)
    if isinstance(scores, np.ndarray):
        return scores[row, column] / total
    if np.prod(scores.shape) <= DENSE_ENTRIES:
        return scores.toarray()[row, column] / total
    rows = np.broadcast_to(row, column.shape)
    return np.asarray(scores[rows.ravel(), column.ravel()]).reshape(column.shape) / total
