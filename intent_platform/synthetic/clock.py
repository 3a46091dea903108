"""Two clocks: the wall clock (UTC milliseconds), and the shop's own clock, which runs slowly at night.

The law counts time in ticks of the shop's clock, so it needs no notion of day and night. Over any 24 hours both clocks
advance equally, whatever the hour they start from: a 24-hour horizon is always TICKS_PER_DAY, exactly.
"""

from __future__ import annotations

import numpy as np

from intent_platform.synthetic.chance import Floats, Ints

TICK_MS = 5_000
DAY_MS = 86_400_000
TICKS_PER_DAY = DAY_MS // TICK_MS

# How busy each UTC hour is; scaled below so that a day keeps its length.
_BUSYNESS = np.array(
    [5, 4, 4, 4, 4, 5, 6, 8, 9, 10, 11, 11, 12, 12, 11, 11, 11, 12, 13, 14, 14, 13, 10, 7], dtype=float
)
_WALL_KNOTS_MS = np.arange(25) * 3_600_000.0
_SHOP_KNOTS_MS = np.concatenate([[0.0], np.cumsum(_BUSYNESS / _BUSYNESS.sum())]) * DAY_MS


def wall_ms(shop_ms: Ints) -> Ints:
    """Return wall-clock milliseconds since the first day's midnight, rounded; shop_ms counts from the same midnight."""
    day, within = np.divmod(shop_ms, DAY_MS)
    return day * DAY_MS + np.rint(np.interp(within, _SHOP_KNOTS_MS, _WALL_KNOTS_MS)).astype(np.int64)


def shop_ms(wall: Ints) -> Floats:
    """Return shop-clock milliseconds; within 2 ms of what wall_ms was given, as wall_ms rounds."""
    day, within = np.divmod(wall, DAY_MS)
    return day * float(DAY_MS) + np.interp(within, _WALL_KNOTS_MS, _SHOP_KNOTS_MS)


def ticks_within(wall: Ints, horizon_hours: int) -> Ints:
    """Return how many whole ticks of the shop's clock pass in horizon_hours after each wall-clock time."""
    passed = shop_ms(wall + horizon_hours * 3_600_000) - shop_ms(wall)
    return np.floor(passed / TICK_MS + 1e-3).astype(np.int64)  # 1e-3 of a tick covers the milliseconds' rounding


def most_ticks_within(horizon_hours: int) -> int:
    """Return the largest value that ticks_within can give."""
    whole_days, hours = divmod(horizon_hours, 24)
    fastest = _BUSYNESS.max() / _BUSYNESS.mean()
    return whole_days * TICKS_PER_DAY + int(hours * 3_600_000 * fastest / TICK_MS) + (1 if hours else 0)
