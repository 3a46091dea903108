"""Draws for many shoppers at once: from rows of probability tables, and reproducible identifiers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class RowSampler:
    """Many discrete distributions over the same 0 … N-1; draws for each caller from its own row, within its own range.

    weights has shape (rows, N). Rows are laid end to end, row r from r to r + 1, so that one binary search serves all.
    """

    def __init__(self, weights: Floats) -> None:
        rows, self._width = weights.shape
        cumulative = np.zeros((rows, self._width + 1))
        np.cumsum(weights, axis=1, out=cumulative[:, 1:])
        cumulative /= cumulative[:, -1:]
        self._ladder = (cumulative + np.arange(rows)[:, None]).ravel()

    def draw(self, rows: Ints, uniforms: Floats, low: Ints | int = 0, high: Ints | int | None = None) -> Ints:
        """Return one index in low ≤ index < high for each row, in proportion to the row's weights there."""
        last = self._width if high is None else high
        start = rows * (self._width + 1)
        bottom, top = self._ladder[start + low], self._ladder[start + last]
        found = np.searchsorted(self._ladder, bottom + uniforms * (top - bottom), side="right") - 1 - start
        return np.clip(found, low, np.asarray(last) - 1)


def scrambled(numbers: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Return 64-bit numbers that look random; different inputs give different outputs (splitmix64 is a bijection)."""
    mixed = numbers ^ np.uint64(salt)
    mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
