"""What a shopper has done so far, as numbers: the boosted trees' input, and beside the sequence, the network's.

An example is (position, asked_at): everything up to and including row `position`, asked at a moment not before it and
before the shopper's next event. Nothing here looks at a later row, so features cannot leak.
"""

import numpy as np

from intent_platform.model.rows import TYPE_CODE, US_PER_DAY, US_PER_HOUR, Rows

COUNTED = ("view", "click", "search", "add_to_cart", "remove_from_cart", "purchase")
WINDOWS = (("1h", US_PER_HOUR), ("1d", US_PER_DAY), ("7d", 7 * US_PER_DAY), ("30d", 30 * US_PER_DAY))
WINDOW_NAMES = tuple(name for name, _ in WINDOWS)
SINCE = ("view", "search", "add_to_cart", "purchase")
NEVER_HOURS = 24.0 * 60

FEATURES = (
    *(f"{name}s_{window}" for window in ("session", *WINDOW_NAMES) for name in COUNTED),
    "idle_hours",
    *(f"hours_since_{name}" for name in SINCE),
    "session_minutes",
    "session_distinct_items",
    "session_item_repeats",
    "item_repeats",
    "open_carts",
    "sessions_7d",
    "last_price",
    "mean_session_price",
    "last_price_to_mean_ratio",
    "hour_sin",
    "hour_cos",
    "weekday",
    "last_event_type",
)
"""Column names of `features`, in order."""

RISING = tuple(name for name in FEATURES if name.startswith("add_to_carts_"))
"""Features in which no model may fall: one more add_to_cart never lowers intent."""


def features(rows: Rows, positions: np.ndarray, asked_at: np.ndarray) -> np.ndarray:
    """float32 (len(positions), len(FEATURES)); NaN where there is no price. asked_at in µs."""
    session_start, *starts = _first_rows(rows, positions, asked_at)
    since = np.minimum([session_start, *starts], positions + 1)
    columns = [
        (asked_at - rows.at[positions]) / US_PER_HOUR,
        *_hours_since(rows, positions, asked_at),
        (rows.at[positions] - rows.session_at[positions]) / (US_PER_HOUR / 60),
        *_item_columns(rows, positions, session_start),
        _open_carts(rows)[positions],
        _sessions(rows, positions, starts[WINDOW_NAMES.index("7d")]),
        *_price_columns(rows, positions, session_start),
        *_clock_columns(asked_at),
        rows.type_code[positions],
    ]
    table = np.empty((len(FEATURES), len(positions)), np.float32)
    table[: len(FEATURES) - len(columns)] = _counts_since(rows, positions, since)
    table[-len(columns) :] = columns
    return np.ascontiguousarray(table.T)


def _first_rows(rows: Rows, positions: np.ndarray, asked_at: np.ndarray) -> np.ndarray:
    """int64 (1 + len(WINDOWS), len(positions)): where the session and each window before asked_at begin."""
    moments = np.stack([rows.session_at[positions] - 1, *(asked_at - width for _, width in WINDOWS)])
    return rows.first_after(np.tile(rows.user[positions], len(moments)), moments.ravel()).reshape(moments.shape)


def _counts_since(rows: Rows, positions: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """int64 (len(starts) × len(COUNTED), len(positions)): events of each kind from each start up to the position."""
    running = np.zeros((len(COUNTED), len(rows) + 1), np.int64)
    codes = np.array([TYPE_CODE[name] for name in COUNTED])
    np.cumsum(rows.type_code == codes[:, None], axis=1, out=running[:, 1:])
    counts = running[:, positions + 1] - running[:, starts].swapaxes(0, 1)
    return counts.reshape(len(starts) * len(COUNTED), len(positions))


def _hours_since(rows: Rows, positions: np.ndarray, asked_at: np.ndarray) -> np.ndarray:
    """float64 (len(SINCE), len(positions)): from the newest event of each kind, at most NEVER_HOURS."""
    codes = np.array([TYPE_CODE[name] for name in SINCE])
    last = _last_row_where(rows.type_code == codes[:, None])[:, positions]
    is_own = last >= rows.starts[rows.user[positions]]
    hours = (asked_at - rows.at[np.maximum(last, 0)]) / US_PER_HOUR
    return np.where(is_own, np.minimum(hours, NEVER_HOURS), NEVER_HOURS)


def _last_row_where(is_wanted: np.ndarray) -> np.ndarray:
    """For each row (last axis) the newest row up to it that is wanted, of any user; −1 if none."""
    return np.maximum.accumulate(np.where(is_wanted, np.arange(is_wanted.shape[-1]), -1), axis=-1)


def _item_columns(rows: Rows, positions: np.ndarray, session_start: np.ndarray) -> list[np.ndarray]:
    codes, _ = rows.item
    is_item = codes >= 0
    in_session = _earlier_equal(rows.user, rows.session_at, codes)
    distinct = np.concatenate([[0], np.cumsum(is_item & (in_session == 0))])
    items = np.concatenate([[0], np.cumsum(is_item)])
    distinct_in_session = distinct[positions + 1] - distinct[session_start]
    items_in_session = items[positions + 1] - items[session_start]
    ever = _earlier_equal(rows.user, codes)
    return [distinct_in_session, items_in_session - distinct_in_session, np.where(is_item, ever, 0)[positions]]


def _earlier_equal(*keys: np.ndarray) -> np.ndarray:
    """For each row: how many earlier rows have the same keys."""
    count = len(keys[0])
    order = np.lexsort((np.arange(count), *reversed(keys)))
    is_first = np.ones(count, bool)
    if count > 1:
        is_first[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    group_start = np.maximum.accumulate(np.where(is_first, np.arange(count), 0)) if count else np.arange(0)
    earlier = np.empty(count, np.int64)
    earlier[order] = np.arange(count) - group_start
    return earlier


def _open_carts(rows: Rows) -> np.ndarray:
    """For each row: things put into the cart and not removed since the newest purchase, at least 0."""
    change = rows.is_type("add_to_cart").astype(np.int64) - rows.is_type("remove_from_cart")
    running = np.concatenate([[0], change.cumsum()])
    emptied = np.maximum(_last_row_where(rows.is_type("purchase")) + 1, rows.starts[:-1][rows.user])
    return np.maximum(running[1:] - running[emptied], 0)


def _sessions(rows: Rows, positions: np.ndarray, start: np.ndarray) -> np.ndarray:
    is_start = np.ones(len(rows), bool)
    is_start[1:] = (rows.session_at[1:] != rows.session_at[:-1]) | (rows.user[1:] != rows.user[:-1])
    running = np.concatenate([[0], is_start.cumsum()])
    return running[positions + 1] - running[np.minimum(start, positions)]


def _price_columns(rows: Rows, positions: np.ndarray, session_start: np.ndarray) -> list[np.ndarray]:
    known = np.isfinite(rows.price)
    # Whole millionths: sums of floats would depend on which other users are in the table.
    log_price = np.round(1e6 * np.log1p(np.maximum(np.nan_to_num(rows.price), 0))).astype(np.int64) * known
    sums, counts = np.concatenate([[0], log_price.cumsum()]), np.concatenate([[0], known.cumsum()])
    count = counts[positions + 1] - counts[session_start]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, (sums[positions + 1] - sums[session_start]) / (1e6 * count), np.nan)
    last = np.where(known[positions], log_price[positions] / 1e6, np.nan)
    return [last, mean, last - mean]


def _clock_columns(asked_at: np.ndarray) -> list[np.ndarray]:
    angle = 2 * np.pi * (asked_at % US_PER_DAY) / US_PER_DAY
    return [np.sin(angle), np.cos(angle), (asked_at // US_PER_DAY + 3) % 7]  # 1970-01-01 was a Thursday


def squash(table: np.ndarray) -> np.ndarray:
    """Counts and hours on a log scale, keeping the sign."""
    return (np.sign(table) * np.log1p(np.abs(table))).astype(np.float32)
