"""Simple models fitted on the same examples; a network that loses to one of them does not ship."""

import numpy as np
import torch  # noqa: F401  # before LightGBM: the first OpenMP runtime in a process must be torch's

import lightgbm  # isort: skip

from intent_platform.model.examples import Examples
from intent_platform.model.features import FEATURES, RISING
from intent_platform.model.rows import US_PER_DAY, Rows
from intent_platform.settings import Settings

ROUNDS = 400
POPULARITY_DAYS = 3


def fit_trees(
    train_features: np.ndarray,
    train: Examples,
    validation_features: np.ndarray,
    validation: Examples,
    settings: Settings,
) -> lightgbm.Booster:
    """Gradient-boosted trees on the tabular features; carts may only raise the probability."""
    parameters = {
        "objective": "binary",
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_data_in_leaf": 50,
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "monotone_constraints": [1 if name in RISING else 0 for name in FEATURES],
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(train_features.astype(np.float64), train.will_buy, feature_name=list(FEATURES))
    held = lightgbm.Dataset(validation_features.astype(np.float64), validation.will_buy, reference=data)
    return lightgbm.train(
        parameters, data, ROUNDS, valid_sets=[held], callbacks=[lightgbm.early_stopping(30, verbose=False)]
    )


def popular_items(rows: Rows, item: np.ndarray, until: int, items: int) -> np.ndarray:
    """float64 (items,): how often each was touched in the POPULARITY_DAYS before a moment (µs)."""
    is_recent = (item >= 0) & (rows.at < until) & (rows.at >= until - POPULARITY_DAYS * US_PER_DAY)
    return np.bincount(item[is_recent], minlength=items).astype(np.float64)
