"""The gate: who ships, who is refused, and what the reasons say."""

from dataclasses import replace

import numpy as np
import pytest

from intent_platform.errors import SettingInvalid
from intent_platform.model.gate import Contest, Field, judge
from intent_platform.model.metrics import difference, purchase_metrics, ranking_metrics
from intent_platform.model.policy import DEFAULT, load_policy
from intent_platform.settings import Settings

EXAMPLES = 6_000
POLICY = load_policy(Settings())
CHANCE = np.random.default_rng(3)
TRUTH = CHANCE.beta(1, 5, EXAMPLES)
LABEL = CHANCE.random(EXAMPLES) < TRUTH
USERS = np.arange(EXAMPLES) // 6


def noisy(amount: float, seed: int = 0) -> np.ndarray:
    """The true probabilities, their log-odds blurred."""
    log_odds = np.log(TRUTH / (1 - TRUTH)) + amount * np.random.default_rng(seed).normal(size=EXAMPLES)
    return 1 / (1 + np.exp(-log_odds))


def purchase(which=slice(None), **probability: np.ndarray) -> Field:
    metrics = {name: purchase_metrics(each[which], LABEL[which]) for name, each in probability.items()}
    return Field(metrics=metrics, users=USERS[which])


def items(**rank: int) -> Field:
    chance = np.random.default_rng(4)
    return Field(
        metrics={name: ranking_metrics(chance.integers(1, 2 * each, 600)) for name, each in rank.items()},
        users=np.arange(600) // 3,
    )


def contest(
    *,
    network: np.ndarray | None = None,
    trees: np.ndarray | None = None,
    logistic: np.ndarray | None = None,
    champion: np.ndarray | None = None,
    ranks: dict[str, int] | None = None,
    ms: float = 5.0,
) -> Contest:
    """A good candidate; each argument makes one thing another way."""
    probability = {
        "network": noisy(0.1) if network is None else network,
        "boosted_trees": noisy(0.6, 1) if trees is None else trees,
        "logistic_regression": noisy(0.9, 2) if logistic is None else logistic,
        "constant": np.full(EXAMPLES, LABEL.mean()),
    }
    if champion is not None:
        probability["champion"] = champion
    return Contest(
        purchase=purchase(**probability),
        items=items(**(ranks or {"blend": 8, "network": 12, "vstan": 14, "sequential_rules": 20, "popularity": 40})),
        slices={name: purchase(part, **probability) for name, part in SLICES.items()},
        ms=ms,
        seed=7,
    )


SLICES = {"new": slice(0, 3_000), "returning": slice(3_000, None), "after_1": slice(0, 90)}


def objections(given: Contest, policy=POLICY) -> tuple[str, ...]:
    verdict = judge(given, policy)
    assert not verdict.is_approved
    assert verdict.reasons[: len(verdict.objections)] == verdict.objections
    return verdict.objections


def test_a_good_candidate_ships_its_dearest_contenders():
    verdict = judge(contest(), POLICY)
    assert verdict.is_approved
    assert (verdict.purchase_scorer, verdict.item_scorer) == ("network", "blend")
    assert "beats a constant" in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"network": noisy(2.0)}, ("boosted_trees", "blend")),
        ({"network": noisy(2.0), "trees": noisy(2.0, 1), "logistic": noisy(0.2, 2)}, ("logistic_regression", "blend")),
        ({"ranks": {"blend": 18, "network": 9, "popularity": 40}}, ("network", "network")),
        ({"ranks": {"blend": 40, "network": 40, "popularity": 9}}, ("network", "popularity")),
        ({"ranks": {"network": 9, "popularity": 40}}, ("network", "network")),
    ],
)
def test_what_is_behind_an_opponent_does_not_ship_the_opponent_does(changed, wanted):
    verdict = judge(contest(**changed), POLICY)
    assert verdict.is_approved
    assert (verdict.purchase_scorer, verdict.item_scorer) == wanted


def test_a_candidate_that_learned_shuffled_labels_is_refused_for_being_no_better_than_a_constant():
    shuffled = np.random.default_rng(5).permutation(TRUTH)
    given = contest(network=shuffled, trees=shuffled)
    probability = dict.fromkeys(("network", "boosted_trees", "logistic_regression"), shuffled)
    given = replace(given, purchase=purchase(**probability, constant=np.full(EXAMPLES, LABEL.mean())))
    assert "log_loss: network does not beat a constant" in objections(given)[0]


def test_a_stale_candidate_is_refused_for_being_behind_the_champion():
    found = objections(contest(network=noisy(0.5), champion=noisy(0.05, 9)))
    assert any(each.startswith("log_loss: network behind champion by +0.") for each in found)
    assert any(each.startswith("roc_auc: network behind champion by -0.") for each in found)


def test_a_candidate_with_a_broken_calibration_is_refused_for_it():
    """Its order is perfect, its level is half too high: AUC alone would let it pass."""
    raised = np.clip(1.5 * TRUTH, 0, 0.99)
    policy = replace(POLICY, purchase={"roc_auc": 0.0})
    (found,) = objections(contest(network=raised), policy)
    assert found.startswith("calibration_error: network 0.0")
    assert found.endswith("; allowed 0.0500).")


def test_a_candidate_that_is_worse_for_one_kind_of_shopper_is_refused_for_that_slice():
    is_returning = np.arange(EXAMPLES) >= 3_000
    champion = np.where(is_returning, noisy(0.0), noisy(0.9, 9))
    worse = np.where(is_returning, noisy(0.6, 8), noisy(0.0))
    (found,) = objections(contest(network=worse, champion=champion))
    assert found.startswith("log_loss (returning): network behind champion by +0.")


def test_a_candidate_that_was_told_the_future_is_refused():
    found = "leak: views_7d differs on 3 of 300 audited examples when only the past is known."
    assert objections(replace(contest(), leaks=(found,))) == (found,)


def test_a_slow_candidate_is_refused():
    assert objections(contest(ms=250.0)) == ("latency: 250.0 ms for one shopper (allowed 100.0).",)


def test_neighbours_that_nothing_else_reaches_refuse_the_candidate():
    found = objections(contest(ranks={"blend": 40, "network": 40, "vstan": 5, "popularity": 60}))
    assert "Each of blend, network, popularity is behind another opponent: none of them may ship." in found


def test_within_the_margin_is_level():
    behind = contest(network=noisy(0.45), champion=noisy(0.1, 9))
    assert not judge(behind, POLICY).is_approved
    lenient = replace(POLICY, purchase={"log_loss": 0.05, "roc_auc": 0.05}, slice_log_loss=0.05)
    assert judge(behind, lenient).is_approved


def test_why_no_champion_was_asked_is_among_the_reasons():
    given = replace(contest(), champion_note="The champion 0123456789 could not be asked: another encoder.")
    assert given.champion_note in judge(given, POLICY).reasons


def test_a_contender_against_itself_differs_by_nothing():
    same = contest().purchase.metrics["network"]["log_loss"]
    assert difference(same, same, USERS, 7) == (0.0, 0.0, 0.0)


def test_a_shops_own_policy_is_read(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(DEFAULT.read_text().replace("max_ms = 100.0", "max_ms = 7.5"))
    assert load_policy(Settings(policy=str(path))).max_ms == 7.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "max_ms = 100.0",
            "max_millis = 100.0",
            r"lacks \['latency.max_ms'\] and has unknown \['latency.max_millis'\]",
        ),
        ("max_ms = 100.0", "max_ms = -1", "has -1 where a number from 0 up belongs"),
        ("max_ms = 100.0", 'max_ms = "fast"', "has 'fast' where a number"),
        ("max_ms = 100.0", "max_ms = ", "cannot be read"),
        ("[latency]", "[speed]", "latency.max_ms"),
    ],
)
def test_a_policy_that_does_not_fit_says_where(tmp_path, old, new, message):
    path = tmp_path / "policy.toml"
    path.write_text(DEFAULT.read_text().replace(old, new))
    with pytest.raises(SettingInvalid, match=message):
        load_policy(Settings(policy=str(path)))


def test_a_policy_that_is_not_there_says_so():
    with pytest.raises(SettingInvalid, match="unset INTENT_POLICY"):
        load_policy(Settings(policy="no-such-policy.toml"))


@pytest.mark.parametrize(("text", "wanted"), [("1", True), ("TRUE", True), ("no", False), ("0", False)])
def test_approval_is_asked_for_by_a_plain_word(text, wanted):
    assert Settings.from_env({"INTENT_REQUIRE_APPROVAL": text}).require_approval is wanted


def test_a_word_that_is_neither_yes_nor_no_is_named():
    with pytest.raises(SettingInvalid, match="INTENT_REQUIRE_APPROVAL is 'maybe'; give a value of type bool"):
        Settings.from_env({"INTENT_REQUIRE_APPROVAL": "maybe"})
