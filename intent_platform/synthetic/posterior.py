"""What the best observer can know: P(purchase within the horizon | everything observable so far), exactly.

The forward recursion of the hidden chain gives P(state | observations); a table by state and ticks left gives
P(purchase within those ticks | state). Both use the law's own tables and time grid, so nothing is approximated.
Taste does not enter: given the observations, it says nothing more about the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from intent_platform.synthetic.chance import Bools, Floats, Ints
from intent_platform.synthetic.law import (
    ADD,
    BUYING,
    CHEAPER,
    DAYS_AWAY,
    DEARER,
    IN_VISIT,
    LONGEST_WAIT_TICKS,
    LOOK,
    PAUSE,
    REMOVE,
    STAGES,
    STATES,
    Law,
)

UNSEEN = -1  # a relation or modifier that this step does not have


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One step of U shoppers as anyone can see it; what stands before the step decides which actions were possible."""

    action: Ints  # (U,)
    relation: Ints  # (U,) UNSEEN unless a look that does not follow a search, with an item in focus
    modifier: Ints  # (U,) UNSEEN unless a search
    ticks: Ints  # (U,) waited since the shopper's step before; 0 at the first
    is_cart_full: Bools
    is_cart_empty: Bools
    is_cheapest: Bools  # the item in focus, in its category
    is_dearest: Bools


def first_belief(law: Law, seen: Observation) -> Floats:
    """Return P(state | first step), shape (U, Z)."""
    return _normalised(law.first * _likelihood(law, seen))


def next_belief(law: Law, belief: Floats, seen: Observation) -> Floats:
    """Return P(state | all steps), shape (U, Z), from the belief after the step before."""
    kind = np.searchsorted(LONGEST_WAIT_TICKS, seen.ticks)
    predicted = np.empty_like(belief)
    for number, next_state in enumerate(law.next_state):
        of_kind = np.flatnonzero(kind == number)
        waited = law.wait_ticks[number].T[seen.ticks[of_kind]]
        predicted[of_kind] = (belief[of_kind] * law.wait[:, number] * waited) @ next_state
    return _normalised(predicted * _likelihood(law, seen))


def purchase_probability(belief: Floats, within: Floats, ticks_left: Ints) -> Floats:
    """Return P(purchase within ticks_left | belief) for each shopper; `within` comes from purchase_within."""
    return np.einsum("uz,uz->u", belief, within[ticks_left])


def _likelihood(law: Law, seen: Observation) -> Floats:
    """Return P(what is seen of the step | state, what was possible), shape (U, Z)."""
    likelihood = law.action.T[seen.action]
    looks = (seen.action == LOOK)[:, None]
    likelihood += looks * (
        seen.is_cart_full[:, None] * law.action[:, ADD] + seen.is_cart_empty[:, None] * law.action[:, REMOVE]
    )
    related = np.flatnonzero(seen.relation != UNSEEN)
    relation = seen.relation[related]
    nearness = law.relation.T[relation]
    nearness += ((relation == DEARER) & seen.is_cheapest[related])[:, None] * law.relation[:, CHEAPER]
    nearness += ((relation == CHEAPER) & seen.is_dearest[related])[:, None] * law.relation[:, DEARER]
    likelihood[related] *= nearness
    worded = np.flatnonzero(seen.modifier != UNSEEN)
    likelihood[worded] *= law.modifier.T[seen.modifier[worded]]
    return likelihood


def _normalised(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def purchase_within(law: Law, ticks: int) -> Floats:
    """Return P(a purchase in 1 … t ticks from now | state now) for t = 0 … ticks, shape (ticks + 1, Z).

    First-passage recursion over the next step: h(t, z) = Σ over waits g ≤ t of P(kind, g | z) Σ P(z' | z, kind) ·
    (1 if z' buys, else h(t - g, z')). In-visit waits are summed tick by tick; longer ones are longer than a block of
    ticks, so a finished block is sent ahead to all later ticks at once.
    """
    block = LONGEST_WAIT_TICKS[IN_VISIT]
    blocks = -(-(ticks + 1) // block)
    length = blocks * block
    near = (law.wait[:, IN_VISIT] * law.wait_ticks[IN_VISIT].T)[:0:-1]  # (block, Z), longest wait first
    size = fft.next_fast_len(length + block, real=True)
    far = [fft.rfft(_far_waits(law, kind, length), size, axis=0) for kind in (PAUSE, DAYS_AWAY)]
    within = np.zeros((length, STATES))
    arriving = np.zeros((block + length, STATES))  # by tick + block: P(purchase within | arrives in next state)
    buys = np.arange(STATES) % len(STAGES) == BUYING
    for start in range(0, length, block):
        for tick in range(start, start + block):
            within[tick] += (near * arriving[tick : tick + block]).sum(axis=0)
            arriving[block + tick] = law.next_state[IN_VISIT] @ np.where(buys, 1.0, within[tick])
        finished = np.where(buys, 1.0, within[start : start + block])
        ahead = sum(
            fft.rfft(finished @ law.next_state[kind].T, size, axis=0) * waits
            for kind, waits in zip((PAUSE, DAYS_AWAY), far, strict=True)
        )
        within[start + block :] += fft.irfft(ahead, size, axis=0)[block : length - start]
    return within[: ticks + 1]


def _far_waits(law: Law, kind: int, length: int) -> Floats:
    """Return P(kind, ticks | state) for ticks 0 … length - 1, shape (length, Z)."""
    ticks = law.wait_ticks[kind].T[:length]
    return np.pad(law.wait[:, kind] * ticks, ((0, length - len(ticks)), (0, 0)))
