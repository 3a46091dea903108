"""Logistic regression on the tabular features: the simplest opponent, small enough to be a JSON file."""

from dataclasses import dataclass

import numpy as np

from intent_platform.model.examples import Examples
from intent_platform.model.features import squash

BOUND = 5.0  # scaled features beyond are cut: one strange shopper must not swing a probability


@dataclass(frozen=True, kw_only=True)
class LogisticRegression:
    """Log-odds linear in the tabular features, as two lists of numbers per feature; unknown counts as the mean."""

    mean: list[float]
    scale: list[float]
    weight: list[float]
    bias: float

    def predict(self, table: np.ndarray) -> np.ndarray:
        """Raw probability, float64 (E,)."""
        scaled = (squash(table).astype(np.float64) - self.mean) / self.scale
        log_odds = np.clip(np.nan_to_num(scaled), -BOUND, BOUND) @ np.array(self.weight) + self.bias
        return 1.0 / (1.0 + np.exp(-log_odds))


def fit_logistic(train_features: np.ndarray, train: Examples) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression as Regression

    squashed = squash(train_features).astype(np.float64)
    mean = np.nan_to_num(np.nanmean(squashed, axis=0))
    scale = np.maximum(np.nan_to_num(np.nanstd(squashed, axis=0)), 1e-3)
    scaled = np.clip(np.nan_to_num((squashed - mean) / scale), -BOUND, BOUND)
    fitted = Regression(max_iter=500).fit(scaled, train.will_buy)
    return LogisticRegression(
        mean=mean.tolist(), scale=scale.tolist(), weight=fitted.coef_[0].tolist(), bias=float(fitted.intercept_[0])
    )
