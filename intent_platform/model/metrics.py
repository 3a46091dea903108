"""How well a contender did; bootstrap intervals draw users, as examples of one user are not independent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from intent_platform.model.calibration import log_loss

REPLICATES = 200
BINS = 15

Metric = Callable[[np.ndarray], float]
"""Weights of the examples → value; a bootstrap replicate is a vector of weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One row of registry.evaluation."""

    contender: str
    slice: str
    metric: str
    value: float
    low: float
    high: float
    examples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """One row of registry.calibration."""

    contender: str
    bin: int
    predicted: float
    bought: float
    examples: int


def reliability(contender: str, probability: np.ndarray, label: np.ndarray) -> list[Bin]:
    """Examples in order of probability, cut into BINS parts of about equal size."""
    parts = np.array_split(np.argsort(probability, kind="stable"), BINS)
    return [
        Bin(
            contender=contender,
            bin=number,
            predicted=float(probability[part].mean()),
            bought=float(label[part].mean()),
            examples=len(part),
        )
        for number, part in enumerate(parts, start=1)
        if len(part)
    ]


def purchase_metrics(probability: np.ndarray, label: np.ndarray) -> dict[str, Metric]:
    losses = log_loss(probability, label)
    order = np.argsort(-probability, kind="stable")
    ranked, tied = label[order], _last_of_ties(probability[order])
    edges = np.quantile(probability, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.searchsorted(edges, probability)
    return {
        "roc_auc": lambda w: _roc_auc(ranked, w[order], tied),
        "pr_auc": lambda w: _pr_auc(ranked, w[order], tied),
        "log_loss": lambda w: float(np.average(losses, weights=w)),
        "calibration_error": lambda w: _calibration_error(probability, label, bins, w),
    }


def ranking_metrics(rank: np.ndarray) -> dict[str, Metric]:
    """rank: of the wanted item, from 1."""
    return {
        "recall_at_20": lambda w: float(np.average(rank <= 20, weights=w)),
        "mrr_at_20": lambda w: float(np.average(np.where(rank <= 20, 1.0 / rank, 0.0), weights=w)),
    }


def figures(contender: str, slice_name: str, metrics: dict[str, Metric], users: np.ndarray, seed: int) -> list[Figure]:
    """Each metric's value with a 95 % interval."""
    everyone = np.ones(len(users))
    replicates = np.array([[metric(weights) for metric in metrics.values()] for weights in user_weights(users, seed)])
    found = []
    for (name, metric), drawn in zip(metrics.items(), replicates.T, strict=True):
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        value = metric(everyone)
        found.append(
            Figure(
                contender=contender,
                slice=slice_name,
                metric=name,
                value=value,
                low=float(low),
                high=float(high),
                examples=len(users),
            )
        )
    return found


def difference(one: Metric, other: Metric, users: np.ndarray, seed: int) -> tuple[float, float, float]:
    """one − other with its paired 95 % interval: (value, low, high)."""
    replicates = [one(weights) - other(weights) for weights in user_weights(users, seed)]
    everyone = np.ones(len(users))
    low, high = np.nanquantile(replicates, [0.025, 0.975])
    return one(everyone) - other(everyone), float(low), float(high)


def user_weights(users: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """REPLICATES times float (examples,): users drawn with replacement; equal seeds draw alike, so pairs match."""
    _, number = np.unique(users, return_inverse=True)
    count = int(number.max(initial=-1)) + 1
    chance = np.random.default_rng(seed)
    for _ in range(REPLICATES):
        yield chance.multinomial(count, np.full(count, 1 / max(count, 1)))[number].astype(np.float64)


def _last_of_ties(ordered: np.ndarray) -> np.ndarray:
    """Index of the last example with each score: curves only turn between different scores."""
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)


def _roc_auc(label: np.ndarray, weights: np.ndarray, tied: np.ndarray) -> float:
    hit = np.concatenate([[0], np.cumsum(weights * label)[tied]])
    miss = np.concatenate([[0], np.cumsum(weights * ~label)[tied]])
    if hit[-1] == 0 or miss[-1] == 0:
        return float("nan")
    return float(np.trapezoid(hit, miss) / (hit[-1] * miss[-1]))


def _pr_auc(label: np.ndarray, weights: np.ndarray, tied: np.ndarray) -> float:
    """Average precision: precision at each step, weighted by the recall it adds."""
    hit, shown = np.cumsum(weights * label)[tied], np.cumsum(weights)[tied]
    if hit[-1] == 0:
        return float("nan")
    return float(np.sum(np.diff(hit, prepend=0) * hit / np.maximum(shown, 1e-12)) / hit[-1])


def _calibration_error(probability: np.ndarray, label: np.ndarray, bins: np.ndarray, weights: np.ndarray) -> float:
    """Expected calibration error over bins of equal size: |mean probability − share of buyers|, weighted by size."""
    size = np.bincount(bins, weights, BINS)
    gap = np.bincount(bins, weights * (probability - label), BINS)
    return float(np.abs(gap).sum() / size.sum())
