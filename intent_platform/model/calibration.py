"""Scores to probabilities that can be believed: fitted on validation days, stored as two lists of numbers."""

from dataclasses import dataclass

import numpy as np

FLOOR = 1e-6  # probabilities stay inside (0, 1), so a log-loss is finite


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A rising curve from raw probability to calibrated probability, linear between knots."""

    method: str  # none, platt or isotonic
    raw: list[float]
    calibrated: list[float]

    def apply(self, probability: np.ndarray) -> np.ndarray:
        """float64, the same shape; never falls where the raw probability rises."""
        if self.method == "none":
            return np.clip(probability, FLOOR, 1 - FLOOR)
        if self.method == "platt":
            slope, shift = self.calibrated
            return np.clip(_sigmoid(slope * _logit(probability) + shift), FLOOR, 1 - FLOOR)
        return np.clip(np.interp(probability, self.raw, self.calibrated), FLOOR, 1 - FLOOR)


IDENTITY = Calibration(method="none", raw=[], calibrated=[])


def fit_calibration(probability: np.ndarray, label: np.ndarray, group: np.ndarray) -> Calibration:
    """The method with the least log-loss on held-out groups (users), refitted on all; needs both labels."""
    if label.min() == label.max():
        return IDENTITY
    is_held_out = group % 2 == 1
    losses = {}
    for name, fit in _METHODS.items():
        losses[name] = 0.0
        for held in (is_held_out, ~is_held_out):
            if label[~held].min(initial=1) == label[~held].max(initial=0):
                return IDENTITY
            losses[name] += log_loss(fit(probability[~held], label[~held]).apply(probability[held]), label[held]).sum()
    return _METHODS[min(losses, key=losses.__getitem__)](probability, label)


def log_loss(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """One value per example."""
    probability = np.clip(probability, FLOOR, 1 - FLOOR)
    return -np.where(label, np.log(probability), np.log1p(-probability))


def _none(probability: np.ndarray, label: np.ndarray) -> Calibration:  # noqa: ARG001
    return IDENTITY


def _platt(probability: np.ndarray, label: np.ndarray) -> Calibration:
    """Platt (1999): a logistic curve over the logit; a slope below 0 would turn the order round and is cut at 0.05."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6).fit(_logit(probability)[:, None], label)
    return Calibration(
        method="platt", raw=[], calibrated=[max(float(fitted.coef_[0, 0]), 0.05), float(fitted.intercept_[0])]
    )


def _isotonic(probability: np.ndarray, label: np.ndarray) -> Calibration:
    """Zadrozny and Elkan (2002): the rising step curve of least squared error."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(probability, label)
    # Steps of 0 or 1 claim certainty that a few hundred examples do not give.
    edge = 1.0 / (len(label) + 2)
    return Calibration(
        method="isotonic",
        raw=[float(x) for x in fitted.X_thresholds_],
        calibrated=[float(np.clip(y, edge, 1 - edge)) for y in fitted.y_thresholds_],
    )


_METHODS = {"none": _none, "platt": _platt, "isotonic": _isotonic}


def _logit(probability: np.ndarray) -> np.ndarray:
    probability = np.clip(probability, FLOOR, 1 - FLOOR)
    return np.log(probability) - np.log1p(-probability)


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-value))
