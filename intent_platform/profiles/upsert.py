"""One forward-only upsert with its history, then the satellites that differ: the same for batch and nearline.

The caller owns the transaction: commit publishes every row or none. Users are written in key order.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """What a run writes beside the scores: who scored, when and with what."""

    shop: str
    release_id: str
    promotion_number: int
    source: str  # batch or nearline
    scored_at: datetime  # logical time of the run
    horizon_hours: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ProfileRows:
    """What some users' rows are to be, all under one stamp."""

    profiles: pa.Table  # columns of user_profile, less the stamp's
    interests: pa.Table
    recommendations: pa.Table
    stamp: Stamp

    @classmethod
    def of(cls, profiles: pa.Table, interests: pa.Table, recommendations: pa.Table, stamp: Stamp) -> Self:
        rows = _profile_rows(profiles, recommendations, stamp)
        return cls(profiles=rows, interests=interests, recommendations=recommendations, stamp=stamp)

    @property
    def user_ids(self) -> list[str]:
        return self.profiles["user_id"].to_pylist()

    def only(self, user_ids: Collection[str]) -> Self:
        """Those of these users."""
        if len(user_ids) == self.profiles.num_rows:
            return self
        wanted = pa.array(list(user_ids), pa.string())
        profiles, interests, recommendations = (
            each.filter(pc.is_in(each["user_id"], value_set=wanted))
            for each in (self.profiles, self.interests, self.recommendations)
        )
        return replace(self, profiles=profiles, interests=interests, recommendations=recommendations)


def upsert(connection: sa.Connection, rows: ProfileRows) -> int:
    """Write one set of users; return how many profile rows changed. Locks: those users' rows until commit."""
    if not rows.profiles.num_rows:
        return 0
    moved = db.query(connection, "move_profiles", **asdict(rows.stamp), **db.array_columns(rows.profiles))
    changed = [each["user_id"] for each in moved]
    if changed:
        of_changed = rows.only(changed)
        db.query(
            connection,
            "move_satellites",
            shop=rows.stamp.shop,
            user_ids=changed,
            **db.array_columns(of_changed.interests, "interest_"),
            **db.array_columns(of_changed.recommendations, "recommendation_"),
        )
    return len(changed)


def only_news(connection: sa.Connection, rows: ProfileRows) -> ProfileRows:
    """Without profiles that the table holds just so: they need not travel."""
    if not rows.profiles.num_rows:
        return rows
    content = rows.profiles.select(["user_id", "content_digest", "valid_at"])
    told = db.query(connection, "profiles_already_told", **asdict(rows.stamp), **db.array_columns(content))
    return rows.only(set(rows.user_ids).difference(each["user_id"] for each in told))


def write_items(connection: sa.Connection, items: pa.Table, shop: str) -> None:
    """Bring profiles.item to the catalogue given; rows that are equal are not touched."""
    db.query(connection, "stage_items")
    db.copy_rows(connection, "staged_item", items.add_column(0, "shop", pa.repeat(shop, items.num_rows)))
    db.query(connection, "move_staged_items")


def _profile_rows(profiles: pa.Table, recommendations: pa.Table, stamp: Stamp) -> pa.Table:
    """Lists become JSON, and content_digest covers all that people read."""
    profiles, recommendations = profiles.combine_chunks(), recommendations.combine_chunks()
    lists = {
        "top_categories": _top_categories(profiles["top_categories"].chunk(0)),
        "recommended_items": _recommended_items(recommendations, profiles["user_id"]),
    }
    rows = profiles.drop_columns(["top_categories"])
    for name, values in lists.items():
        rows = rows.append_column(name, values)
    rows = rows.append_column("content_digest", _digests(rows.drop_columns(["valid_at"])))
    horizon = pa.scalar(timedelta(hours=stamp.horizon_hours), pa.duration("us"))
    return rows.append_column("expires_at", pc.add(rows["valid_at"], horizon))


def _top_categories(lists: pa.ListArray) -> pa.Array:
    flat = lists.flatten()
    offsets = lists.offsets.to_numpy()
    return _as_json(offsets - offsets[0], {"category": flat.field("category"), "weight": flat.field("weight")})


def _recommended_items(recommendations: pa.Table, user_ids: pa.ChunkedArray) -> pa.Array:
    """One JSON list per user, from rows in order of (user, rank)."""
    owner = pc.index_in(recommendations["user_id"], value_set=user_ids.combine_chunks())
    counts = np.bincount(owner.to_numpy(), minlength=len(user_ids))
    scores = pc.round(recommendations["score"], 6)
    return _as_json(np.append(0, np.cumsum(counts)), {"item_id": recommendations["item_id"], "score": scores})


def _as_json(offsets: np.ndarray, columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Array:
    """Lists of objects as JSON texts, column by column instead of object by object."""
    members = [pc.binary_join_element_wise(f'"{name}": ', _json_values(each), "") for name, each in columns.items()]
    objects = pc.binary_join_element_wise("{", pc.binary_join_element_wise(*members, ", "), "}", "")
    if isinstance(objects, pa.ChunkedArray):
        objects = objects.combine_chunks()
    listed = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), objects)
    return pc.binary_join_element_wise("[", pc.binary_join(listed, ", "), "]", "")


def _json_values(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_string(values.type):
        return values.cast(pa.string())
    distinct = values.dictionary_encode()
    return pa.array(
        [json.dumps(each, ensure_ascii=False) for each in distinct.dictionary.to_pylist()], pa.string()
    ).take(distinct.indices)


def _digests(content: pa.Table) -> pa.Array:
    """MD5 of each row's values in order of columns."""
    columns = [
        each.cast(pa.int64()).cast(pa.string()) if pa.types.is_timestamp(each.type) else each.cast(pa.string())
        for each in content.columns
    ]
    joined = pc.binary_join_element_wise(*columns, "\x1f", null_handling="replace", null_replacement="\\N")
    return pa.array([hashlib.md5(each.encode(), usedforsecurity=False).hexdigest() for each in joined.to_pylist()])
