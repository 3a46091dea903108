"""Text to items: words, letters and meaning of a query, its price range and categories, and a shopper's interests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from intent_platform.index.query import MOST_LETTERS, Query, named_categories, understand
from intent_platform.index.release import Release

MEANING = 0.5
"""What the encoder's cosine counts beside the share of words and the share of letters that an item holds, 1 each.

Measured only as no gain and a small loss on queries in the titles' own words (docs/lab-book.md); it is there
for queries in other words.
"""

CATEGORY = 0.3  # for an item of a category that the query names
INTEREST = 0.3  # times the share of the shopper's attention that the item's category has

NEAR_RATIO = 0.4  # of the best score; below it an item shares stray letters, and is no answer
NEAR_FLOOR = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    item_id: str
    title: str | None
    category: str | None
    price: float | None
    currency: str | None
    score: float  # 0: it is popular, no more
    fits_price: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Hits, best first, and what the searcher should know of them."""

    query: Query
    hits: list[Hit]
    notes: list[str] = field(default_factory=list)


def search(release: Release, raw: str, k: int = 10, *, interests: Mapping[str, float] | None = None) -> Answer:
    """The k available items that fit best; never empty while something is for sale: what half fits and then what is
    popular closes the list.

    interests: category → share of a shopper's attention, as in profiles.user_interest. Items outside the price range
    that the query asks for come after those within, items without a price after both.
    """
    if k < 1:
        raise ValueError(f"k is {k}; ask for 1 item or more.")
    query = understand(raw)
    codes, names = release.index.category
    found = relevance(release, [query.text])[0] + CATEGORY * np.isin(codes, named_categories(query.text, names))
    interest = np.array([*((interests or {}).get(name, 0.0) for name in names), 0.0])[codes]  # the last: no category
    best = float(found[release.is_available].max(initial=0.0))
    is_answer = found >= max(NEAR_RATIO * best, NEAR_FLOOR)
    score = np.where(is_answer, found + INTEREST * interest, 0.0)
    fits = _fits_price(release, query)
    half_fits = np.where(found >= NEAR_FLOOR, found, 0.0)
    order = np.lexsort((-release.popular.share, -half_fits, -score, -fits, ~is_answer))
    order = order[release.is_available[order]][:k]
    hits = [_hit(release, int(each), float(score[each]), bool(fits[each] == 2)) for each in order]
    return Answer(query=query, hits=hits, notes=_notes(release, query, hits))


def relevance(release: Release, queries: list[str]) -> np.ndarray:
    """float32 (Q, N): how well items fit texts, 0 for an empty one; about 2.5 for an item's own title."""
    index, encoder = release.index, release.model.text.encoder
    scores = index.lexical.scores(queries)
    if encoder.dimensions:
        of_items = index.text_vectors[:, : encoder.dimensions]
        trust = MEANING * np.sqrt(2.0, dtype=np.float32) * encoder.familiarity(queries)  # the tower's halves: 1/√2 long
        scores += trust[:, None] * (encoder.encode(queries) @ of_items.T)
    scores[[not text for text in queries]] = 0.0
    return scores


def _fits_price(release: Release, query: Query) -> np.ndarray:
    """(N,): 2 within the range, 1 outside, 0 where the item has no price; 2 for all without a range."""
    price, currencies = release.index.price, release.index.currencies
    if not query.has_price:
        return np.full(len(price), 2)
    low, high = query.price_low or 0.0, query.price_high if query.price_high is not None else np.inf
    is_within = (price >= low) & (price <= high)
    if query.currency in currencies:
        is_same = pc.equal(release.index.items["currency"], query.currency).fill_null(fill_value=True)
        is_within &= is_same.to_numpy()
    return np.where(np.isnan(price), 0, np.where(is_within, 2, 1))


def _notes(release: Release, query: Query, hits: list[Hit]) -> list[str]:
    fitting = sum(hit.score > 0 for hit in hits)
    out_of_range = sum(not hit.fits_price for hit in hits)
    currencies = release.index.currencies
    is_foreign = query.currency is not None and bool(currencies) and query.currency not in currencies
    is_price_only = query.has_price and not query.text
    is_popular_only = bool(hits) and fitting == 0
    facts = {
        f"The query was cut: only its first {MOST_LETTERS:,} letters were looked at.": query.is_cut,
        f"Prices are in {', '.join(currencies)}, not {query.currency}: numbers were compared as they are.": is_foreign,
        "Nothing fits; these items are popular.": is_popular_only and not is_price_only,
        "The query says no more than a price; these items are popular.": is_popular_only and is_price_only,
        f"The first {fitting} fit; the others are popular.": 0 < fitting < len(hits),
        f"{out_of_range} of them lie outside the price range, have no price, or one in another currency.": out_of_range
        > 0,
        "Nothing is for sale.": not hits,
    }
    return [note for note, is_so in facts.items() if is_so]


def _hit(release: Release, position: int, score: float, fits_price: bool) -> Hit:
    row = release.index.items.slice(position, 1).to_pylist()[0]
    return Hit(
        item_id=row["item_id"],
        title=row["title"],
        category=row["category"],
        price=row["price"],
        currency=row["currency"],
        score=score,
        fits_price=fits_price,
    )
