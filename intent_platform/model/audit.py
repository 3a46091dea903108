"""The leak audit: what a model is told about an example must not change when everything later is taken away.

And nothing may be learned from a planted column of noise, the canary: if something is, the examples give away more than
their features, by their order or by what they share.

On the synthetic shop there is a third question: nobody who sees the events alone can be better than its posterior.
"""

import numpy as np

from intent_platform.model.behaviour import predict_trees
from intent_platform.model.examples import Examples
from intent_platform.model.features import FEATURES, features
from intent_platform.model.metrics import difference, purchase_metrics
from intent_platform.model.opponents import fit_trees
from intent_platform.model.rows import Rows
from intent_platform.settings import Settings

AUDITED = 300
CANARY_EXAMPLES = 20_000  # of training and of validation each
CANARY_MARGIN = 0.002  # of ROC-AUC: chance alone must not refuse one training in forty


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


def find_canary(
    train: Examples, train_features: np.ndarray, validation: Examples, held_features: np.ndarray, settings: Settings
) -> list[str]:
    """A sentence if trees that see the canary rank the buyers of validation better than with another canary."""
    chance = np.random.default_rng(settings.seed)
    some, held = (np.sort(chance.permutation(len(each))[:CANARY_EXAMPLES]) for each in (train, validation))
    told, label = train.take(some), validation.take(held)
    first, second, third = (planted(len(each), chance) for each in (some, held, held))
    seen = np.column_stack([train_features[some], first])
    asked = np.column_stack([held_features[held], second])
    trees = fit_trees(seen, told, asked, label, settings, (*FEATURES, "canary"))
    other = np.column_stack([held_features[held], third])
    by = [purchase_metrics(predict_trees(trees, each), label.will_buy)["roc_auc"] for each in (asked, other)]
    gain, low, high = difference(by[0], by[1], label.user, settings.seed)
    if low <= CANARY_MARGIN:
        return []
    return [f"leak: a planted column of noise raises the trees' ROC-AUC by {gain:.4f} (95 % {low:.4f} … {high:.4f})."]


def find_foresight(
    probability: np.ndarray, posterior: np.ndarray, label: np.ndarray, users: np.ndarray, settings: Settings
) -> list[str]:
    """A sentence if buyers are ranked better than by the synthetic shop's posterior, beyond the bootstrap interval.

    posterior: float64 (E,), the best that anyone can know who sees the events so far; what is above it saw more.
    """
    by = [purchase_metrics(each, label)["roc_auc"] for each in (probability, posterior)]
    gain, low, high = difference(by[0], by[1], users, settings.seed)
    if low <= 0:
        return []
    return [f"leak: ROC-AUC is above the posterior's by {gain:.4f} (95 % {low:.4f} … {high:.4f})."]


def planted(count: int, chance: np.random.Generator) -> np.ndarray:
    """The canary: float32 (count,), unrelated to anything."""
    return chance.standard_normal(count).astype(np.float32)


def _alone(rows: Rows, position: int, asked_at: int) -> np.ndarray:
    start = rows.starts[rows.user[position]]
    past = Rows.of(rows.table.slice(start, position + 1 - start))
    return features(past, np.array([len(past) - 1]), np.array([asked_at]))[0]
