"""Simple models fitted on the same examples; a network that loses to one of them does not ship."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch  # noqa: F401  # before LightGBM: the first OpenMP runtime in a process must be torch's

import lightgbm  # isort: skip

from intent_platform.model.examples import Examples
from intent_platform.model.features import FEATURES, RISING
from intent_platform.model.neighbours import SessionNeighbours, prefixes_at, sequential_rules, sessions_of, sparse_ranks
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
    names: Sequence[str] = FEATURES,
) -> lightgbm.Booster:
    """Gradient-boosted trees on the tabular features; carts may only raise the probability. names: of the columns."""
    parameters = {
        "objective": "binary",
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_data_in_leaf": 50,
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "monotone_constraints": [1 if name in RISING else 0 for name in names],
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(train_features.astype(np.float64), train.will_buy, feature_name=list(names))
    held = lightgbm.Dataset(validation_features.astype(np.float64), validation.will_buy, reference=data)
    return lightgbm.train(
        parameters, data, ROUNDS, valid_sets=[held], callbacks=[lightgbm.early_stopping(30, verbose=False)]
    )


def popular_items(rows: Rows, item: np.ndarray, until: int, items: int) -> np.ndarray:
    """float64 (items,): how often each was touched in the POPULARITY_DAYS before a moment (µs)."""
    is_recent = (item >= 0) & (rows.at < until) & (rows.at >= until - POPULARITY_DAYS * US_PER_DAY)
    return np.bincount(item[is_recent], minlength=items).astype(np.float64)


def neighbour_ranks(rows: Rows, item: np.ndarray, until: int, examples: Examples, items: int) -> dict[str, np.ndarray]:
    """Rank of each example's next item, int64 (E,) from 1, by VSTAN and by sequential rules.

    Both know the sessions that began before `until` (µs), and of the example's session what its position has seen.
    """
    sessions = sessions_of(rows, item, until)
    prefixes = prefixes_at(rows, item, examples.position)
    rules = sequential_rules(sessions, items)
    newest = sp.csr_matrix(
        (np.ones(len(prefixes)), (np.arange(len(prefixes)), item[examples.position].clip(min=0))),
        shape=(len(prefixes), items),
    )
    newest.data[item[examples.position] < 0] = 0.0  # a search has no item, so no rule
    return {
        "vstan": sparse_ranks(SessionNeighbours(sessions=sessions, items=items).scores(prefixes), examples.next_item),
        "sequential_rules": sparse_ranks([(newest @ rules).tocsr()], examples.next_item),
    }
