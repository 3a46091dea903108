"""The leak audit: what a model is told about an example must not change when everything later is taken away."""

import numpy as np

from intent_platform.model.examples import Examples
from intent_platform.model.features import FEATURES, features
from intent_platform.model.rows import Rows
from intent_platform.settings import Settings

AUDITED = 300


def find_leaks(rows: Rows, test: Examples, settings: Settings) -> list[str]:
    """A sentence per feature that differs from the one rebuilt of the shopper's own rows up to the example alone."""
    chosen = np.random.default_rng(settings.seed).permutation(len(test))[:AUDITED]
    audited = test.take(np.sort(chosen))
    told = features(rows, audited.position, audited.asked_at)
    known = np.stack(
        [_alone(rows, position, at) for position, at in zip(audited.position, audited.asked_at, strict=True)]
    )
    is_other = ~np.isclose(told, known, rtol=1e-5, atol=1e-6, equal_nan=True)
    return [
        f"leak: {name} differs on {count} of {len(audited)} audited examples when only the past is known."
        for name, count in zip(FEATURES, is_other.sum(axis=0).tolist(), strict=True)
        if count
    ]


def _alone(rows: Rows, position: int, asked_at: int) -> np.ndarray:
    start = rows.starts[rows.user[position]]
    past = Rows.of(rows.table.slice(start, position + 1 - start))
    return features(past, np.array([len(past) - 1]), np.array([asked_at]))[0]
