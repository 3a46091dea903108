"""Which contender ships: the network only where it does not lose; nothing that loses to a constant."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from intent_platform.model.metrics import Metric, difference

ItemScorer = Literal["network", "popularity", "blend"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contest:
    """Test metrics of the contenders on the same examples."""

    purchase: dict[str, dict[str, Metric]]  # network, boosted_trees, constant → metric → function of weights
    ranking: dict[str, dict[str, Metric]]  # network, popularity, blend where one could be fitted, peers
    purchase_users: np.ndarray
    ranking_users: np.ndarray
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One row of registry.decision, and what the release will score with."""

    is_approved: bool
    purchase_scorer: Literal["network", "boosted_trees"]
    item_scorer: ItemScorer
    reasons: tuple[str, ...]


def judge(contest: Contest) -> Verdict:
    """The network ships for purchase and for items unless it is clearly behind; the winner must beat a constant."""
    reasons: list[str] = []
    is_network_ahead = _not_behind(contest, "log_loss", -1, reasons) and _not_behind(contest, "roc_auc", 1, reasons)
    scorer: Literal["network", "boosted_trees"] = "network" if is_network_ahead else "boosted_trees"
    is_better = _beats_constant(contest, scorer, reasons)
    ranker = _ranker(contest, reasons)
    reasons.append(f"Purchase is scored by {scorer}, items by {ranker}.")
    return Verdict(is_approved=is_better, purchase_scorer=scorer, item_scorer=ranker, reasons=tuple(reasons))


def _not_behind(contest: Contest, metric: str, better: int, reasons: list[str]) -> bool:
    network, trees = (contest.purchase[name][metric] for name in ("network", "boosted_trees"))
    value, low, high = difference(network, trees, contest.purchase_users, contest.seed)
    is_behind = (high < 0) if better > 0 else (low > 0)
    word = "behind" if is_behind else "ahead of" if value * better > 0 else "level with"
    reasons.append(f"{metric}: network {word} boosted_trees by {value:+.4f} (95 % {low:+.4f} … {high:+.4f}).")
    return not is_behind


def _beats_constant(contest: Contest, scorer: str, reasons: list[str]) -> bool:
    one, other = contest.purchase[scorer]["log_loss"], contest.purchase["constant"]["log_loss"]
    value, low, high = difference(one, other, contest.purchase_users, contest.seed)
    word = "beats" if high < 0 else "does not beat"
    reasons.append(f"{scorer} {word} a constant on log_loss by {value:+.4f} (95 % {low:+.4f} … {high:+.4f}).")
    return high < 0


def _ranker(contest: Contest, reasons: list[str]) -> ItemScorer:
    """Popularity ranks unless the network is not behind it, and the network unless the blend beats it."""
    if not len(contest.ranking_users):
        reasons.append("No next items on the test days: popularity ranks.")
        return "popularity"
    best: ItemScorer = "popularity"
    if _recall_difference(contest, "network", "popularity", reasons)[1] >= 0:
        best = "network"
    if "blend" in contest.ranking and _recall_difference(contest, "blend", best, reasons)[0] > 0:
        best = "blend"
    return best


def _recall_difference(contest: Contest, one: ItemScorer, other: ItemScorer, reasons: list[str]) -> tuple[float, float]:
    """Bounds of the 95 % interval of recall@20 of one minus that of the other."""
    ours, theirs = (contest.ranking[name]["recall_at_20"] for name in (one, other))
    value, low, high = difference(ours, theirs, contest.ranking_users, contest.seed)
    reasons.append(f"recall_at_20: {one} minus {other} {value:+.4f} (95 % {low:+.4f} … {high:+.4f}).")
    return low, high
