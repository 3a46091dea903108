"""Text to items: encoder and character n-grams each rank, reciprocal ranks are added (Cormack et al. 2009)."""

from dataclasses import dataclass

import numpy as np

from intent_platform.index.release import Release
from intent_platform.model.text import text_key

RANK_SHIFT = 60  # the paper's constant
DEPTH = 200
NEAR_RATIO = 0.4  # of the best similarity; below it an item shares stray letters, and its rank says nothing
NEAR_FLOOR = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    item_id: str
    title: str | None
    category: str | None
    price: float | None
    currency: str | None
    score: float


def search(release: Release, query: str, k: int = 10) -> list[Hit]:
    """The k available items that fit best; never empty while something is for sale: popular items close the list."""
    key = text_key(query)
    found = fused(release, [key])[0]
    order = np.lexsort((-release.popular.share, -found))
    order = order[release.is_available[order]][:k]
    return [_hit(release, int(position), float(found[position])) for position in order]


def fused(release: Release, keys: list[str]) -> np.ndarray:
    """float32 (queries, N): summed reciprocal ranks of both rankings; 0 for items that neither finds."""
    index, text = release.index, release.model.text
    scores = np.zeros((len(keys), len(index)), np.float32)
    lexical = (text.lexical.sparse(keys) @ index.lexical.T).toarray()
    _add_ranks(scores, lexical)
    if text.encoder.dimensions:
        width = text.encoder.dimensions
        _add_ranks(scores, text.encoder.encode(keys) @ index.text_vectors[:, :width].T)
    scores[[not key for key in keys]] = 0.0
    return scores


def _add_ranks(scores: np.ndarray, similarity: np.ndarray) -> None:
    depth = min(DEPTH, similarity.shape[1])
    top = np.argsort(-similarity, axis=1, kind="stable")[:, :depth]
    gain = np.broadcast_to(1.0 / (RANK_SHIFT + 1 + np.arange(depth)), top.shape)
    near = np.take_along_axis(similarity, top, axis=1)
    gain = np.where(near >= np.maximum(NEAR_RATIO * near[:, :1], NEAR_FLOOR), gain, 0.0)
    current = np.take_along_axis(scores, top, axis=1)
    np.put_along_axis(scores, top, (current + gain).astype(np.float32), axis=1)


def _hit(release: Release, position: int, score: float) -> Hit:
    row = release.index.items.slice(position, 1).to_pylist()[0]
    return Hit(
        item_id=row["item_id"],
        title=row["title"],
        category=row["category"],
        price=row["price"],
        currency=row["currency"],
        score=score,
    )
