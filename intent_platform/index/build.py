"""Items, a model's vectors of them and what is known of the demand → the files of an index folder."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from intent_platform.errors import IndexInvalid, NotEnoughData
from intent_platform.index.demand import Demand
from intent_platform.index.item_index import (
    ARRAYS,
    BY_TEXT,
    BY_VECTOR,
    ITEM_COLUMNS,
    ITEMS,
    NEIGHBOURS,
    PASSPORT,
    ItemIndex,
    Passport,
    codes_of,
    positions_among,
)
from intent_platform.index.lexical_index import index_texts
from intent_platform.index.nearest import Nearest, build_nearest
from intent_platform.model.behaviour import Model
from intent_platform.model.inputs import KnownItems
from intent_platform.model.rows import Rows
from intent_platform.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """How an index came about, which its folder does not tell."""

    seconds: float  # that FAISS took
    is_trained: bool  # False: it lives on codes and lists of the index before


def build_index(
    model: Model,
    items: pa.Table,
    demand: Demand,
    settings: Settings,
    folder: Path,
    before: ItemIndex | None = None,
) -> Built:
    """Write the files of an index folder.

    items: as the lake holds them. before: an index of the same model, whose trained codes are used again while they
    find enough. NotEnoughData without items; IndexInvalid for items or vectors that no index can be made of.
    """
    items = _checked_items(items).sort_by("item_id")
    texts = model.item_texts(items)
    text_vectors = model.text.vectors(texts)
    vectors = model.item_vectors(items, text_vectors)
    _check_vectors(items, vectors)
    asked_texts = model.text.vectors(demand.queries)
    asked = _user_vectors(model, items, vectors, demand.histories) if model.network is not None else asked_texts
    began = time.perf_counter()
    by_vector, measured = build_nearest(vectors, asked, settings, before.by_vector if before else None)
    by_text, measured_text = by_vector, measured
    if model.network is not None:
        by_text, measured_text = build_nearest(text_vectors, asked_texts, settings, before.by_text if before else None)
    seconds = time.perf_counter() - began
    passport = Passport(
        model_digest=model.digest,
        kind=by_vector.kind,
        text_kind=by_text.kind,
        items=len(vectors),
        dimensions=vectors.shape[1],
        recall_at_20=round(measured.recall_at_20, 6),
        text_recall_at_20=round(measured_text.recall_at_20, 6),
        score_error=float(f"{max(measured.score_error, measured_text.score_error):.2g}"),
        questions=measured.questions,
        text_questions=measured_text.questions,
        orphans=pc.sum(items["is_stub"]).as_py(),
        catalogue_until=_iso(pc.max(items["updated_at"]).as_py()),
        demand_until=_iso(demand.until),
    )
    _save(folder, passport, items, texts, demand, by_vector, by_text)
    return Built(seconds=seconds, is_trained=measured.is_trained and measured_text.is_trained)


def _checked_items(items: pa.Table) -> pa.Table:
    if items.num_rows == 0:
        raise NotEnoughData("There are no items to index: load a catalogue or publish a day with item events first.")
    counts = pc.value_counts(items["item_id"])
    is_double = pc.greater(counts.field("counts"), 1)
    doubles = counts.field("values").filter(is_double)
    if len(doubles):
        raise IndexInvalid(
            f"{len(doubles):,} item ids are there more than once, {doubles[0].as_py()!r} among them; an index needs "
            "one row an item. Load the catalogue again: it keeps the newest row of each."
        )
    return items.select([*ITEM_COLUMNS, "is_available", "is_stub", "updated_at"])


def _check_vectors(items: pa.Table, vectors: np.ndarray) -> None:
    if vectors.shape[0] != items.num_rows:
        raise IndexInvalid(f"The model made {vectors.shape[0]:,} vectors of {items.num_rows:,} items.")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise IndexInvalid(
            f"{len(broken):,} of {len(vectors):,} item vectors hold NaN or infinity, that of item "
            f"{items['item_id'][int(broken[0])].as_py()!r} among them. Nothing was built; train again, or promote "
            "another model."
        )


def _user_vectors(model: Model, items: pa.Table, vectors: np.ndarray, histories: pa.Table) -> np.ndarray:
    """float32 (users, D): what a sample of shoppers asks an index of these items."""
    assert model.network is not None
    rows = Rows.of(histories)
    if not rows.users:
        return np.zeros((0, vectors.shape[1]), np.float32)
    item = np.append(positions_among(items, rows.item[1]), -1)[rows.item[0]]
    known = KnownItems(vectors=vectors, category=codes_of(items, "category")[0])
    hidden = model.hidden(rows, rows.starts[1:] - 1, item, known)
    assert hidden is not None
    return model.network.user_vectors(hidden)


def _iso(moment: date | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _save(
    folder: Path,
    passport: Passport,
    items: pa.Table,
    texts: Sequence[str],
    demand: Demand,
    by_vector: Nearest,
    by_text: Nearest,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PASSPORT).write_text(json.dumps(asdict(passport), indent=1, sort_keys=True), encoding="utf-8")
    pq.write_table(items.select(ITEM_COLUMNS), folder / ITEMS, compression="zstd")
    arrays = {
        "popularity": demand.popularity_of(items["item_id"]),
        "return_days": demand.return_days_of(items["category"]),
        "neighbours": _neighbours(by_text),
        **index_texts(list(texts)).arrays(),
    }
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS)
    by_vector.save(folder / BY_VECTOR)
    if by_text is not by_vector:
        by_text.save(folder / BY_TEXT)


def _neighbours(by_text: Nearest) -> np.ndarray:
    """int32 (N, NEIGHBOURS): the items most alike, without the item itself; −1 where there are fewer."""
    _, near = by_text.search(by_text.vectors, NEIGHBOURS + 1)
    is_self = near == np.arange(len(near))[:, None]
    is_self[:, -1] |= ~is_self.any(axis=1)  # among equals an item may not find itself: drop the last instead
    is_self &= np.cumsum(is_self, axis=1) == 1
    kept = near[~is_self].reshape(len(near), near.shape[1] - 1)
    padded = np.full((len(near), NEIGHBOURS), -1, np.int32)
    padded[:, : kept.shape[1]] = kept
    return padded
