"""An index folder index/<digest>/ in memory: the items, their vectors, what finds them, how much they are wanted."""

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from intent_platform.errors import IndexInvalid
from intent_platform.index.lexical_index import LexicalIndex
from intent_platform.index.nearest import Kind, Nearest
from intent_platform.model import parts
from intent_platform.settings import Settings

NEIGHBOURS = 20

ITEM_COLUMNS = ("item_id", "title", "category", "brand", "price", "currency")

PASSPORT, ITEMS, ARRAYS = "index.json", "items.parquet", "arrays.safetensors"
BY_VECTOR, BY_TEXT = "items.faiss", "text.faiss"


@dataclass(frozen=True, kw_only=True, slots=True)
class Passport:
    """index.json: what the index is and how well it finds; no time of making, so equal input gives an equal digest."""

    model_digest: str
    kind: Kind
    text_kind: Kind
    items: int
    dimensions: int
    recall_at_20: float  # of what shoppers' vectors ask, without a network of what searches ask
    text_recall_at_20: float  # of what the texts of searches ask
    score_error: float  # the larger of both; a score is an exact dot product but for rounding
    questions: int  # shoppers that the first was measured on; 0: mixtures of items stood in for them
    text_questions: int  # searches that the second was measured on, likewise
    orphans: int  # items that events name and no catalogue
    catalogue_until: str | None  # newest change among the items, ISO 8601
    demand_until: str | None  # newest day that popularity counts

    @property
    def least_recall(self) -> float:
        return min(self.recall_at_20, self.text_recall_at_20)


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemIndex:
    """N items in order of item_id; positions 0 … N − 1 stand for items everywhere in scoring."""

    digest: str
    passport: Passport
    items: pa.Table  # ITEM_COLUMNS
    popularity: np.ndarray  # float32 (N,): decayed attention, 0 for what nobody touched
    return_days: np.ndarray  # float32 (N,): from which on buyers buy it again; inf: few do
    neighbours: np.ndarray  # int32 (N, NEIGHBOURS): most alike by text, −1 where there are fewer
    by_vector: Nearest  # the model's item vectors
    by_text: Nearest  # text vectors; the same where no network scores
    lexical: LexicalIndex

    def __len__(self) -> int:
        return self.items.num_rows

    @property
    def vectors(self) -> np.ndarray:
        """float32 (N, D)."""
        return self.by_vector.vectors

    @property
    def text_vectors(self) -> np.ndarray:
        """float32 (N, text dimensions)."""
        return self.by_text.vectors

    @cached_property
    def item_ids(self) -> pa.Array:
        return self.items["item_id"].combine_chunks()

    @cached_property
    def position_of(self) -> dict[str, int]:
        return {item_id: position for position, item_id in enumerate(self.item_ids.to_pylist())}

    def positions(self, item_ids: pa.Array) -> np.ndarray:
        """int64 positions of item ids; −1 for NULL and for items that are not in the index."""
        if len(item_ids) < 1_000:
            return np.fromiter(map(self.position_of.get, item_ids.to_pylist(), repeat(-1)), np.int64, len(item_ids))
        return positions_among(self.items, item_ids)

    @cached_property
    def category(self) -> tuple[np.ndarray, list[str]]:
        return codes_of(self.items, "category")

    @cached_property
    def category_code(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.category[1])}

    @cached_property
    def brand(self) -> np.ndarray:
        """int64 (N,); −1: none."""
        return codes_of(self.items, "brand")[0]

    @cached_property
    def price(self) -> np.ndarray:
        """float64 (N,); NaN: none."""
        return self.items["price"].to_numpy()

    @cached_property
    def currencies(self) -> list[str]:
        return sorted(set(self.items["currency"].to_pylist()) - {None})

    @cached_property
    def title(self) -> np.ndarray:
        """object (N,): title, or for a stub its id."""
        titles = pc.coalesce(self.items["title"], self.items["item_id"])
        return np.array(titles.to_pylist(), dtype=object)


def positions_among(items: pa.Table, item_ids: pa.Array) -> np.ndarray:
    """int64 rows of `items`; −1 for NULL and for what is not among them."""
    found = pc.index_in(item_ids, value_set=items["item_id"].combine_chunks(), skip_nulls=True)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def codes_of(items: pa.Table, column: str) -> tuple[np.ndarray, list[str]]:
    """int64 (N,) codes into the sorted names of a column; −1: none."""
    names = sorted(set(items[column].to_pylist()) - {None})
    codes = pc.index_in(items[column].combine_chunks(), value_set=pa.array(names, pa.string()), skip_nulls=True)
    return codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), names


def load_index(root: str, digest: str, settings: Settings) -> ItemIndex:
    """Load index/<digest>, its bytes checked; once per process. IndexInvalid: of another version of this package."""
    return _load(root, digest, settings.home, settings.index_memory_mib, settings.threads)


@lru_cache(maxsize=4)
def _load(root: str, digest: str, home: Path, memory_mib: int, threads: int) -> ItemIndex:
    folder = parts.open_part(root, "index", digest, home)
    try:
        passport = Passport(**json.loads((folder / PASSPORT).read_text(encoding="utf-8")))
    except TypeError as error:
        raise IndexInvalid(
            f"{folder} was built by another version of this package ({error}); build it again with `intent index`."
        ) from error
    arrays = load_file(folder / ARRAYS)
    limits = {"memory_mib": memory_mib, "threads": threads}
    by_vector = Nearest.load(folder / BY_VECTOR, passport.kind, **limits)
    has_text = (folder / BY_TEXT).exists()
    return ItemIndex(
        digest=digest,
        passport=passport,
        items=pq.read_table(folder / ITEMS),
        popularity=arrays["popularity"],
        return_days=arrays["return_days"],
        neighbours=arrays["neighbours"],
        by_vector=by_vector,
        by_text=Nearest.load(folder / BY_TEXT, passport.text_kind, **limits) if has_text else by_vector,
        lexical=LexicalIndex.of_arrays(arrays, passport.items),
    )
