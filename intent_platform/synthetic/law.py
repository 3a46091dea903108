"""The law that every shopper of the invented shop obeys: a hidden Markov chain whose steps are events.

A hidden state is (type, stage): the type never changes, the stage does. Being in a state, a shopper acts, waits or
leaves for good; then comes the next state. What anyone can see of a step is independent, given the state, of all else
that is hidden (above all of taste), and has one of a few values:

    action      look, search, add, remove, buy, rate, refund; only the stage `buying` buys, and it does nothing else
    relation    of a look to the item in focus: same_item, cheaper or dearer in its category, elsewhere
    modifier    of a search: plain, bargain ("cheap …"), ready ("buy …")
    wait        in ticks of the shop's clock; its length tells in_visit, pause and days_away apart

These numbers are the shop's constants: they are known to the posterior and to nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr

from intent_platform.synthetic.chance import Floats
from intent_platform.synthetic.clock import TICK_MS, TICKS_PER_DAY

LAW_VERSION: Final = 1

TYPES: Final = ("window_shopper", "bargain_hunter", "loyal", "one_time_visitor")
STAGES: Final = ("browsing", "comparing", "determined", "buying", "bought", "gave_up")
ACTIONS: Final = ("look", "search", "add", "remove", "buy", "rate", "refund")
RELATIONS: Final = ("same_item", "cheaper", "dearer", "elsewhere")
MODIFIERS: Final = ("plain", "bargain", "ready")
WAITS: Final = ("in_visit", "pause", "days_away", "left")

LOOK, SEARCH, ADD, REMOVE, BUY, RATE, REFUND = range(7)
SAME_ITEM, CHEAPER, DEARER, ELSEWHERE = range(4)
PLAIN, BARGAIN, READY = range(3)
IN_VISIT, PAUSE, DAYS_AWAY, LEFT = range(4)
BROWSING, COMPARING, DETERMINED, BUYING, BOUGHT, GAVE_UP = range(6)
STATES: Final = len(TYPES) * len(STAGES)

CART_SLOTS: Final = 4
"""A shopper with this many items in the cart looks instead of adding; one with none looks instead of removing."""

_TICKS_PER_HOUR = TICKS_PER_DAY // 24
LONGEST_WAIT_TICKS: Final = (_TICKS_PER_HOUR // 2, 10 * _TICKS_PER_HOUR, 8 * TICKS_PER_DAY)
"""Of in_visit, pause and days_away; each kind begins where the one before ends, so a wait tells its kind."""
CART_KEPT_TICKS: Final = 3 * TICKS_PER_DAY
"""The shop empties a cart after a longer silence."""

# Rows: the stages, in order. Columns: as named above each table.
# browsing, comparing, determined, buying, bought, gave_up
_NEXT_IN_VISIT = np.array([
    [0.925, 0.055, 0.003, 0.000, 0.00, 0.017],
    [0.050, 0.870, 0.045, 0.000, 0.00, 0.035],
    [0.010, 0.025, 0.815, 0.125, 0.00, 0.025],
    [0.000, 0.000, 0.000, 0.000, 1.00, 0.000],
    [0.080, 0.000, 0.000, 0.000, 0.92, 0.000],
    [0.060, 0.010, 0.000, 0.000, 0.00, 0.930],
])  # fmt: skip
_NEXT_AFTER_PAUSE = np.array([
    [0.85, 0.14, 0.01, 0.00, 0.00, 0.00],
    [0.18, 0.72, 0.10, 0.00, 0.00, 0.00],
    [0.06, 0.14, 0.72, 0.08, 0.00, 0.00],
    [0.20, 0.00, 0.00, 0.00, 0.80, 0.00],
    [0.60, 0.05, 0.00, 0.00, 0.35, 0.00],
    [0.80, 0.05, 0.00, 0.00, 0.00, 0.15],
])  # fmt: skip
_NEXT_AFTER_DAYS = np.array([
    [0.87, 0.12, 0.01, 0.00, 0.00, 0.00],
    [0.45, 0.45, 0.10, 0.00, 0.00, 0.00],
    [0.30, 0.20, 0.46, 0.04, 0.00, 0.00],
    [0.40, 0.00, 0.00, 0.00, 0.60, 0.00],
    [0.70, 0.05, 0.00, 0.00, 0.25, 0.00],
    [0.92, 0.08, 0.00, 0.00, 0.00, 0.00],
])  # fmt: skip
# look, search, add, remove, buy, rate, refund
_ACTION = np.array([
    [0.82, 0.150, 0.020, 0.010, 0, 0.00, 0.00],
    [0.80, 0.090, 0.085, 0.025, 0, 0.00, 0.00],
    [0.58, 0.050, 0.340, 0.030, 0, 0.00, 0.00],
    [0.00, 0.000, 0.000, 0.000, 1, 0.00, 0.00],
    [0.52, 0.080, 0.010, 0.000, 0, 0.36, 0.03],
    [0.66, 0.080, 0.010, 0.250, 0, 0.00, 0.00],
])  # fmt: skip
# same_item, cheaper, dearer, elsewhere
_RELATION = np.array([
    [0.05, 0.15, 0.15, 0.65],
    [0.14, 0.39, 0.39, 0.08],
    [0.64, 0.14, 0.16, 0.06],
    [0.25, 0.25, 0.25, 0.25],
    [0.30, 0.10, 0.10, 0.50],
    [0.04, 0.22, 0.04, 0.70],
])  # fmt: skip
# plain, bargain, ready
_MODIFIER = np.array([
    [0.93, 0.06, 0.01],
    [0.72, 0.22, 0.06],
    [0.50, 0.08, 0.42],
    [1.00, 0.00, 0.00],
    [0.90, 0.08, 0.02],
    [0.80, 0.19, 0.01],
])  # fmt: skip
# in_visit, pause, days_away, left
_WAIT = np.array([
    [0.910, 0.030, 0.053, 0.007],
    [0.940, 0.025, 0.031, 0.004],
    [0.955, 0.025, 0.018, 0.002],
    [0.880, 0.050, 0.066, 0.004],
    [0.720, 0.070, 0.200, 0.010],
    [0.740, 0.060, 0.185, 0.015],
])  # fmt: skip
_MEDIAN_DWELL_SECONDS = np.array([28.0, 55.0, 75.0, 90.0, 40.0, 22.0])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Temper:
    """How one type of shopper departs from the tables above."""

    share: float
    haste: float  # scales comparing → determined and determined → buying
    carts: float  # scales add
    searches: float  # scales search
    bargains: float  # scales looks at cheaper items and bargain searches
    leaves: float  # scales leaving for good
    days_away: float  # scales the median of days_away


_TEMPERS: Final = (
    _Temper(share=0.42, haste=0.07, carts=0.9, searches=0.6, bargains=1.0, leaves=0.6, days_away=0.9),
    _Temper(share=0.20, haste=0.70, carts=1.1, searches=1.0, bargains=2.4, leaves=0.6, days_away=1.2),
    _Temper(share=0.16, haste=2.20, carts=1.2, searches=2.2, bargains=0.6, leaves=0.3, days_away=0.8),
    _Temper(share=0.22, haste=0.50, carts=0.9, searches=1.2, bargains=1.0, leaves=9.0, days_away=2.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """All tables of the law. Z = 24 hidden states, numbered type * 6 + stage; every row of every table sums to 1."""

    first: Floats  # (Z,) state at a shopper's first event
    action: Floats  # (Z, 7)
    relation: Floats  # (Z, 4)
    modifier: Floats  # (Z, 3)
    wait: Floats  # (Z, 4) kind of wait after the event
    next_state: Floats  # (3, Z, Z) by kind of wait; leaving has no next
    wait_ticks: tuple[Floats, Floats, Floats]  # each (Z, longest + 1): P(ticks | state, kind); index 0 never happens


def make_law(median_days_away: float) -> Law:
    """Build the tables; median_days_away is how long a bargain hunter's absences last, others in proportion."""
    return Law(
        first=np.concatenate([t.share * np.array([0.72, 0.22, 0.06, 0, 0, 0]) for t in _TEMPERS]),
        action=_by_type(_ACTION, lambda table, t: _scaled(_scaled(table, ADD, t.carts), SEARCH, t.searches)),
        relation=_by_type(_RELATION, lambda table, t: _scaled(table, CHEAPER, t.bargains)),
        modifier=_by_type(_MODIFIER, lambda table, t: _scaled(table, BARGAIN, t.bargains)),
        wait=_by_type(_WAIT, lambda table, t: _scaled(table, LEFT, t.leaves)),
        next_state=np.stack([_next_state(table) for table in (_NEXT_IN_VISIT, _NEXT_AFTER_PAUSE, _NEXT_AFTER_DAYS)]),
        wait_ticks=(
            np.tile(_log_normal(_MEDIAN_DWELL_SECONDS * 1000 / TICK_MS, 1.0, IN_VISIT), (len(TYPES), 1)),
            np.tile(_log_normal(np.array([2.5 * _TICKS_PER_HOUR]), 0.8, PAUSE), (STATES, 1)),
            np.repeat(_log_normal(_days_away_medians(median_days_away), 0.6, DAYS_AWAY), len(STAGES), axis=0),
        ),
    )


def _by_type(table: Floats, adapt: Callable[[Floats, _Temper], Floats]) -> Floats:
    return np.concatenate([adapt(table, temper) for temper in _TEMPERS])


def _scaled(table: Floats, column: int, factor: float) -> Floats:
    """Multiply a column of the table, then let every row sum to 1 again."""
    changed = table.copy()
    changed[:, column] *= factor
    return np.asarray(changed / changed.sum(axis=1, keepdims=True))


def _next_state(table: Floats) -> Floats:
    """Return (Z, Z): one block of stages for each type on the diagonal, as nobody changes type."""
    together = np.zeros((STATES, STATES))
    for number, temper in enumerate(_TEMPERS):
        block = slice(number * len(STAGES), (number + 1) * len(STAGES))
        hasty = table.copy()
        hasty[COMPARING, DETERMINED] *= temper.haste
        hasty[DETERMINED, BUYING] *= temper.haste
        together[block, block] = hasty / hasty.sum(axis=1, keepdims=True)
    return together


def _days_away_medians(median_days_away: float) -> Floats:
    return np.array([temper.days_away for temper in _TEMPERS]) * median_days_away * TICKS_PER_DAY


def _log_normal(median_ticks: Floats, sigma: float, kind: int) -> Floats:
    """Return P(ticks) for each median, a log-normal cut to the range of waits of this kind and put on whole ticks."""
    shortest = 1 if kind == 0 else LONGEST_WAIT_TICKS[kind - 1] + 1
    edges = np.log(np.arange(shortest, LONGEST_WAIT_TICKS[kind] + 2) - 0.5)
    mass = np.diff(ndtr((edges - np.log(median_ticks)[:, None]) / sigma), axis=1)
    return np.pad(mass / mass.sum(axis=1, keepdims=True), ((0, 0), (shortest, 0)))
