"""Which categories a shopper attends to, recent attention counting more."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent_platform.index.item_index import ItemIndex
from intent_platform.model.rows import TYPE_CODE, US_PER_DAY, Rows

KEPT = 10
SHOWN = 5
HALF_LIFE_DAYS = 7.0

ATTENTION = {"view": 1.0, "click": 1.0, "search": 1.0, "rating": 1.0, "add_to_cart": 3.0, "purchase": 3.0}
"""What an event says about interest; kinds that are not listed say nothing."""

_WEIGHT_OF_CODE = np.array([ATTENTION.get(name, 0.0) for name in sorted(TYPE_CODE, key=TYPE_CODE.__getitem__)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Interests:
    """One entry per kept (user, category), by user, strongest first."""

    user: np.ndarray  # int64
    rank: np.ndarray  # int64, from 1
    category: np.ndarray  # int64, into `categories`
    weight: np.ndarray  # float64; a user's sum to 1
    last_seen_at: np.ndarray  # int64 µs
    categories: pa.Array

    def names(self) -> pa.Array:
        return self.categories.take(pa.array(self.category))

    def top_categories(self, users: int) -> pa.Array:
        """list<struct<category, weight>> per user, at most SHOWN."""
        shown = self.rank <= SHOWN
        offsets = np.concatenate([[0], np.cumsum(np.bincount(self.user[shown], minlength=users))])
        values = pa.StructArray.from_arrays(
            [self.names().filter(pa.array(shown)), pa.array(np.round(self.weight[shown], 4), pa.float64())],
            names=["category", "weight"],
        )
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def find_interests(rows: Rows, index: ItemIndex, age: np.ndarray) -> Interests:
    """age: int64 µs (R,), from each row to the moment at which its user is asked."""
    codes, categories = _category_of_rows(rows, index)
    weight = _WEIGHT_OF_CODE[rows.type_code] * 0.5 ** (age / (HALF_LIFE_DAYS * US_PER_DAY))
    taken = np.flatnonzero((codes >= 0) & (weight > 0))
    width = max(len(categories), 1)
    keys, inverse = np.unique(rows.user[taken] * width + codes[taken], return_inverse=True)
    total = np.bincount(inverse, weights=weight[taken], minlength=len(keys))
    last = np.zeros(len(keys), np.int64)
    np.maximum.at(last, inverse, rows.at[taken])
    user, category = keys // width, keys % width
    # Ties are broken by name: codes depend on which rows came first.
    by_name = np.argsort(pc.array_sort_indices(categories).to_numpy())
    order = np.lexsort((by_name[category], -np.round(total, 9), user))
    user, category, total, last = user[order], category[order], total[order], last[order]
    rank = np.arange(len(user)) - np.searchsorted(user, user) + 1
    kept = rank <= KEPT
    user, category, total = user[kept], category[kept], total[kept]
    share = total / np.maximum(np.bincount(user, weights=total, minlength=rows.users), 1e-300)[user]
    # Rounded, as the shares of who did nothing since are the same from day to day, and need no write.
    return Interests(
        user=user,
        rank=rank[kept],
        category=category,
        weight=np.round(share, 9),
        last_seen_at=last[kept],
        categories=categories,
    )


def _category_of_rows(rows: Rows, index: ItemIndex) -> tuple[np.ndarray, pa.Array]:
    """Codes of each row's category: the event's own, else its item's."""
    codes, items = rows.item
    position = index.positions(items)
    of_item = index.items["category"].combine_chunks().take(pa.array(np.maximum(position, 0)))
    of_item = pc.if_else(pa.array(position >= 0), of_item, pa.scalar(None, pa.string()))
    own_codes, own = rows.category
    fallback = pc.index_in(of_item, value_set=own).fill_null(-1).to_numpy(zero_copy_only=False)
    is_new = (fallback < 0) & of_item.is_valid().to_numpy(zero_copy_only=False)
    extra = pc.unique(of_item.filter(pa.array(is_new)))
    categories = pa.concat_arrays([own.cast(pa.string()), extra.cast(pa.string())])
    of_item_codes = pc.index_in(of_item, value_set=categories, skip_nulls=True).fill_null(-1)
    lookup = np.append(of_item_codes.to_numpy(zero_copy_only=False), -1)
    return np.where(own_codes >= 0, own_codes, lookup[codes]), categories
