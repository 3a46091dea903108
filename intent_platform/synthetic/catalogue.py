"""What the invented shop sells, and the words its shoppers search with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa

from intent_platform.synthetic.chance import Bools, Floats, Ints, RowSampler
from intent_platform.synthetic.words import DEPARTMENTS, DESCRIPTIONS, MODIFIER_WORDS, Department, Leaf

LANGUAGES = ("en", "zh")
PRICE_BANDS = 3  # thirds of a category, by price
BRAND_STYLES = 3  # brands of a department fall into styles; a shopper likes one
STYLES = len(LANGUAGES) * BRAND_STYLES * PRICE_BANDS  # style = (language * BRAND_STYLES + brand style) * bands + band
QUERY_FORMS = 6
FEWEST_PER_LEAF = 4

_NEW_LATER_RATIO = 0.12
_RETIRED_RATIO = 0.02
_NEVER_DAY = 1 << 30
_LIKING = 4.0  # how much more an item is chosen for each of language, brand style and price band that suits


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """Items in the order (category, price, item_id): a category is a range, and cheaper means a lower number."""

    table: pa.Table  # one row per item, as in catalogue.csv
    leaf_of: Ints  # (items,)
    leaf_start: Ints  # (leaves + 1,)
    choice: RowSampler  # item by day * STYLES + style
    demand: RowSampler  # leaf by day
    queries: tuple[str, ...]  # by ((item * languages + language) * QUERY_FORMS + form) * modifiers + modifier

    @property
    def leaves(self) -> int:
        """How many leaf categories there are."""
        return len(self.leaf_start) - 1

    def is_cheapest(self, item: Ints) -> Bools:
        """Say of each item whether nothing in its category is cheaper."""
        return item == self.leaf_start[self.leaf_of[item]]

    def is_dearest(self, item: Ints) -> Bools:
        """Say of each item whether nothing in its category is dearer."""
        return item == self.leaf_start[self.leaf_of[item] + 1] - 1

    def query_number(self, item: Ints, language: Ints, form: Ints, modifier: Ints) -> Ints:
        """Return which of `queries` looks for the item in that language and form."""
        return ((item * len(LANGUAGES) + language) * QUERY_FORMS + form) * len(MODIFIER_WORDS) + modifier


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    leaf: Leaf
    leaf_number: int
    department: Department
    price: float
    brand: int
    adjective: int
    feature: int
    model: str
    language: int
    on_sale_from_day: int


def make_catalogue(
    *, seed: int, items: int, first_day: date, days: int, currency: str, chinese_ratio: float
) -> Catalogue:
    """Draw the items and how they are chosen on each day."""
    rng = np.random.default_rng([seed, 1])
    stock = _draw_items(rng, items, days, chinese_ratio)
    leaf_of = np.array([item.leaf_number for item in stock])
    leaf_start = np.searchsorted(leaf_of, np.arange(leaf_of[-1] + 2))
    return Catalogue(
        table=_table(stock, first_day, currency),
        leaf_of=leaf_of,
        leaf_start=leaf_start,
        choice=RowSampler(_choice_weights(rng, stock, leaf_start, days)),
        demand=RowSampler(_demand_weights(rng, first_day, days)),
        queries=tuple(_queries(rng, stock)),
    )


def _draw_items(rng: np.random.Generator, items: int, days: int, chinese_ratio: float) -> list[_Item]:
    leaves = [(department, leaf) for department in DEPARTMENTS for leaf in department.leaves]
    sizes = np.full(len(leaves), FEWEST_PER_LEAF)
    spare = items - sizes.sum()
    sizes += rng.multinomial(spare, rng.dirichlet(np.full(len(leaves), 8.0)))
    stock: list[_Item] = []
    for number, ((department, leaf), size) in enumerate(zip(leaves, sizes, strict=True)):
        spread = rng.beta(1.2, 2.2, size)
        prices = np.sort(np.round(leaf.cheapest * (leaf.dearest / leaf.cheapest) ** spread) - 0.05)
        arrives = np.where(rng.random(size) < _NEW_LATER_RATIO, rng.integers(1, max(days, 2), size), 0)
        arrives[rng.random(size) < _RETIRED_RATIO] = _NEVER_DAY
        arrives[[0, 1, -1]] = 0  # the ends stay on sale, so `cheaper` and `dearer` always have an item to offer
        stock += [
            _Item(
                leaf=leaf,
                leaf_number=number,
                department=department,
                price=float(price),
                brand=int(rng.integers(len(department.brands))),
                adjective=int(rng.integers(len(department.adjectives))),
                feature=int(rng.integers(len(department.features))),
                model=f"{'ABCEGHKMNRSTVX'[rng.integers(14)]}{rng.integers(2, 99)}",
                language=int(rng.random() < chinese_ratio),
                on_sale_from_day=int(day),
            )
            for price, day in zip(prices, arrives, strict=True)
        ]
    return stock


def _choice_weights(rng: np.random.Generator, stock: list[_Item], leaf_start: Ints, days: int) -> Floats:
    """Return (days * STYLES, items): popularity within the category, times how well the item suits the style."""
    popularity = np.concatenate(
        [1.0 / (1 + rng.permutation(size)) ** 0.7 for size in np.diff(leaf_start)]  # Zipf-like
    )
    place = np.concatenate([np.arange(size) * PRICE_BANDS // size for size in np.diff(leaf_start)])
    brand_style = np.array([item.brand % BRAND_STYLES for item in stock])
    language = np.array([item.language for item in stock])
    liked_language, liked_brands, liked_band = np.unravel_index(
        np.arange(STYLES), (len(LANGUAGES), BRAND_STYLES, PRICE_BANDS)
    )
    suits = (
        (language == liked_language[:, None]).astype(int)
        + (brand_style == liked_brands[:, None])
        + (place == liked_band[:, None])
    )
    on_sale = np.array([item.on_sale_from_day for item in stock]) <= np.arange(days)[:, None]
    return (on_sale[:, None, :] * (popularity * _LIKING**suits)).reshape(days * STYLES, len(stock))


def _demand_weights(rng: np.random.Generator, first_day: date, days: int) -> Floats:
    """Return (days, leaves): how much each category is wanted by shoppers without a taste for it."""
    peaks = np.array([department.peak_month for department in DEPARTMENTS for _ in department.leaves])
    months = np.array([_month_of_year(first_day + timedelta(days=day)) for day in range(days)])
    season = 1 + 0.7 * np.cos(2 * np.pi * (months[:, None] - peaks) / 12)
    return np.asarray(season * rng.gamma(3.0, 1.0, len(peaks)))


def _month_of_year(day: date) -> float:
    return day.month + (day.day - 15) / 30


def _table(stock: list[_Item], first_day: date, currency: str) -> pa.Table:
    texts = [_texts(item, number) for number, item in enumerate(stock)]
    midnight = datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC)
    since = [timedelta(days=item.on_sale_from_day % _NEVER_DAY) for item in stock]
    return pa.table(
        {
            "item_id": [f"item-{number + 1:05d}" for number in range(len(stock))],
            "title": [title for title, _ in texts],
            "description": [description for _, description in texts],
            "category": [item.leaf.path for item in stock],
            "brand": [item.department.brands[item.brand] for item in stock],
            "price": [f"{item.price:.2f}" for item in stock],
            "currency": [currency] * len(stock),
            "is_available": ["false" if item.on_sale_from_day == _NEVER_DAY else "true" for item in stock],
            "updated_at": [f"{midnight + wait:%Y-%m-%dT%H:%M:%S.000Z}" for wait in since],
        }
    )


def _texts(item: _Item, number: int) -> tuple[str, str]:
    """Return title and description in the item's language."""
    brand, noun = item.department.brands[item.brand], item.leaf.noun[item.language]
    adjective = item.department.adjectives[item.adjective][item.language]
    feature = item.department.features[item.feature][item.language]
    form = DESCRIPTIONS[number % len(DESCRIPTIONS)][item.language]
    description = form.format(adjective=adjective, noun=noun, brand=brand, feature=feature, model=item.model)
    if LANGUAGES[item.language] == "zh":
        return f"{brand} {adjective}{noun} {feature} {item.model}", description
    return f"{brand} {adjective.title()} {noun.title()} {feature} {item.model}", description[0].upper() + description[
        1:
    ]


def _queries(rng: np.random.Generator, stock: list[_Item]) -> list[str]:
    """Return all searches; QUERY_FORMS says how many per item and language, each with every modifier."""
    found: list[str] = []
    for item in stock:
        for language in range(len(LANGUAGES)):
            for form in _query_forms(rng, item, language):
                found.append(form)
                for words in MODIFIER_WORDS[1:]:
                    word = words[int(rng.integers(len(words)))][language]
                    found.append(f"{word} {form}" if language == 0 else f"{word}{form}")
    return found


def _query_forms(rng: np.random.Generator, item: _Item, language: int) -> tuple[str, ...]:
    """Return the ways to ask for an item, from vague to exact; the last has a typo."""
    gap = " " if LANGUAGES[language] == "en" else ""
    noun = item.leaf.noun[language]
    adjective = item.department.adjectives[item.adjective][language]
    feature = item.department.features[item.feature][language]
    brand = item.department.brands[item.brand]
    described = f"{adjective}{gap}{noun}"
    listed = f"{noun}, {feature}" if rng.random() < 0.2 else f"{noun} {feature}"
    slip = int(rng.integers(1, len(noun))) if len(noun) > 1 else 0
    return (
        noun,
        described,
        f"{('new', '新款')[language]}{gap}{noun}",
        f"{brand} {noun}",
        listed,
        noun[:slip] + noun[slip + 1 :],
    )
