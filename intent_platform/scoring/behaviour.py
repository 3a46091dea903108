"""Counts, money and prices by window: what a shopper did, whatever the release.

age: int64 µs (R,), from each row to the moment at which its user is asked.
"""

import numpy as np
import pyarrow as pa

from intent_platform.model.rows import US_PER_DAY, Rows


def count_columns(rows: Rows, age: np.ndarray) -> dict[str, pa.Array]:
    """Events in the last n days; one of exactly n days ago is out."""
    in_1d, in_7d, in_30d = (age < days * US_PER_DAY for days in (1, 7, 30))
    is_counted = {
        "events_1d": in_1d,
        "events_7d": in_7d,
        "events_30d": in_30d,
        "views_7d": in_7d & rows.is_type("view"),
        "searches_7d": in_7d & rows.is_type("search"),
        "add_to_carts_7d": in_7d & rows.is_type("add_to_cart"),
        "purchases_30d": in_30d & rows.is_type("purchase"),
    }
    counts = np.add.reduceat(np.stack(list(is_counted.values())), rows.starts[:-1], axis=1, dtype=np.int32)
    return {name: pa.array(count) for name, count in zip(is_counted, counts, strict=True)}


def money_columns(rows: Rows, age: np.ndarray) -> dict[str, pa.Array]:
    """Purchases of 30 days in the currency in which the user bought most often (the first by name among equals)."""
    is_recent = (age < 30 * US_PER_DAY) & rows.is_type("purchase")
    taken = np.flatnonzero(is_recent & np.isfinite(rows.price))
    chosen, total, names = _by_main_currency(rows, taken, rows.price * rows.quantity)
    return {"spent_30d": pa.array(total, pa.float64()), "spent_currency": _currency_column(chosen, names)}


def price_columns(rows: Rows, age: np.ndarray) -> dict[str, pa.Array]:
    """Lower and upper quartile of the prices met in 30 days, in the currency met most often; NULL without a price."""
    is_met = (age < 30 * US_PER_DAY) & np.isfinite(rows.price) & (rows.item[0] >= 0)
    met = np.flatnonzero(is_met)
    chosen, _, names = _by_main_currency(rows, met, rows.price)
    met = met[rows.currency[0][met] == chosen[rows.user[met]]]
    met = met[np.lexsort((rows.price[met], rows.user[met]))]
    count = np.bincount(rows.user[met], minlength=rows.users)
    first = count.cumsum() - count
    prices = np.append(rows.price[met], np.nan)  # the last is for who met none
    low, high = (prices[np.where(count > 0, first + each, -1)] for each in ((count - 1) // 4, (3 * count) // 4))
    return {
        "price_low": pa.array(low, pa.float64(), from_pandas=True),
        "price_high": pa.array(high, pa.float64(), from_pandas=True),
        "price_currency": _currency_column(chosen, names),
    }


def _by_main_currency(rows: Rows, taken: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Per user: code of the currency most of the taken rows have (−1: no rows), and their sum in it."""
    codes, names = rows.currency
    shape = rows.users, len(names) + 1
    key = rows.user[taken] * shape[1] + codes[taken]
    count, total = (np.bincount(key, each, shape[0] * shape[1]).reshape(shape) for each in (None, amount[taken]))
    users, most = np.arange(rows.users), count.argmax(axis=1)
    return np.where(count[users, most] > 0, most, -1), np.round(total[users, most], 6), names


def _currency_column(chosen: np.ndarray, names: list[str]) -> pa.Array:
    lookup = [None, *names]
    return pa.array([lookup[code] for code in np.maximum(chosen, 0).tolist()], pa.string())
