"""An index folder index/<digest>/: the items with their vectors, FAISS over them, nearest items, lexical search."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file

from intent_platform.errors import NotEnoughData
from intent_platform.model import parts
from intent_platform.model.behaviour import Model
from intent_platform.settings import Settings

RECALL_AT = 20
RECALL_QUERIES = 1_000
NEIGHBOURS = 20

ITEM_COLUMNS = ("item_id", "title", "category", "brand", "price", "currency")


@dataclass(frozen=True, kw_only=True, slots=True)
class Passport:
    """index.json: what the index is and how well it finds; without times, so equal input gives an equal digest."""

    model_digest: str
    kind: str  # flat or ivf
    items: int
    dimensions: int
    recall_at_20: float
    text_recall_at_20: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemIndex:
    """N items in order of item_id; positions 0 … N − 1 stand for items everywhere in scoring."""

    digest: str
    passport: Passport
    items: pa.Table  # ITEM_COLUMNS
    popularity: np.ndarray  # float32 (N,): decayed attention, 0 for what nobody touched
    vectors: np.ndarray  # float32 (N, D): the model's item vectors
    text_vectors: np.ndarray  # float32 (N, text dimensions)
    neighbours: np.ndarray  # int32 (N, NEIGHBOURS): most alike by text, −1 where there are fewer
    lexical: sp.csr_matrix  # (N, n-gram buckets)
    faiss: Any
    text_faiss: Any

    def __len__(self) -> int:
        return self.items.num_rows

    @cached_property
    def position_of(self) -> dict[str, int]:
        return {item_id: position for position, item_id in enumerate(self.items["item_id"].to_pylist())}

    def positions(self, item_ids: pa.Array) -> np.ndarray:
        """int64 positions of item ids; −1 for NULL and for items that are not in the index."""
        if len(item_ids) < 1_000:
            return np.array([self.position_of.get(item_id, -1) for item_id in item_ids.to_pylist()], np.int64)
        found = pc.index_in(item_ids, value_set=self.items["item_id"].combine_chunks())
        return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def category(self) -> tuple[np.ndarray, list[str]]:
        """int64 (N,) codes into the sorted category names; −1: none."""
        names = sorted(set(self.items["category"].to_pylist()) - {None})
        codes = pc.index_in(self.items["category"].combine_chunks(), value_set=pa.array(names, pa.string()))
        return codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), names

    @cached_property
    def title(self) -> np.ndarray:
        """object (N,): title, or for a stub its id."""
        titles = pc.coalesce(self.items["title"], self.items["item_id"])
        return np.array(titles.to_pylist(), dtype=object)

    def nearest(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and positions (Q, k) of the items with the largest dot product; position −1 where there are fewer."""
        return self.faiss.search(np.ascontiguousarray(vectors, np.float32), min(k, len(self)))


def build_index(model: Model, items: pa.Table, popularity: dict[str, float], settings: Settings, folder: Path) -> float:
    """Write the files of an index folder; return the seconds FAISS took. NotEnoughData without items."""
    if items.num_rows == 0:
        raise NotEnoughData("There are no items to index: load a catalogue or publish a day with item events first.")
    items = items.select([*ITEM_COLUMNS, "is_available"]).sort_by("item_id")
    texts = model.item_texts(items)
    text_vectors = model.text.vectors(texts)
    vectors = model.item_vectors(items, text_vectors)
    began = time.perf_counter()
    index, recall = _build_faiss(vectors, settings)
    text_index, text_recall = (index, recall) if model.network is None else _build_faiss(text_vectors, settings)
    seconds = time.perf_counter() - began
    passport = Passport(
        model_digest=model.digest,
        kind=_kind(len(vectors), settings),
        items=len(vectors),
        dimensions=vectors.shape[1],
        recall_at_20=round(recall, 6),
        text_recall_at_20=round(text_recall, 6),
    )
    scores = np.array([popularity.get(item_id, 0.0) for item_id in items["item_id"].to_pylist()], np.float32)
    _, near = text_index.search(text_vectors, min(NEIGHBOURS + 1, len(vectors)))
    _save(folder, passport, items, scores, vectors, text_vectors, near, model, texts, index, text_index)
    return seconds


def load_index(root: str, digest: str, home: Path) -> ItemIndex:
    """Load index/<digest>, checked; once per process."""
    return _load(root, digest, home)


def exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Positions (Q, k) by exhaustive dot product: what an index is measured against."""
    k = min(k, len(vectors))
    found = []
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ vectors.T
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(top, order, axis=1))
    return np.concatenate(found)


def recall(vectors: np.ndarray, queries: np.ndarray, found: np.ndarray) -> float:
    """Share of the exact nearest that were found; an item with the same score as the last exact one counts too."""
    k = found.shape[1]
    truth = exact(vectors, queries, k)
    floor = np.einsum("qd,qd->q", queries, vectors[truth[:, -1]])
    scores = np.einsum("qd,qkd->qk", queries, vectors[np.maximum(found, 0)])
    is_near = (scores >= floor[:, None] - 1e-5) & (found >= 0)
    return float(np.minimum(is_near.sum(axis=1), k).mean() / k)


def _kind(items: int, settings: Settings) -> str:
    return "flat" if items <= settings.flat_index_max_items else "ivf"


def _build_faiss(vectors: np.ndarray, settings: Settings) -> tuple[Any, float]:
    """An inner-product index over rows, and its recall@20 against exact search on its own rows and mixtures of them."""
    import faiss

    faiss.omp_set_num_threads(settings.threads)
    queries = _sample_queries(vectors, settings.seed)
    if _kind(len(vectors), settings) == "flat":
        exact_index = faiss.IndexFlatIP(vectors.shape[1])
        exact_index.add(vectors)
        found = exact_index.search(queries, min(RECALL_AT, len(vectors)))[1]
        return exact_index, recall(vectors, queries, found)
    lists = int(4 * np.sqrt(len(vectors)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = settings.seed
    index = _fill(faiss, index, vectors, settings)
    return index, _probe_until_good(index, vectors, queries)


def _fill(faiss: Any, index: Any, vectors: np.ndarray, settings: Settings) -> Any:
    """Train and add, on the GPU when there is one; what is returned lives on the CPU and can be written."""
    has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if settings.device == "cpu" or not has_gpu:
        index.train(vectors)
        index.add(vectors)
        return index
    on_gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    on_gpu.train(vectors)
    on_gpu.add(vectors)
    return faiss.index_gpu_to_cpu(on_gpu)


def _probe_until_good(index: Any, vectors: np.ndarray, queries: np.ndarray) -> float:
    """Look into more lists until recall is 0.99; the number is stored in the index file."""
    found = 0.0
    for probes in (4, 8, 16, 32, 64, 128):
        index.nprobe = min(probes, index.nlist)
        found = recall(vectors, queries, index.search(queries, RECALL_AT)[1])
        if found >= 0.99 or probes >= index.nlist:
            break
    return found


def _sample_queries(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Half items as they are, half means of two items: shoppers lie between what they looked at."""
    chance = np.random.default_rng(seed)
    count = min(RECALL_QUERIES, max(2 * len(vectors), 2))
    one, two = chance.integers(0, len(vectors), (2, count))
    two[: count // 2] = one[: count // 2]
    return np.ascontiguousarray((vectors[one] + vectors[two]) / 2, np.float32)


def _save(
    folder: Path,
    passport: Passport,
    items: pa.Table,
    popularity: np.ndarray,
    vectors: np.ndarray,
    text_vectors: np.ndarray,
    near: np.ndarray,
    model: Model,
    texts: Sequence[str],
    index: Any,
    text_index: Any,
) -> None:
    import faiss

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(json.dumps(asdict(passport), indent=1, sort_keys=True), encoding="utf-8")
    pq.write_table(items.select(ITEM_COLUMNS), folder / "items.parquet", compression="zstd")
    lexical = model.text.lexical.sparse(list(texts))
    arrays = {
        "popularity": popularity,
        "text_vectors": text_vectors,
        "neighbours": _without_self(near),
        "lexical_data": lexical.data,
        "lexical_indices": lexical.indices.astype(np.int32),
        "lexical_indptr": lexical.indptr.astype(np.int64),
        "lexical_columns": np.array([lexical.shape[1]]),
    }
    if model.network is not None:
        arrays["vectors"] = vectors
        faiss.write_index(text_index, str(folder / "text.faiss"))
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "arrays.safetensors")
    faiss.write_index(index, str(folder / "items.faiss"))


def _without_self(near: np.ndarray) -> np.ndarray:
    """Drop each item from its own neighbours; int32 (N, NEIGHBOURS), −1 where there are fewer."""
    is_self = near == np.arange(len(near))[:, None]
    is_self[:, -1] |= ~is_self.any(axis=1)  # among equals an item may not find itself: drop the last instead
    is_self &= np.cumsum(is_self, axis=1) == 1
    kept = near[~is_self].reshape(len(near), near.shape[1] - 1)
    padded = np.full((len(near), NEIGHBOURS), -1, np.int32)
    padded[:, : kept.shape[1]] = kept
    return padded


@lru_cache(maxsize=4)
def _load(root: str, digest: str, home: Path) -> ItemIndex:
    import faiss

    folder = parts.open_part(root, "index", digest, home)
    arrays = load_file(folder / "arrays.safetensors")
    csr = (arrays["lexical_data"], arrays["lexical_indices"], arrays["lexical_indptr"])
    index = faiss.read_index(str(folder / "items.faiss"))
    text_path = folder / "text.faiss"
    return ItemIndex(
        digest=digest,
        passport=Passport(**json.loads((folder / "index.json").read_text(encoding="utf-8"))),
        items=pq.read_table(folder / "items.parquet"),
        popularity=arrays["popularity"],
        vectors=arrays.get("vectors", arrays["text_vectors"]),
        text_vectors=arrays["text_vectors"],
        neighbours=arrays["neighbours"],
        lexical=sp.csr_matrix(csr, shape=(len(arrays["popularity"]), int(arrays["lexical_columns"][0]))),
        faiss=index,
        text_faiss=faiss.read_index(str(text_path)) if text_path.exists() else index,
    )
