"""Which categories a shopper attends to, recent attention counting more."""

from bisect import bisect
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

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
    category: np.ndarray  # int64, into `categories`, which begin with the index's
    weight: np.ndarray  # float64; a user's sum to 1
    last_seen_at: np.ndarray  # int64 µs
    categories: list[str]

    def named(self, category: np.ndarray) -> pa.Array:
        return pa.array([self.categories[code] for code in category.tolist()], pa.string())

    def top_categories(self, users: int) -> pa.Array:
        """list<struct<category, weight>> per user, at most SHOWN."""
        shown = self.rank <= SHOWN
        offsets = np.concatenate([[0], np.cumsum(np.bincount(self.user[shown], minlength=users))])
        values = pa.StructArray.from_arrays(
            [self.named(self.category[shown]), pa.array(np.round(self.weight[shown], 4), pa.float64())],
            names=["category", "weight"],
        )
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def find_interests(rows: Rows, index: ItemIndex, position: np.ndarray, age: np.ndarray) -> Interests:
    """position: (R,) of each row's item in the index, −1 for none. age: int64 µs (R,), from each row to the moment at
    which its user is asked."""
    codes, others = _category_of_rows(rows, index, position)
    names = index.category[1]
    weight = _WEIGHT_OF_CODE[rows.type_code] * 0.5 ** (age / (HALF_LIFE_DAYS * US_PER_DAY))
    taken = np.flatnonzero((codes >= 0) & (weight > 0))
    width = max(len(names) + len(others), 1)
    keys, inverse = np.unique(rows.user[taken] * width + codes[taken], return_inverse=True)
    total = np.bincount(inverse, weights=weight[taken], minlength=len(keys))
    last = np.zeros(len(keys), np.int64)
    np.maximum.at(last, inverse, rows.at[taken])
    user, category = keys // width, keys % width
    # Ties are broken by name: that is the order of the index's categories, and others stand between them.
    by_name = np.append(np.arange(len(names)), [bisect(names, each) - 0.5 for each in others])
    order = np.lexsort((category, by_name[category], -np.round(total, 9), user))
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
        categories=names + others,
    )


def _category_of_rows(rows: Rows, index: ItemIndex, position: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Codes of each row's category: the event's own, else its item's; and the names, in order, of the codes that come
    after the index's."""
    of_item, names = index.category
    codes, own = rows.category
    own_names = own.to_pylist()
    others = sorted(set(own_names).difference(index.category_code))
    code_of = {name: code for code, name in enumerate(others, len(names))}
    own_code = [index.category_code.get(name, code_of.get(name)) for name in own_names]
    own_codes = np.array([*own_code, -1], np.int64)[codes]
    return np.where(own_codes >= 0, own_codes, np.where(position >= 0, of_item[position], -1)), others
