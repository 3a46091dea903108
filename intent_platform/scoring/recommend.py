"""Items to show each shopper: candidates from several sources, ranked together, none sold out, none just bought.

U users of a chunk, C candidates per user, N items of the index; a candidate is a position in the index, −1 for none.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from intent_platform.index.release import Release
from intent_platform.model.blend import PER_SOURCE, find_candidates, rank_candidates
from intent_platform.model.neighbours import PREFIXES_PER_CHUNK, prefixes_at
from intent_platform.model.rows import Rows
from intent_platform.model.text import text_key
from intent_platform.scoring.interests import Interests
from intent_platform.settings import Settings

CHUNK_USERS = 8_192  # bounds memory: a chunk's matrices are a few tens of MB

ORIGINS = ("next_item", "popular", "recent", "text")
NEXT_ITEM, POPULAR, RECENT, TEXT = range(4)
NEXT_ITEMS = 50  # candidates by what comes next

TITLE_LETTERS = 48  # of a title that is named in a reason


@dataclass(kw_only=True)
class _Candidates:
    """Columns (U, C) that grow source by source."""

    item: list[np.ndarray]
    rank_key: list[np.ndarray]  # orders a user's candidates across sources, larger first
    score: list[np.ndarray]  # the source's own score
    origin: list[np.ndarray]
    reason: list[np.ndarray]  # index into the chunk's table of reasons

    def add(self, item: np.ndarray, key: np.ndarray, score: np.ndarray, origin: int, reason: np.ndarray) -> None:
        """item (U, c); the others broadcast to it."""
        self.item.append(item.astype(np.int64))
        for into, values in ((self.rank_key, key), (self.score, score), (self.origin, origin), (self.reason, reason)):
            into.append(np.broadcast_to(values, item.shape))


def recommend(
    release: Release,
    rows: Rows,
    position: np.ndarray,
    hidden: np.ndarray | None,
    interests: Interests,
    settings: Settings,
) -> pa.Table:
    """user_id, rank, item_id, score, origin, reason; at most settings.recommendations rows per user.

    position: (R,) of each row's item in the index, −1 for none. hidden: the network's state of each user.
    """
    next_items = _next_items(release, rows, position, hidden)
    chunks = []
    for start in range(0, rows.users, CHUNK_USERS):
        users = np.arange(start, min(start + CHUNK_USERS, rows.users))
        chunks.append(_recommend_chunk(release, rows, position, interests, next_items, users, settings.recommendations))
    return pa.concat_tables(chunks) if chunks else _table(rows, release, *(np.zeros(0, np.int64),) * 6, [""])


def _recommend_chunk(
    release: Release,
    rows: Rows,
    position: np.ndarray,
    interests: Interests,
    next_items: tuple[np.ndarray, np.ndarray] | None,
    users: np.ndarray,
    wanted: int,
) -> pa.Table:
    found = _Candidates(item=[], rank_key=[], score=[], origin=[], reason=[])
    reasons = ["popular now", "left in the cart", "often chosen next after what was looked at"]
    span = slice(int(rows.starts[users[0]]), int(rows.starts[users[-1] + 1]))
    if next_items is not None:
        items, probability = next_items[0][users], next_items[1][users]
        found.add(items, 2.0 - np.arange(items.shape[1]) / 100, probability, NEXT_ITEM, np.array(2))
    _add_carts(found, rows, position, users, span)
    _add_popular(found, release, interests, users, reasons)
    _add_text(found, release, rows, position, users, span, reasons)
    item = np.concatenate(found.item, axis=1)
    may_show = _may_show(release, rows, position, users, span, item)
    user, place, column = _best(item, np.concatenate(found.rank_key, axis=1), may_show, wanted)
    score, origin, reason = (
        np.concatenate(each, axis=1)[user, column] for each in (found.score, found.origin, found.reason)
    )
    return _table(rows, release, users[user], place + 1, item[user, column], score, origin, reason, reasons)


def _next_items(
    release: Release, rows: Rows, position: np.ndarray, hidden: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions and probabilities (U, NEXT_ITEMS) of what comes next; None where popularity ranks the items."""
    network, scorer = release.model.network, release.model.card.item_scorer
    if network is None or hidden is None or scorer == "popularity":
        return None
    wanted = network.user_vectors(hidden)
    if scorer == "blend":
        items, log_odds = _blended(release, rows, position, wanted)
    else:
        log_odds, items = release.index.nearest(wanted, NEXT_ITEMS)
    odds = np.exp(log_odds - log_odds.max(axis=1, keepdims=True))
    return items, odds / odds.sum(axis=1, keepdims=True)


def _blended(release: Release, rows: Rows, position: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and log-odds (U, NEXT_ITEMS) by the release's blend; −1 and −inf where there are fewer candidates."""
    shop, blend = release.blend_shop, release.model.blend
    assert shop is not None
    assert blend is not None
    items, log_odds = np.full((rows.users, NEXT_ITEMS), -1), np.full((rows.users, NEXT_ITEMS), -np.inf)
    prefixes = prefixes_at(rows, position, rows.starts[1:] - 1)
    for first in range(0, rows.users, PREFIXES_PER_CHUNK):
        chunk = slice(first, min(first + PREFIXES_PER_CHUNK, rows.users))
        _, nearest = release.index.nearest(wanted[chunk], PER_SOURCE)
        candidates = find_candidates(shop, prefixes.slice(first, chunk.stop), wanted[chunk], nearest)
        ranked, scores = rank_candidates(candidates, blend.weight)
        kept = min(ranked.shape[1], NEXT_ITEMS)
        items[chunk, :kept], log_odds[chunk, :kept] = ranked[:, :kept], scores[:, :kept]
    return items, log_odds


def _add_carts(found: _Candidates, rows: Rows, position: np.ndarray, users: np.ndarray, span: slice) -> None:
    """The two items put into the cart last and neither bought nor taken out since."""
    marks = np.flatnonzero(rows.is_type("add_to_cart", "remove_from_cart", "purchase")[span]) + span.start
    marks = marks[position[marks] >= 0]
    items = np.full((len(users), 2), -1)
    width = int(position.max(initial=0)) + 1
    # The newest mark of each (user, item): the last of a stable sort.
    order = np.argsort(rows.user[marks] * width + position[marks], kind="stable")
    keys = (rows.user[marks] * width + position[marks])[order]
    newest = marks[order[np.append(keys[1:] != keys[:-1], True)]] if len(keys) else marks
    open_ = np.sort(newest[rows.is_type("add_to_cart")[newest]])[::-1]
    user = rows.user[open_] - users[0]
    order = np.argsort(user, kind="stable")
    open_, user = open_[order], user[order]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    kept = place < 2
    items[user[kept], place[kept]] = position[open_[kept]]
    score = np.array([1.0, 0.9])
    found.add(items, 1.5 + score / 10, score, RECENT, np.array(1))


def _add_popular(
    found: _Candidates, release: Release, interests: Interests, users: np.ndarray, reasons: list[str]
) -> None:
    """Of the three favourite categories, of the favourite's department, and of the whole shop."""
    popular = release.popular
    _, names = release.index.category
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.array([code_of.get(name, -1) for name in interests.categories.to_pylist()] + [-1], np.int64)
    first = np.searchsorted(interests.user, users)
    count = np.searchsorted(interests.user, users, side="right") - first
    base = len(reasons)
    reasons.extend(f"popular in {name}" for name in names)
    for place in range(3):
        has = count > place
        entry = np.where(has, first + place, 0)
        category = np.where(has, codes[interests.category[entry]] if len(interests.category) else -1, -1)
        items = _rows_or_none(popular.in_category, category)[:, : 20 if place == 0 else 10]
        weight = np.where(has, interests.weight[entry] if len(interests.weight) else 0.0, 0.0)[:, None]
        share = popular.share[np.maximum(items, 0)]
        closeness = 1.0 - np.arange(items.shape[1]) / 40
        reason = np.where(category >= 0, base + category, 0)[:, None]
        found.add(items, (0.2 + 0.8 * weight) * closeness, share, POPULAR, reason)
        if place == 0:
            department = np.append(popular.department_of, -1)[category]
            items = _rows_or_none(popular.in_department, department)[:, :10]
            found.add(items, np.array(0.1), popular.share[np.maximum(items, 0)], POPULAR, np.array(0))
    items = np.broadcast_to(popular.anywhere, (len(users), len(popular.anywhere)))
    share = popular.share[np.maximum(items, 0)]
    found.add(items, 0.05 * (1.0 - np.arange(items.shape[1]) / 80), share, POPULAR, np.array(0))


def _rows_or_none(table: np.ndarray, code: np.ndarray) -> np.ndarray:
    if len(table) == 0:
        return np.full((len(code), table.shape[1]), -1)
    return np.where((code >= 0)[:, None], table[code], -1)


def _add_text(
    found: _Candidates,
    release: Release,
    rows: Rows,
    position: np.ndarray,
    users: np.ndarray,
    span: slice,
    reasons: list[str],
) -> None:
    """Items whose text is near the item last touched, or near the query when a search came after it."""
    newest_item = _newest(rows, users, span, position[span] >= 0)
    queries = rows.table["query_text"].combine_chunks()
    newest_query = _newest(rows, users, span, queries[span.start : span.stop].is_valid().to_numpy(zero_copy_only=False))
    anchor = np.where(newest_item >= 0, position[newest_item], -1)
    by_item = _rows_or_none(release.index.neighbours[:, :10], anchor)
    base = len(reasons)
    shown, reason = np.unique(anchor, return_inverse=True)
    titles = release.index.title
    reasons.extend(f"like {titles[each][:TITLE_LETTERS]}" if each >= 0 else "" for each in shown)
    closeness = 1.0 - np.arange(by_item.shape[1]) / 20
    found.add(by_item, 0.45 * closeness, closeness, TEXT, base + reason[:, None])
    searched = np.flatnonzero(newest_query > newest_item)
    if len(searched):
        keys = [text_key(text) for text in queries.take(pa.array(newest_query[searched])).to_pylist()]
        distinct, of_user = np.unique(np.array(keys, dtype=object), return_inverse=True)
        near = _near_queries(release, list(distinct))
        items = np.full((len(users), near.shape[1]), -1)
        items[searched] = near[of_user]
        closeness = 1.0 - np.arange(near.shape[1]) / 20
        reasons.append("fits the last search")
        found.add(items, 0.9 * closeness, closeness, TEXT, np.array(len(reasons) - 1))


def _near_queries(release: Release, keys: list[str]) -> np.ndarray:
    vectors = release.model.text.vectors(keys)
    _, items = release.index.text_faiss.search(vectors, min(10, len(release.index)))
    return np.where((np.abs(vectors).sum(axis=1) > 0)[:, None], items, -1)


def _newest(rows: Rows, users: np.ndarray, span: slice, is_wanted: np.ndarray) -> np.ndarray:
    """Per user: the newest wanted row, −1 if none. is_wanted covers the span."""
    places = np.arange(span.start, span.stop)
    last = np.maximum.accumulate(np.where(is_wanted, places, -1))[rows.starts[users + 1] - 1 - span.start]
    return np.where(last >= rows.starts[users], last, -1)


def _may_show(
    release: Release, rows: Rows, position: np.ndarray, users: np.ndarray, span: slice, item: np.ndarray
) -> np.ndarray:
    """bool (U, C): there, for sale, not bought lately, and not a repeat of a better candidate (left to _best)."""
    is_bought = np.flatnonzero(rows.is_type("purchase")[span] & (position[span] >= 0)) + span.start
    width = len(release.index)
    bought = np.unique((rows.user[is_bought] - users[0]) * width + position[is_bought])
    keys = np.arange(len(users))[:, None] * width + np.maximum(item, 0)
    kept = (item >= 0) & release.is_available[np.maximum(item, 0)]
    if len(bought):
        near = np.minimum(np.searchsorted(bought, keys), len(bought) - 1)
        kept &= bought[near] != keys
    return kept


def _best(
    item: np.ndarray, rank_key: np.ndarray, may_show: np.ndarray, wanted: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(user, place, column) of the first `wanted` different items of each user; ties by position, so order is fixed."""
    key = np.where(may_show, rank_key, -np.inf)
    by_item = np.lexsort((-key, item), axis=1)
    sorted_item = np.take_along_axis(item, by_item, axis=1)
    is_repeat = np.zeros(item.shape, bool)
    np.put_along_axis(is_repeat, by_item[:, 1:], sorted_item[:, 1:] == sorted_item[:, :-1], axis=1)
    key = np.where(is_repeat, -np.inf, key)
    top = np.lexsort((item, -key), axis=1)[:, :wanted]
    user, place = np.nonzero(np.isfinite(np.take_along_axis(key, top, axis=1)))
    return user, place, top[user, place]


def _table(
    rows: Rows,
    release: Release,
    user: np.ndarray,
    rank: np.ndarray,
    item: np.ndarray,
    score: np.ndarray,
    origin: np.ndarray,
    reason: np.ndarray,
    reasons: list[str],
) -> pa.Table:
    return pa.table(
        {
            "user_id": rows.user_ids.take(pa.array(user)),
            "rank": pa.array(rank, pa.int16()),
            "item_id": release.index.items["item_id"].combine_chunks().take(pa.array(item)),
            "score": pa.array(np.round(score.astype(np.float64), 6)),
            "origin": pa.array(ORIGINS).take(pa.array(origin)),
            "reason": pa.array(reasons).take(pa.array(reason)),
        }
    )
