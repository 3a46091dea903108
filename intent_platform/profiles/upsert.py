"""One forward-only upsert with its history, then the satellites that differ: the same for batch and nearline.

The caller owns the transaction: commit publishes every row or none. Users are written in key order.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db
from intent_platform.model.rows import one_array

INTERESTS, RECOMMENDATIONS = slice(17, 33), slice(34, 50)
"""Of content_digest: three times 16 hex digits with a dash between, the profile's own first."""

ESCAPED_IN_JSON = re.compile(rb'["\\\x00-\x1f]')
"""In UTF-8."""


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
        rows = _profile_rows(profiles, interests, recommendations, stamp)
        return cls(profiles=rows, interests=interests, recommendations=recommendations, stamp=stamp)

    @property
    def user_ids(self) -> list[str]:
        return self.profiles["user_id"].to_pylist()

    def only(self, user_ids: Collection[str]) -> Self:
        """Those of these users."""
        if len(user_ids) == self.profiles.num_rows:
            return self
        profiles, interests, recommendations = (
            _of(user_ids, each) for each in (self.profiles, self.interests, self.recommendations)
        )
        return replace(self, profiles=profiles, interests=interests, recommendations=recommendations)


def upsert(connection: sa.Connection, rows: ProfileRows, *before: str, **more: object) -> int:
    """Write one set of users; return how many profile rows changed. Locks: those users' rows until commit.

    before: statements about the same users, sent in the same trip; more: what they need beside the columns of profiles.
    """
    if not rows.profiles.num_rows:
        return 0
    columns = db.array_columns(rows.profiles)
    moved = db.prepared(connection, *before, "move_profiles", **asdict(rows.stamp), **columns, **more)
    given = dict(zip(rows.user_ids, rows.profiles["content_digest"].to_pylist(), strict=True))
    digests = [(each["user_id"], given[each["user_id"]], each["found_digest"] or "") for each in moved]
    interests_of = [user_id for user_id, new, old in digests if new[INTERESTS] != old[INTERESTS]]
    recommendations_of = [user_id for user_id, new, old in digests if new[RECOMMENDATIONS] != old[RECOMMENDATIONS]]
    if interests_of or recommendations_of:
        db.prepared(
            connection,
            "move_satellites",
            shop=rows.stamp.shop,
            interests_of=interests_of,
            recommendations_of=recommendations_of,
            **db.array_columns(_of(interests_of, rows.interests), "interest_"),
            **db.array_columns(_of(recommendations_of, rows.recommendations), "recommendation_"),
        )
    return len(moved)


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


def _of(user_ids: Collection[str], rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows["user_id"], value_set=pa.array(list(user_ids), pa.string())))


def _profile_rows(profiles: pa.Table, interests: pa.Table, recommendations: pa.Table, stamp: Stamp) -> pa.Table:
    """Lists become JSON; content_digest names what people read of profile, interests and recommendations."""
    of_interests, of_recommendations = (
        _starts(each["user_id"], profiles["user_id"]) for each in (interests, recommendations)
    )
    lists = {
        "top_categories": _top_categories(one_array(profiles["top_categories"])),
        "recommended_items": _recommended_items(recommendations, of_recommendations),
    }
    rows = profiles.drop_columns(["top_categories"])
    for name, values in lists.items():
        rows = rows.append_column(name, values)
    digests = zip(
        _digests(rows.drop_columns(["valid_at"]), np.arange(rows.num_rows + 1)),
        _digests(interests.drop_columns(["user_id"]), of_interests),
        _digests(recommendations.drop_columns(["user_id"]), of_recommendations),
        strict=True,
    )
    rows = rows.append_column("content_digest", pa.array(["-".join(each) for each in digests], pa.string()))
    horizon = pa.scalar(timedelta(hours=stamp.horizon_hours), pa.duration("us"))
    return rows.append_column("expires_at", pc.add(rows["valid_at"], horizon))


def _starts(of: pa.ChunkedArray, user_ids: pa.ChunkedArray) -> np.ndarray:
    """int64 (users + 1,): where the rows of each user begin and end; rows are in order of users."""
    owner = pc.index_in(of, value_set=one_array(user_ids))
    return np.append(0, np.cumsum(np.bincount(owner.to_numpy(), minlength=len(user_ids))))


def _top_categories(lists: pa.ListArray) -> pa.Array:
    flat = lists.flatten()
    offsets = lists.offsets.to_numpy()
    return _as_json(offsets - offsets[0], {"category": flat.field("category"), "weight": flat.field("weight")})


def _recommended_items(recommendations: pa.Table, starts: np.ndarray) -> pa.Array:
    """One JSON list per user, from rows in order of (user, rank)."""
    scores = pc.round(recommendations["score"], 6)
    return _as_json(starts, {"item_id": recommendations["item_id"], "score": scores})


def _as_json(offsets: np.ndarray, columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Array:
    """Lists of objects as JSON texts, column by column instead of object by object."""
    members = [part for name, each in columns.items() for part in (", ", f'"{name}": ', _json_values(each))]
    objects = pc.binary_join_element_wise("{", *members[1:], "}", "")
    listed = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), objects)
    return pc.binary_join_element_wise("[", pc.binary_join(listed, ", "), "]", "")


def _json_values(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    values = one_array(column)
    if not pa.types.is_string(values.type):
        return values.cast(pa.string())
    if not ESCAPED_IN_JSON.search(_content(values)[0]):
        return pc.binary_join_element_wise('"', values, '"', "")
    distinct = values.dictionary_encode()
    return pa.array(
        [json.dumps(each, ensure_ascii=False) for each in distinct.dictionary.to_pylist()], pa.string()
    ).take(distinct.indices)


def _digests(rows: pa.Table, starts: np.ndarray) -> list[str]:
    """A digest per user of the values of the user's rows, from their bytes as Arrow holds them.

    First all that is of fixed width, row by row, with the length of each text (−1: NULL; a missing number is NaN); then
    the texts, column by column.
    """
    columns = [one_array(each) for each in rows.columns]
    texts = [each for each in columns if pa.types.is_string(each.type)]
    contents = [_content(each) for each in texts]
    lengths = [_lengths(text, bounds) for text, (_, bounds) in zip(texts, contents, strict=True)]
    numbers = [each.to_numpy(zero_copy_only=False) for each in columns if not pa.types.is_string(each.type)]
    fixed = [each.view(np.uint8).reshape(rows.num_rows, each.itemsize) for each in (*numbers, *lengths)]
    together = np.concatenate(fixed, axis=1)
    parts = [_cut(together.tobytes(), starts * together.shape[1])]
    parts += [_cut(content, bounds[starts]) for content, bounds in contents]
    return [hashlib.blake2b(b"".join(each), digest_size=8).hexdigest() for each in zip(*parts, strict=True)]


def _content(texts: pa.Array) -> tuple[bytes, np.ndarray]:
    """UTF-8 of all texts, and int32 (rows + 1,): where in it each begins, and the last one ends.

    Of these texts alone: they may be a slice of a far larger table, whose buffers they share.
    """
    _, offsets, content = texts.buffers()
    if content is None or not len(texts):
        return b"", np.zeros(len(texts) + 1, np.int32)
    bounds = np.frombuffer(offsets, np.int32)[texts.offset :][: len(texts) + 1]
    first, end = bounds[[0, -1]].tolist()
    return content.slice(first, end - first).to_pybytes(), bounds - bounds[0]


def _lengths(texts: pa.Array, bounds: np.ndarray) -> np.ndarray:
    """int32: bytes of each text, −1 for NULL."""
    lengths = np.diff(bounds)
    return np.where(texts.is_valid(), lengths, np.int32(-1)) if texts.null_count else lengths


def _cut(content: bytes, bounds: np.ndarray) -> list[bytes]:
    return [content[start:end] for start, end in pairwise(bounds.tolist())]
