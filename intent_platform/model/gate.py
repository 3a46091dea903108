"""Which contender ships, and whether at all: nothing that is behind an opponent, the champion or a constant."""

from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from intent_platform.model.metrics import Metric, difference, figures
from intent_platform.model.policy import Policy

PurchaseScorer = Literal["network", "boosted_trees", "logistic_regression"]
ItemScorer = Literal["network", "popularity", "blend"]

Scorer = TypeVar("Scorer", bound=str)

PURCHASE_SCORERS: tuple[PurchaseScorer, ...] = ("network", "boosted_trees", "logistic_regression")
ITEM_SCORERS: tuple[ItemScorer, ...] = ("blend", "network", "popularity")
"""What a release can score with, dearest first: the first that is not behind any other ships."""

CHAMPION, CONSTANT = "champion", "constant"
LOWER_IS_BETTER = ("log_loss", "calibration_error")


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """Contenders on the same test examples."""

    metrics: dict[str, dict[str, Metric]]  # contender → metric → function of the examples' weights
    users: np.ndarray  # int64, of the examples

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, kw_only=True, eq=False)
class Contest:
    """Everything that is judged. The champion is a contender wherever it could be scored."""

    purchase: Field
    items: Field
    slices: dict[str, Field]  # purchase, on some of the examples
    unseen_items: Field | None = None  # next items without an event before the test; shown, not judged
    champion_note: str | None = None  # why no champion is among the contenders
    leaks: tuple[str, ...] = ()  # sentences of the leak audit
    ms: float | None = None  # from one shopper's events to intent and next items
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One row of registry.decision, and what the release will score with."""

    is_approved: bool
    purchase_scorer: PurchaseScorer
    item_scorer: ItemScorer
    objections: tuple[str, ...]  # empty if approved
    reasons: tuple[str, ...]  # everything that was found, objections first


@dataclass(kw_only=True)
class _Hearing:
    """A contest being judged: what was found so far, in sentences."""

    contest: Contest
    policy: Policy
    objections: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def is_behind(self, of: Field, metric: str, one: str, other: str, margin: float, where: str = "") -> bool:
        """Whether `one` is behind `other` by more than the margin, with 95 % confidence; the finding is noted."""
        lower = metric in LOWER_IS_BETTER
        value, low, high = difference(of.metrics[one][metric], of.metrics[other][metric], of.users, self.contest.seed)
        is_behind = low > margin if lower else high < -margin
        word = "behind" if is_behind else "ahead of" if (high < 0 if lower else low > 0) else "level with"
        sentence = f"{metric}{where}: {one} {word} {other} by {value:+.4f} (95 % {low:+.4f} … {high:+.4f})."
        (self.objections if is_behind and other == CHAMPION else self.findings).append(sentence)
        return is_behind


def judge(contest: Contest, policy: Policy) -> Verdict:
    """The dearest contender that is behind no other ships, if it is not behind the champion and keeps the bounds."""
    hearing = _Hearing(contest=contest, policy=policy)
    purchase = _choose_purchase(hearing)
    items = _choose_items(hearing)
    hearing.objections.extend(contest.leaks)
    _beats_a_constant(hearing, purchase)
    _is_not_behind_the_champion(hearing, purchase, items)
    _keeps_the_bounds(hearing, purchase)
    chosen = f"Purchase is scored by {purchase}, items by {items}."
    return Verdict(
        is_approved=not hearing.objections,
        purchase_scorer=purchase,
        item_scorer=items,
        objections=tuple(hearing.objections),
        reasons=(*hearing.objections, *hearing.findings, chosen),
    )


def _choose_purchase(hearing: _Hearing) -> PurchaseScorer:
    return _dearest(hearing, hearing.contest.purchase, PURCHASE_SCORERS, hearing.policy.purchase)


def _choose_items(hearing: _Hearing) -> ItemScorer:
    if len(hearing.contest.items):
        return _dearest(hearing, hearing.contest.items, ITEM_SCORERS, hearing.policy.items)
    hearing.findings.append("No next items on the test days: popularity ranks.")
    return "popularity"


def _dearest(hearing: _Hearing, of: Field, scorers: tuple[Scorer, ...], margins: dict[str, float]) -> Scorer:
    """The first that is behind no opponent; where each is behind one, that is an objection."""
    there = [name for name in scorers if name in of.metrics]
    opponents = [name for name in of.metrics if name not in (CHAMPION, CONSTANT)]
    for scorer in there:
        is_behind = [
            hearing.is_behind(of, metric, scorer, other, margin)
            for other in opponents
            if other != scorer
            for metric, margin in margins.items()
        ]
        if not any(is_behind):
            return scorer
    hearing.objections.append(f"Each of {', '.join(there)} is behind another opponent: none of them may ship.")
    return there[-1]


def _beats_a_constant(hearing: _Hearing, scorer: str) -> None:
    of = hearing.contest.purchase
    one, other = of.metrics[scorer]["log_loss"], of.metrics[CONSTANT]["log_loss"]
    value, low, high = difference(one, other, of.users, hearing.contest.seed)
    word = "beats" if high < 0 else "does not beat"
    sentence = f"log_loss: {scorer} {word} a constant by {value:+.4f} (95 % {low:+.4f} … {high:+.4f})."
    (hearing.findings if high < 0 else hearing.objections).append(sentence)


def _is_not_behind_the_champion(hearing: _Hearing, purchase: str, items: str) -> None:
    contest, policy = hearing.contest, hearing.policy
    if contest.champion_note:
        hearing.findings.append(contest.champion_note)
    if CHAMPION in contest.purchase.metrics:
        for metric, margin in policy.purchase.items():
            hearing.is_behind(contest.purchase, metric, purchase, CHAMPION, margin)
    if CHAMPION in contest.items.metrics:
        for metric, margin in policy.items.items():
            hearing.is_behind(contest.items, metric, items, CHAMPION, margin)
    for name in policy.slice_names:
        of = contest.slices.get(name)
        if of is not None and len(of) >= policy.slice_min_examples and CHAMPION in of.metrics:
            hearing.is_behind(of, "log_loss", purchase, CHAMPION, policy.slice_log_loss, f" ({name})")


def _keeps_the_bounds(hearing: _Hearing, scorer: str) -> None:
    contest, policy = hearing.contest, hearing.policy
    metrics, users = contest.purchase.metrics, contest.purchase.users
    (error,) = figures(scorer, "all", {"calibration_error": metrics[scorer]["calibration_error"]}, users, contest.seed)
    sentence = (
        f"calibration_error: {scorer} {error.value:.4f} (95 % {error.low:.4f} … {error.high:.4f}; "
        f"allowed {policy.max_calibration_error:.4f})."
    )
    (hearing.findings if error.low <= policy.max_calibration_error else hearing.objections).append(sentence)
    if contest.ms is not None:
        sentence = f"latency: {contest.ms:.1f} ms for one shopper (allowed {policy.max_ms:.1f})."
        (hearing.findings if contest.ms <= policy.max_ms else hearing.objections).append(sentence)
