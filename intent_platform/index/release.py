"""A release: a small manifest release/<release_id>.json that names a model and an index by digest, both checked."""

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent_platform.errors import ReleaseInvalid
from intent_platform.index.item_index import ItemIndex, load_index
from intent_platform.lake import Lake
from intent_platform.model import parts
from intent_platform.model.behaviour import Model, load_model
from intent_platform.model.blend import Shop
from intent_platform.model.inputs import KnownItems
from intent_platform.model.neighbours import Runs, sessions_of
from intent_platform.model.rows import Rows
from intent_platform.settings import Settings

MAX_SESSIONS = 1_000_000
"""Newest sessions that neighbours are looked for among."""

POPULAR_ITEMS = 40
"""Length of the popularity lists that recommendations draw from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """release/<release_id>.json; the same parts are the same release."""

    shop: str
    release_id: str
    model: str  # digest
    index: str  # digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Release:
    """What scores: an immutable model and index, and which of the items can be bought now."""

    manifest: Manifest
    model: Model
    index: ItemIndex
    is_available: np.ndarray  # bool (N,)
    sessions: Runs | None = None  # of the shop, items as positions; where a blend ranks

    @property
    def release_id(self) -> str:
        return self.manifest.release_id

    def with_catalogue(self, items: pa.Table) -> "Release":
        """The same release beside today's catalogue: what is not in it, or sold out, is not recommended."""
        for_sale = items.filter(items["is_available"])["item_id"].combine_chunks()
        found = pc.is_in(self.index.items["item_id"].combine_chunks(), value_set=for_sale)
        return replace(self, is_available=found.to_numpy(zero_copy_only=False))

    def with_sessions(self, touches: pa.Table) -> "Release":
        """The same release beside the sessions that its blend looks for neighbours among."""
        rows = Rows.of(touches)
        item = np.append(self.index.positions(rows.item[1]), -1)[rows.item[0]]
        return replace(self, sessions=sessions_of(rows, item).newest(MAX_SESSIONS))

    @cached_property
    def blend_shop(self) -> Shop | None:
        """What a blend asks; None where another scorer ranks."""
        if self.sessions is None or self.model.blend is None:
            return None
        return Shop.of(
            self.sessions,
            self.model.blend.decays,
            vectors=self.index.vectors,
            text_vectors=self.index.text_vectors,
            encoder_dimensions=self.model.text.encoder.dimensions,
            near_by_text=self.index.neighbours,
        )

    @cached_property
    def available_share(self) -> float:
        """Of all items."""
        return float(self.is_available.mean())

    @cached_property
    def known_items(self) -> KnownItems:
        return KnownItems(vectors=self.index.vectors, category=self.index.category[0])

    @cached_property
    def popular(self) -> "PopularItems":
        return PopularItems.of(self.index, self.is_available)


@dataclass(frozen=True, kw_only=True, eq=False)
class PopularItems:
    """Available items by popularity: anywhere, in each category and department; positions, −1 where there are fewer."""

    anywhere: np.ndarray  # int32 (POPULAR_ITEMS,)
    in_category: np.ndarray  # int32 (categories, POPULAR_ITEMS)
    in_department: np.ndarray  # int32 (departments, POPULAR_ITEMS)
    department_of: np.ndarray  # int64 (categories,)
    share: np.ndarray  # float32 (N,): popularity over the most popular item's
    reason: list[str]  # why an item of each category is shown

    @classmethod
    def of(cls, index: ItemIndex, is_available: np.ndarray) -> "PopularItems":
        codes, names = index.category
        departments = sorted({name.split(".")[0] for name in names})
        department_of = np.array([departments.index(name.split(".")[0]) for name in names], np.int64)
        order = np.lexsort((np.arange(len(index)), -index.popularity))
        order = order[is_available[order]]
        of_item = np.where(codes >= 0, department_of[codes] if len(names) else -1, -1)
        return cls(
            anywhere=_first_of_each(order, np.zeros(len(index), np.int64), 1)[0],
            in_category=_first_of_each(order, codes, len(names)),
            in_department=_first_of_each(order, of_item, len(departments)),
            department_of=department_of,
            share=index.popularity / max(float(index.popularity.max(initial=0.0)), 1e-9),
            reason=[f"popular in {name}" for name in names],
        )


def _first_of_each(order: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """int32 (groups, POPULAR_ITEMS): the first items of each group, in the given order."""
    table = np.full((groups, POPULAR_ITEMS), -1, np.int32)
    owned = order[group[order] >= 0]
    owned = owned[np.argsort(group[owned], kind="stable")]
    of = group[owned]
    rank = np.arange(len(owned)) - np.searchsorted(of, of)
    keep = rank < POPULAR_ITEMS
    table[of[keep], rank[keep]] = owned[keep]
    return table


def release_id(model: Model, index_digest: str) -> str:
    return f"{model.card.kind}-{model.digest[:10]}-{index_digest[:10]}"


def write_manifest(lake: Lake, shop: str, model: Model, index_digest: str) -> Manifest:
    """Publish release/<release_id>.json; the same parts give the same file."""
    manifest = Manifest(shop=shop, release_id=release_id(model, index_digest), model=model.digest, index=index_digest)
    content = json.dumps(asdict(manifest), indent=1, sort_keys=True).encode()
    parts.write_small_file(lake.path(f"release/{manifest.release_id}.json"), content)
    return manifest


def load_release(settings: Settings, wanted: str) -> Release:
    """Load a release by id, every part checked (ReleaseInvalid); parts are shared within a process."""
    lake = Lake(settings.lake_root, settings.shop)
    manifest = read_manifest(lake, wanted)
    root = lake.path("")
    index = load_index(root, manifest.index, settings)
    if index.passport.model_digest != manifest.model:
        raise ReleaseInvalid(
            f"Release {wanted} names index {manifest.index[:16]}…, whose item vectors are of model "
            f"{index.passport.model_digest[:16]}…, not of its model {manifest.model[:16]}…. Promote another release."
        )
    model = load_model(root, manifest.model, settings)
    return Release(manifest=manifest, model=model, index=index, is_available=np.ones(len(index), bool))


def check_release(settings: Settings, wanted: str) -> None:
    """ReleaseInvalid unless the release's manifest is sound and its parts are there; their bytes are not read."""
    lake = Lake(settings.lake_root, settings.shop)
    manifest = read_manifest(lake, wanted)
    for kind, digest in (("model", manifest.model), ("index", manifest.index)):
        parts.read_small_file(lake.path(f"{kind}/{digest}/{parts.LISTING}"))


def read_manifest(lake: Lake, wanted: str) -> Manifest:
    path = lake.path(f"release/{wanted}.json")
    try:
        stored: dict[str, Any] = json.loads(parts.read_small_file(path))
        manifest = Manifest(**{each.name: stored[each.name] for each in fields(Manifest)})
    except (ValueError, KeyError) as error:
        raise ReleaseInvalid(f"{path} is not a release manifest ({error}); promote another release.") from error
    if manifest.release_id != wanted or not wanted.endswith(f"{manifest.model[:10]}-{manifest.index[:10]}"):
        raise ReleaseInvalid(f"{path} names other parts than its id says; promote another release.")
    return manifest
