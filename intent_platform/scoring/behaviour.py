"""Counts, money and prices by window: what a shopper did, whatever the release.

age: int64 µs (R,), from each row to the moment at which its user is asked.
"""

import numpy as np
import pyarrow as pa

from intent_platform.model.rows import US_PER_DAY, Rows


def count_columns(rows: Rows, age: np.ndarray) -> dict[str, pa.Array]:
    """Events in the last n days; one of exactly n days ago is out."""
    everything = np.ones(len(rows), bool)
    wanted = {
        "events_1d": (everything, 1),
        "events_7d": (everything, 7),
        "events_30d": (everything, 30),
        "views_7d": (rows.is_type("view"), 7),
        "searches_7d": (rows.is_type("search"), 7),
        "add_to_carts_7d": (rows.is_type("add_to_cart"), 7),
        "purchases_30d": (rows.is_type("purchase"), 30),
    }
    return {
        name: pa.array(_per_user(rows, mask & (age < days * US_PER_DAY)), pa.int32())
        for name, (mask, days) in wanted.items()
    }


def money_columns(rows: Rows, age: np.ndarray) -> dict[str, pa.Array]:
    """Purchases of 30 days in the currency in which the user bought most often (the first by name among equals)."""
    is_recent = (age < 30 * US_PER_DAY) & rows.is_type("purchase")
    spent = np.nan_to_num(rows.price) * rows.quantity
    chosen, total, names = _by_main_currency(rows, np.flatnonzero(is_recent & np.isfinite(rows.price)), spent)
    return {"spent_30d": pa.array(total, pa.float64()), "spent_currency": _currency_column(chosen, names)}


def price_columns(rows: Rows, age: np.ndarray) -> dict[str, pa.Array]:
    """Lower and upper quartile of the prices met in 30 days, in the currency met most often; NULL without a price."""
    is_met = (age < 30 * US_PER_DAY) & np.isfinite(rows.price) & (rows.item[0] >= 0)
    met = np.flatnonzero(is_met)
    chosen, _, names = _by_main_currency(rows, met, rows.price)
    met = met[_sorted_currency(rows)[0][met] == chosen[rows.user[met]]]
    met = met[np.lexsort((rows.price[met], rows.user[met]))]
    users, first, count = np.unique(rows.user[met], return_index=True, return_counts=True)
    low, high = np.full(rows.users, np.nan), np.full(rows.users, np.nan)
    low[users] = rows.price[met[first + (count - 1) // 4]]
    high[users] = rows.price[met[first + (3 * (count - 1) + 3) // 4]]
    return {
        "price_low": pa.array(low, pa.float64(), from_pandas=True),
        "price_high": pa.array(high, pa.float64(), from_pandas=True),
        "price_currency": _currency_column(chosen, names),
    }


def _per_user(rows: Rows, mask: np.ndarray) -> np.ndarray:
    return np.bincount(rows.user[mask], minlength=rows.users)


def _sorted_currency(rows: Rows) -> tuple[np.ndarray, list[str]]:
    """Codes in order of the currency's name (0: none), so that ties do not depend on the order of rows."""
    codes, names = rows.currency
    listed = names.to_pylist()
    order = sorted(range(len(listed)), key=listed.__getitem__)
    rank = np.zeros(len(listed) + 1, np.int64)
    rank[order] = np.arange(1, len(listed) + 1)
    return rank[codes], [listed[each] for each in order]


def _by_main_currency(rows: Rows, taken: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Per user: code of the currency most of the taken rows have (−1: no rows), and their sum in it."""
    codes, names = _sorted_currency(rows)
    width = len(names) + 1
    keys, inverse, count = np.unique(rows.user[taken] * width + codes[taken], return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=amount[taken], minlength=len(keys))
    best = np.lexsort((keys % width, -count, keys // width))
    users, first = np.unique(keys[best] // width, return_index=True)
    chosen, total = np.full(rows.users, -1), np.zeros(rows.users)
    chosen[users] = keys[best[first]] % width
    total[users] = np.round(sums[best[first]], 6)
    return chosen, total, names


def _currency_column(chosen: np.ndarray, names: list[str]) -> pa.Array:
    lookup = pa.array([None, *names], pa.string())
    return lookup.take(pa.array(np.maximum(chosen, 0)))
