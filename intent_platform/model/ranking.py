"""Next items by the blend, in training: fitted on validation examples, then ranked on the test's.

E examples, N items
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np

from intent_platform.model.blend import (
    FEATURES,
    NEWEST_BY_TEXT,
    PER_SOURCE,
    Blend,
    Candidates,
    Shop,
    find_candidates,
    fit_blend,
    place_of,
    rank_candidates,
)
from intent_platform.model.inputs import Catalogue, Inputs
from intent_platform.model.neighbours import (
    PREFIXES_PER_CHUNK,
    Decays,
    Runs,
    fit_decays,
    prefixes_at,
    sessions_of,
)

NEAR_BY_TEXT = 20
DECAY_PREFIXES = 2_000  # the decays are tried one by one, and differ by far more than the sampling error of so many


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Examples of which the next item is known, and what the network wants at each."""

    position: np.ndarray  # int64 (E,)
    next_item: np.ndarray  # int64 (E,)
    wanted: np.ndarray  # float32 (E, D)
    vectors: np.ndarray  # float32 (N, D): the network's items
    encoder_dimensions: int  # of the catalogue's text vectors, the first
    known_until: int  # µs: sessions begun before are neighbours

    def __len__(self) -> int:
        return len(self.position)


def fit_next_items(inputs: Inputs, asked: Asked, days: tuple[date, date]) -> Blend:
    """days: the first and last whose sessions will be the neighbours once the blend serves."""
    sessions = sessions_of(inputs.rows, inputs.events.item, asked.known_until)
    prefixes = prefixes_at(inputs.rows, inputs.events.item, asked.position)
    few = min(DECAY_PREFIXES, len(asked))
    decays = fit_decays(sessions, len(asked.vectors), prefixes.slice(0, few), asked.next_item[:few])
    shop = _shop(sessions, decays, prefixes, inputs.catalogue, asked)
    batches = list(_candidates(shop, prefixes, asked))
    ends = np.cumsum([len(each.item) for each in batches])[:-1]
    weights = fit_blend(batches, np.split(asked.next_item, ends))
    return Blend(
        weights=dict(zip(FEATURES, weights.tolist(), strict=True)),
        decays=decays,
        sessions_from=days[0],
        sessions_until=days[1],
    )


def blend_ranks(blend: Blend, inputs: Inputs, asked: Asked) -> np.ndarray:
    """int64 (E,), from 1: place of each example's next item; one that is no candidate comes last."""
    sessions = sessions_of(inputs.rows, inputs.events.item, asked.known_until)
    prefixes = prefixes_at(inputs.rows, inputs.events.item, asked.position)
    shop = _shop(sessions, blend.decays, prefixes, inputs.catalogue, asked)
    ranked = [rank_candidates(each, blend.weight)[0] for each in _candidates(shop, prefixes, asked)]
    ends = np.cumsum([len(each) for each in ranked])[:-1]
    places = [
        place_of(target, each, len(asked.vectors))
        for target, each in zip(np.split(asked.next_item, ends), ranked, strict=True)
    ]
    return np.concatenate(places) if places else np.zeros(0, np.int64)


def ranks(queries: np.ndarray, vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """int64: place of each target among all items by dot product, from 1; equals before it count."""
    found = []
    for start in range(0, len(queries), 1_024):
        scores = queries[start : start + 1_024] @ vectors.T
        own = np.take_along_axis(scores, target[start : start + 1_024, None], axis=1)
        found.append((scores >= own).sum(axis=1))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _shop(sessions: Runs, decays: Decays, prefixes: Runs, catalogue: Catalogue, asked: Asked) -> Shop:
    return Shop.of(
        sessions,
        decays,
        vectors=asked.vectors,
        text_vectors=catalogue.text_vectors,
        encoder_dimensions=asked.encoder_dimensions,
        near_by_text=_near_by_text(
            catalogue.text_vectors, np.unique(prefixes.item[prefixes.from_end < NEWEST_BY_TEXT])
        ),
    )


def _candidates(shop: Shop, prefixes: Runs, asked: Asked) -> Iterator[Candidates]:
    for first in range(0, len(asked), PREFIXES_PER_CHUNK):
        last = min(first + PREFIXES_PER_CHUNK, len(asked))
        wanted = asked.wanted[first:last]
        yield find_candidates(shop, prefixes.slice(first, last), wanted, _nearest(wanted, shop.vectors, PER_SOURCE))


def _near_by_text(text_vectors: np.ndarray, looked_at: np.ndarray) -> np.ndarray:
    """int64 (N, NEAR_BY_TEXT): items most alike by text to those that are looked at, −1 for all others."""
    near = np.full((len(text_vectors), NEAR_BY_TEXT), -1)
    count = min(NEAR_BY_TEXT + 1, len(text_vectors))
    for first in range(0, len(looked_at), PREFIXES_PER_CHUNK):
        chunk = looked_at[first : first + PREFIXES_PER_CHUNK]
        found = _nearest(text_vectors[chunk], text_vectors, count)
        found[found == chunk[:, None]] = -1
        near[chunk, : count - 1] = -np.sort(-found, axis=1)[:, : count - 1]
    return near


def _nearest(queries: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """int64 (Q, at most count): items with the greatest dot products, in any order."""
    count = min(count, len(vectors))
    return np.argpartition(-(queries @ vectors.T), count - 1, axis=1)[:, :count]
