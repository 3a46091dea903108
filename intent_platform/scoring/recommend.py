"""Items to show each shopper: candidates from several sources, ranked together, none sold out, not all of one kind.

U users of a chunk, C candidates per user, N items of the index; a candidate is a position in the index, −1 for none.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa

from intent_platform.index.query import understand
from intent_platform.index.release import Release
from intent_platform.model.blend import PER_SOURCE, find_candidates, rank_candidates
from intent_platform.model.neighbours import PREFIXES_PER_CHUNK, prefixes_at
from intent_platform.model.rows import US_PER_DAY, Rows
from intent_platform.scoring.interests import Interests
from intent_platform.settings import Settings

CHUNK_USERS = 8_192  # bounds memory: a chunk's matrices are a few tens of MB

ORIGINS = pa.array(["next_item", "popular", "recent", "text", "again"])
NEXT_ITEM, POPULAR, RECENT, TEXT, AGAIN = range(5)
NEXT_ITEMS = 50  # candidates by what comes next
MOST_NEXT_ITEMS = 1_000  # looked at where most of the shop is sold out

CARTED = 4  # items of a shopper's cart
OF_FAVOURITES = 20, 10, 10  # popular items of a shopper's favourite categories

TITLE_LETTERS = 48  # of a title that is named in a reason


@dataclass(kw_only=True)
class _Candidates:
    """Of each source: items (U, c), an origin, and values that broadcast to the items."""

    item: list[np.ndarray] = field(default_factory=list)
    rank_key: list[np.ndarray | float] = field(default_factory=list)  # orders a user's candidates, larger first
    score: list[np.ndarray | float] = field(default_factory=list)  # the source's own
    origin: list[int] = field(default_factory=list)
    reason: list[np.ndarray | int] = field(default_factory=list)  # index into the chunk's table of reasons
    starts: list[int] = field(default_factory=lambda: [0])  # of each source's columns, all side by side, and the end

    def add(
        self,
        item: np.ndarray,
        key: np.ndarray | float,
        score: np.ndarray | float,
        origin: int,
        reason: np.ndarray | int,
    ) -> None:
        self.item.append(item)
        self.starts.append(self.starts[-1] + item.shape[1])
        self.rank_key.append(key)
        self.score.append(score)
        self.origin.append(origin)
        self.reason.append(reason)

    def beside(self, values: Sequence[np.ndarray | float], kind: type) -> np.ndarray:
        """(U, C): a value of each source, side by side as the items are."""
        table: np.ndarray = np.empty((len(self.item[0]), self.starts[-1]), kind)
        for value, start, stop in zip(values, self.starts[:-1], self.starts[1:], strict=True):
            table[:, start:stop] = value
        return table


def recommend(
    release: Release,
    rows: Rows,
    position: np.ndarray,
    hidden: np.ndarray | None,
    age: np.ndarray,
    interests: Interests,
    settings: Settings,
) -> pa.Table:
    """user_id, rank, item_id, score, origin, reason; at most settings.recommendations rows per user.

    position: (R,) of each row's item in the index, −1 for none. hidden: the network's state of each user. age: int64 µs
    (R,), from each row to the moment at which its user is asked.
    """
    chunks = []
    for start in range(0, rows.users, CHUNK_USERS):
        users = np.arange(start, min(start + CHUNK_USERS, rows.users))
        of_users = None if hidden is None else hidden[users]
        chunks.append(_recommend_chunk(release, rows, position, of_users, age, interests, users, settings))
    return pa.concat_tables(chunks) if chunks else _table(rows, release, *(np.zeros(0, np.int64),) * 6, [""])


def _recommend_chunk(
    release: Release,
    rows: Rows,
    position: np.ndarray,
    hidden: np.ndarray | None,
    age: np.ndarray,
    interests: Interests,
    users: np.ndarray,
    settings: Settings,
) -> pa.Table:
    found = _Candidates()
    reasons = ["popular now", "left in the cart", "often chosen next after what was looked at", "time to buy it again"]
    span = slice(int(rows.starts[users[0]]), int(rows.starts[users[-1] + 1]))
    next_items = _next_items(release, rows, position, hidden, users)
    if next_items is not None:
        items, probability = next_items
        found.add(items, 2.0 - np.arange(items.shape[1]) / 100, probability, NEXT_ITEM, 2)
    bought = _Bought.of(release, rows, position, age, users, span)
    found.add(bought.due, 1.95 - np.arange(bought.due.shape[1]) / 100, 1.0, AGAIN, 3)
    _add_carts(found, rows, position, users, span)
    _add_popular(found, release, interests, users, reasons)
    _add_text(found, release, rows, position, users, span, reasons)
    item = found.beside(found.item, np.int64)
    may_show = (item >= 0) & release.is_available[np.maximum(item, 0)] & ~bought.is_done_with(item)
    rank_key = found.beside(found.rank_key, np.float64)
    user, place, column = _best(item, rank_key, may_show, _crowds(release, settings), settings.recommendations)
    score = found.beside(found.score, np.float64)[user, column]
    reason = found.beside(found.reason, np.int64)[user, column]
    origin = np.repeat(found.origin, np.diff(found.starts))[column]
    return _table(rows, release, users[user], place + 1, item[user, column], score, origin, reason, reasons)


def _next_items(
    release: Release, rows: Rows, position: np.ndarray, hidden: np.ndarray | None, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions and probabilities (U, NEXT_ITEMS) of what comes next; None where popularity ranks the items."""
    network, scorer = release.model.network, release.model.card.item_scorer
    if network is None or hidden is None or scorer == "popularity":
        return None
    wanted = network.user_vectors(hidden)
    if scorer == "blend":
        items, log_odds = _blended(release, rows, position, wanted, users)
    else:
        items, log_odds = _nearest_available(release, wanted)
    best = log_odds.max(axis=1, keepdims=True)
    odds = np.exp(log_odds - np.where(np.isfinite(best), best, 0.0))  # where nothing is for sale, all are −inf
    return items, odds / np.maximum(odds.sum(axis=1, keepdims=True), 1e-30)


def _nearest_available(release: Release, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and log-odds (U, NEXT_ITEMS or fewer) by the network alone."""
    log_odds, items = release.index.by_vector.search(wanted, _widened(release, NEXT_ITEMS))
    return _available_first(release, items, log_odds)


def _widened(release: Release, count: int) -> int:
    """How many to ask for, so that about `count` of them are for sale."""
    return int(min(count / max(release.available_share, 1e-9), MOST_NEXT_ITEMS))


def _available_first(release: Release, items: np.ndarray, log_odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first NEXT_ITEMS that are for sale, in the given order; −1 and −inf where there are fewer."""
    is_shown = (items >= 0) & release.is_available[np.maximum(items, 0)]
    first = np.argsort(~is_shown, axis=1, kind="stable")[:, :NEXT_ITEMS]
    is_shown = np.take_along_axis(is_shown, first, axis=1)
    items, log_odds = (np.take_along_axis(each, first, axis=1) for each in (items, log_odds))
    return np.where(is_shown, items, -1), np.where(is_shown, log_odds, -np.inf)


def _blended(
    release: Release, rows: Rows, position: np.ndarray, wanted: np.ndarray, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and log-odds (U, NEXT_ITEMS) by the release's blend; −1 and −inf where there are fewer candidates."""
    shop, blend = release.blend_shop, release.model.blend
    assert shop is not None
    assert blend is not None
    items, log_odds = np.full((len(users), NEXT_ITEMS), -1), np.full((len(users), NEXT_ITEMS), -np.inf)
    prefixes = prefixes_at(rows, position, rows.starts[users + 1] - 1)
    for first in range(0, len(users), PREFIXES_PER_CHUNK):
        chunk = slice(first, min(first + PREFIXES_PER_CHUNK, len(users)))
        _, nearest = release.index.by_vector.search(wanted[chunk], _widened(release, PER_SOURCE))
        candidates = find_candidates(shop, prefixes.slice(first, chunk.stop), wanted[chunk], nearest)
        ranked, scores = _available_first(release, *rank_candidates(candidates, blend.weight))
        kept = ranked.shape[1]
        items[chunk, :kept], log_odds[chunk, :kept] = ranked, scores
    return items, log_odds


def _add_carts(found: _Candidates, rows: Rows, position: np.ndarray, users: np.ndarray, span: slice) -> None:
    """The items put into the cart last and neither bought nor taken out since: likelier bought than any other."""
    marks = np.flatnonzero(rows.is_type("add_to_cart", "remove_from_cart", "purchase")[span]) + span.start
    marks = marks[position[marks] >= 0]
    items = np.full((len(users), CARTED), -1)
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
    kept = place < CARTED
    items[user[kept], place[kept]] = position[open_[kept]]
    score = 1.0 - np.arange(CARTED) / 10
    found.add(items, 2.5 + score / 10, score, RECENT, 1)


def _add_popular(
    found: _Candidates, release: Release, interests: Interests, users: np.ndarray, reasons: list[str]
) -> None:
    """Of the favourite categories, of the favourite's department, and of the whole shop."""
    popular = release.popular
    _, names = release.index.category
    # With an entry behind them for who has no such favourite, as for a category that the index does not know.
    category_of = np.append(np.where(interests.category < len(names), interests.category, -1), -1)
    weight_of = np.append(interests.weight, 0.0)
    first = np.searchsorted(interests.user, users)[:, None]
    count = np.searchsorted(interests.user, users, side="right")[:, None] - first
    place = np.arange(len(OF_FAVOURITES))
    entry = np.where(place < count, first + place, -1)  # (U, favourites)
    category, weight = category_of[entry], weight_of[entry]
    base = len(reasons)
    reasons.extend(popular.reason)
    reason = np.where(category >= 0, base + category, 0)

    def add(items: np.ndarray, key: np.ndarray | float, reason: np.ndarray | int) -> None:
        found.add(items, key, popular.share[np.maximum(items, 0)], POPULAR, reason)

    for favourite, most in enumerate(OF_FAVOURITES):
        items = _rows_or_none(popular.in_category, category[:, favourite])[:, :most]
        add(items, (0.2 + 0.8 * weight[:, [favourite]]) * (1.0 - np.arange(most) / 40), reason[:, [favourite]])
    department = np.append(popular.department_of, -1)[category[:, 0]]
    add(_rows_or_none(popular.in_department, department)[:, :10], 0.1, 0)
    anywhere = np.broadcast_to(popular.anywhere, (len(users), len(popular.anywhere)))
    add(anywhere, 0.05 * (1.0 - np.arange(len(popular.anywhere)) / 80), 0)


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
    query, texts = rows.query
    newest_query = _newest(rows, users, span, query[span] >= 0)
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
        keys = [understand(texts[code].as_py()).text for code in query[newest_query[searched]].tolist()]
        distinct, of_user = np.unique(np.array(keys, dtype=object), return_inverse=True)
        near = _near_queries(release, list(distinct))
        items = np.full((len(users), near.shape[1]), -1)
        items[searched] = near[of_user]
        closeness = 1.0 - np.arange(near.shape[1]) / 20
        reasons.append("fits the last search")
        found.add(items, 0.9 * closeness, closeness, TEXT, len(reasons) - 1)


def _near_queries(release: Release, keys: list[str]) -> np.ndarray:
    vectors = release.model.text.vectors(keys)
    items = release.index.by_text.search_apart(vectors, 10)
    return np.where((np.abs(vectors).sum(axis=1) > 0)[:, None], items, -1)


def _newest(rows: Rows, users: np.ndarray, span: slice, is_wanted: np.ndarray) -> np.ndarray:
    """Per user: the newest wanted row, −1 if none. is_wanted covers the span."""
    places = np.arange(span.start, span.stop)
    last = np.maximum.accumulate(np.where(is_wanted, places, -1))[rows.starts[users + 1] - 1 - span.start]
    return np.where(last >= rows.starts[users], last, -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bought:
    """What a chunk's users bought: once is enough, but for consumables, whose buyers come back."""

    done_with: np.ndarray  # int64, sorted: user × items + position of what is not to be shown
    due: np.ndarray  # int64 (U, 2): consumables to be bought again, the longest overdue first; −1 for none
    width: int

    @classmethod
    def of(
        cls, release: Release, rows: Rows, position: np.ndarray, age: np.ndarray, users: np.ndarray, span: slice
    ) -> "_Bought":
        width = len(release.index)
        marks = np.flatnonzero(rows.is_type("purchase")[span] & (position[span] >= 0)) + span.start
        # Rows are in order of time, so the last of equal keys is the newest purchase.
        keys = (rows.user[marks] - users[0]) * width + position[marks]
        keys, from_end = np.unique(keys[::-1], return_index=True)
        newest = marks[::-1][from_end]
        overdue = age[newest] / US_PER_DAY / release.index.return_days[position[newest]]
        is_due = overdue >= 1.0
        due = np.full((len(users), 2), -1)
        order = np.lexsort((-overdue[is_due], keys[is_due] // width))
        user, item = np.divmod(keys[is_due][order], width)
        place = np.arange(len(user)) - np.searchsorted(user, user)
        due[user[place < 2], place[place < 2]] = item[place < 2]
        return cls(done_with=keys[~is_due], due=due, width=width)

    def is_done_with(self, item: np.ndarray) -> np.ndarray:
        """bool (U, C)."""
        if not len(self.done_with):
            return np.zeros(item.shape, bool)
        keys = np.arange(len(item))[:, None] * self.width + np.maximum(item, 0)
        near = np.minimum(np.searchsorted(self.done_with, keys), len(self.done_with) - 1)
        return self.done_with[near] == keys


def _crowds(release: Release, settings: Settings) -> list[tuple[np.ndarray, int]]:
    """What a shopper shall not see too much of: a group of each item, −1 for none, and how many are enough."""
    return [
        (release.index.brand, settings.recommendations_per_brand),
        (release.index.category[0], settings.recommendations_per_category),
    ]


def _best(
    item: np.ndarray, rank_key: np.ndarray, may_show: np.ndarray, crowds: list[tuple[np.ndarray, int]], wanted: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(user, place, column) of the first `wanted` different items of each user; ties by position, so order is fixed.

    What crowds comes after what does not: it is shown only where there is too little else.
    """
    count = may_show.sum(axis=1)  # what may be shown comes first
    order = np.lexsort((item, np.where(may_show, -rank_key, np.inf)), axis=1)[:, : int(count.max(initial=0))]
    ordered = np.take_along_axis(item, order, axis=1)
    (brand, per_brand), (category, per_category) = crowds
    lists = (each.tolist() for each in (count, ordered, brand[ordered], category[ordered]))
    places = [_uncrowded(wanted, (per_brand, per_category), *of_user) for of_user in zip(*lists, strict=True)]
    user = np.repeat(np.arange(len(item)), [len(each) for each in places])
    column = order[user, np.fromiter(chain.from_iterable(places), np.int64, len(user))]
    return user, np.arange(len(user)) - np.searchsorted(user, user), column


def _uncrowded(
    wanted: int, most: tuple[int, int], count: int, items: list[int], brands: list[int], categories: list[int]
) -> list[int]:
    """Places of at most `wanted` different ones of the first `count` items, which are in order, best first: those taken
    one by one while neither their brand nor their category is full, then those passed over."""
    per_brand, per_category = most
    # What is of no brand, or of no category, is never too much.
    of_brand, of_category = (defaultdict[int, float](int, {-1: -math.inf}) for _ in range(2))
    taken: dict[int, int] = {}
    passed: dict[int, int] = {}
    for place, item, brand, category in zip(range(count), items, brands, categories, strict=False):
        if item in taken or item in passed:
            continue
        if of_brand[brand] < per_brand and of_category[category] < per_category:
            taken[item] = place
            of_brand[brand] += 1
            of_category[category] += 1
            if len(taken) == wanted:
                break
        else:
            passed[item] = place
    return [*taken.values(), *passed.values()][:wanted]


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
            "item_id": release.index.item_ids.take(pa.array(item)),
            "score": pa.array(np.round(score.astype(np.float64), 6)),
            "origin": ORIGINS.take(pa.array(origin)),
            "reason": pa.array(reasons).take(pa.array(reason)),
        }
    )
