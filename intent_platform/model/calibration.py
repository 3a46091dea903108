"""Scores to probabilities that can be believed: fitted mainly on validation days, stored as two lists of numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FLOOR = 1e-6  # probabilities stay inside (0, 1), so a log-loss is finite
MOST_BINS, LEAST_PER_BIN = 40, 100


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Raw probabilities of some examples, and what came of each."""

    probability: np.ndarray  # float64 (E,)
    label: np.ndarray  # bool (E,)

    def __add__(self, other: "Scored") -> "Scored":
        return Scored(
            probability=np.concatenate([self.probability, other.probability]),
            label=np.concatenate([self.label, other.label]),
        )

    def take(self, which: np.ndarray) -> "Scored":
        return Scored(probability=self.probability[which], label=self.label[which])

    @property
    def has_both(self) -> bool:
        return bool(self.label.any() and not self.label.all())


def fit_calibration(held: Scored, group: np.ndarray, learned: Scored | None = None) -> Calibration:
    """The curve with the least log-loss on groups (users) of `held` that it was not fitted on, refitted on all.

    learned: scores of examples that the model was trained on. Two validation days tell little of a curve, as the labels
    of one user hang together; many training days tell more, unless the model knows its training examples by heart. So
    each method is fitted with and without them.
    """
    halves = [held.take(group % 2 == 0), held.take(group % 2 == 1)]
    if not all(each.has_both for each in halves):
        return IDENTITY
    sources: list[Callable[[Scored], Scored]] = [lambda some: some]
    if learned is not None:
        sources.append(lambda some: some + learned)
    losses = {
        (method, source): sum(
            log_loss(fit(source(some)).apply(other.probability), other.label).sum()
            for some, other in (halves, halves[::-1])
        )
        for method, fit in _METHODS.items()
        for source in sources
    }
    method, source = min(losses, key=losses.__getitem__)
    return _METHODS[method](source(held))


def log_loss(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """One value per example."""
    probability = np.clip(probability, FLOOR, 1 - FLOOR)
    return -np.where(label, np.log(probability), np.log1p(-probability))


def _none(scored: Scored) -> Calibration:  # noqa: ARG001
    return IDENTITY


def _platt(scored: Scored) -> Calibration:
    """Platt (1999): a logistic curve over the logit; a slope below 0 would turn the order round and is cut at 0.05."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6).fit(_logit(scored.probability)[:, None], scored.label)
    return Calibration(
        method="platt", raw=[], calibrated=[max(float(fitted.coef_[0, 0]), 0.05), float(fitted.intercept_[0])]
    )


def _isotonic(scored: Scored) -> Calibration:
    """Zadrozny and Elkan (2002), through the means of bins of equal size: steps of single examples are noise."""
    from sklearn.isotonic import IsotonicRegression

    bins = int(np.clip(len(scored.label) // LEAST_PER_BIN, 2, MOST_BINS))
    parts = np.array_split(np.argsort(scored.probability, kind="stable"), bins)
    raw, weight = (np.array([each(part) for part in parts]) for each in (lambda p: scored.probability[p].mean(), len))
    # Half a buyer more and half a non-buyer more: no bin claims a certainty that its examples do not give.
    share = np.array([(scored.label[part].sum() + 0.5) / (len(part) + 1) for part in parts])
    rising = IsotonicRegression().fit(raw, share, sample_weight=weight).predict(raw)
    # Beyond the outer bins' means the log-odds go on as they were, so that the likeliest buyers keep their order.
    ends = np.array([scored.probability.min(), scored.probability.max()])
    outer = _sigmoid(_logit(rising[[0, -1]]) + _logit(ends) - _logit(raw[[0, -1]]))
    return Calibration(
        method="isotonic",
        raw=[float(ends[0]), *raw.tolist(), float(ends[1])],
        calibrated=[float(outer[0]), *rising.tolist(), float(outer[1])],
    )


_METHODS = {"none": _none, "platt": _platt, "isotonic": _isotonic}


def _logit(probability: np.ndarray) -> np.ndarray:
    probability = np.clip(probability, FLOOR, 1 - FLOOR)
    return np.log(probability) - np.log1p(-probability)


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-value))
