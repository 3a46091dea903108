"""A candidate: network and opponents fitted on the same days, calibrated, judged on the test days.

folder/model/            the files of model/<digest>
folder/outcome.json      verdict, figures, sizes
folder/report.html       the evaluation report
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from intent_platform.errors import IntentError
from intent_platform.log import get_logger
from intent_platform.model.behaviour import Model, ModelCard, load_model, save_model
from intent_platform.model.blend import Blend
from intent_platform.model.calibration import Scored, fit_calibration
from intent_platform.model.contest import Contenders, Evaluation, ask, evaluate, raw_probabilities, sample
from intent_platform.model.examples import Examples, Part, make_examples
from intent_platform.model.gate import Verdict, judge
from intent_platform.model.inputs import Inputs, catalogue_of, category_codes, positions_of, read_events
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.logistic import LogisticRegression, fit_logistic
from intent_platform.model.metrics import reliability
from intent_platform.model.network import BehaviourNetwork
from intent_platform.model.opponents import fit_trees
from intent_platform.model.policy import load_policy
from intent_platform.model.ranking import fit_next_items
from intent_platform.model.report import write_report
from intent_platform.model.rows import Rows
from intent_platform.model.text import TextTower, find_encoder, item_text
from intent_platform.model.train import (
    FORMS,
    Form,
    Material,
    form_of,
    make_material,
    refit_next_items,
    tensorboard,
    train_network,
)
from intent_platform.model.tuning import pairs_of, tune_encoder
from intent_platform.model.warm import Earlier, learn_on_from, why_cold
from intent_platform.sequences import Split
from intent_platform.settings import Settings

MAX_FITTED = 5_000  # validation examples that the blend is fitted on
MAX_CALIBRATED = 500_000  # training examples, the newest, that calibrations may use beside the validation days

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingInput:
    """What a candidate is made from; nothing else is read but the champion."""

    rows: pa.Table  # sequence rows of all days of the split and the gaps behind them
    items: pa.Table
    split: Split
    data_digests: dict[str, str]
    champion: str | None = None  # digest of the model that serves
    root: str = ""  # of the lake, where the champion lies


def count_labels(given: TrainingInput, settings: Settings) -> int:
    """Mature training examples of the rarer class."""
    rows = Rows.of(given.rows)
    examples = make_examples(rows, np.full(len(rows), -1), given.split, settings)
    return min((_rarer(each.will_buy) for each in examples.values()), default=0)


def make_candidate(given: TrainingInput, folder: Path, settings: Settings) -> Verdict:
    """Fit, calibrate, judge, write; returns the verdict that is also in outcome.json."""
    policy = load_policy(settings)  # before hours of training: it may be wrong
    contenders, examples = fit(given, folder, settings)
    evaluation = evaluate(contenders, examples["test"], given.split, given.champion, given.root, settings)
    verdict = judge(evaluation.contest, policy)
    _save(contenders, verdict, given, folder / "model", settings)
    _write_outcome(folder, verdict, evaluation, examples, given.split)
    write_report(folder / "report.html", evaluation, verdict, given.split)
    _show_curves(evaluation, folder, settings)
    return verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What is known before anything is learned but the words of texts."""

    items: pa.Table  # in the order of the catalogue
    texts: list[str]  # of the items
    text: TextTower
    material: Material
    examples: dict[Part, Examples]


def prepare(given: TrainingInput, folder: Path, settings: Settings) -> Prepared:
    """Read events and items as the models do; a tuned encoder goes into `folder`."""
    items = given.items.sort_by("item_id")
    columns = (items[name].to_pylist() for name in ("title", "category", "brand"))
    texts = [item_text(*each) for each in zip(*columns, strict=True)]
    rows = Rows.of(given.rows)
    item = positions_of(items["item_id"].combine_chunks(), rows)
    item_category = category_codes(items["category"].to_pylist())
    examples = make_examples(rows, item, given.split, settings)
    encoder = find_encoder(settings)
    if settings.encoder_tuning != "none":
        pairs = pairs_of(rows, item, examples["train"], texts, item_category)
        encoder = tune_encoder(pairs, encoder, settings, folder / "model")
    text = TextTower(encoder=encoder, lexical=fit_lexical(sorted(set(texts)), seed=settings.seed))
    events = read_events(rows, item, item_category, text)
    inputs = Inputs(rows=rows, events=events, catalogue=catalogue_of(items, text.vectors(texts)))
    material = make_material(inputs, examples["train"], examples["validation"])
    return Prepared(items=items, texts=texts, text=text, material=material, examples=examples)


def fit(given: TrainingInput, folder: Path, settings: Settings) -> tuple[Contenders, dict[Part, Examples]]:
    """Everything that is learned, from the training and validation days; `folder` keeps checkpoints."""
    prepared = prepare(given, folder, settings)
    material = prepared.material
    logistic = fit_logistic(material.train_features, material.train)
    champion = _champion(given, settings)
    forms = _forms(champion)
    earlier = _earlier(champion, forms, prepared, given, settings)
    network = train_network(material, folder / "checkpoint", settings, logistic, forms, earlier=earlier)
    contenders = _fit_rest(prepared, network, earlier, logistic, given, settings)
    refitted = refit_next_items(material, network, folder / "checkpoint", settings, earlier)
    return replace(contenders, network=refitted), prepared.examples


def _champion(given: TrainingInput, settings: Settings) -> Model | None:
    """None before there is one, and where it cannot be loaded: the contest says why."""
    if given.champion is None:
        return None
    try:
        return load_model(given.root, given.champion, settings)
    except IntentError:
        return None


def _forms(champion: Model | None) -> Sequence[Form]:
    """The champion's, if it is still among them: only a shop's first training takes the time to try them all."""
    if champion is None or champion.network is None:
        return FORMS
    form = form_of(champion.network)
    return (form,) if form in FORMS else FORMS


def _earlier(
    champion: Model | None, forms: Sequence[Form], prepared: Prepared, given: TrainingInput, settings: Settings
) -> Earlier | None:
    """What the network begins with; where that is nothing, the log says why."""
    why = why_cold(champion, prepared.text, given.split, settings)
    if not why and forms is FORMS:
        why = "The champion has a form that is tried no more"
    if champion is None or why:
        log.info("cold_start", reason=why)
        return None
    log.info("warm_start", champion=champion.digest)
    return learn_on_from(champion, prepared.text, prepared.texts, settings)


def _fit_rest(
    prepared: Prepared,
    network: BehaviourNetwork,
    earlier: Earlier | None,
    logistic: LogisticRegression,
    given: TrainingInput,
    settings: Settings,
) -> Contenders:
    """The trees, and what is fitted on top: calibrations and the blend."""
    material, items, text = prepared.material, prepared.items, prepared.text
    train, validation = material.train, material.validation
    trees = fit_trees(material.train_features, train, material.validation_features, validation, settings)
    vectors = network.item_vectors(items, material.catalogue.text_vectors)
    raw = raw_probabilities(network, trees, logistic, material, vectors, validation)
    newest = train.take(np.sort(np.argsort(-train.asked_at, kind="stable")[:MAX_CALIBRATED]))
    learned = raw_probabilities(network, trees, logistic, material, vectors, newest)
    return Contenders(
        material=material,
        items=items,
        text=text,
        network=network,
        started_from=earlier.digest if earlier else None,
        trees=trees,
        logistic=logistic,
        calibrations={
            name: fit_calibration(
                Scored(probability=each, label=validation.will_buy),
                validation.user,
                Scored(probability=learned[name], label=newest.will_buy),
            )
            for name, each in raw.items()
        },
        blend=_fit_blend(network, material, vectors, text, given, settings),
    )


def _fit_blend(
    network: BehaviourNetwork,
    material: Material,
    vectors: np.ndarray,
    text: TextTower,
    given: TrainingInput,
    settings: Settings,
) -> Blend | None:
    """None where no next item is known in validation."""
    known = sample(np.flatnonzero(material.validation.next_item >= 0), MAX_FITTED, settings)
    if not len(known):
        return None
    first_day = given.split.validation[0]
    asked = ask(network, material, material.validation.take(known), vectors, text, first_day, settings)
    days = sorted(date.fromisoformat(each) for each in given.data_digests)
    return fit_next_items(material, asked, (days[0], days[-1]))


def _save(contenders: Contenders, verdict: Verdict, given: TrainingInput, folder: Path, settings: Settings) -> None:
    """Only what scores goes into the model's folder."""
    purchase, ranked_by = verdict.purchase_scorer, verdict.item_scorer
    save_model(
        folder,
        _card(given, verdict, contenders, settings),
        contenders.text.lexical,
        calibration=contenders.calibrations[purchase],
        network=contenders.network if purchase == "network" or ranked_by != "popularity" else None,
        trees=contenders.trees if purchase == "boosted_trees" else None,
        logistic=contenders.logistic if purchase == "logistic_regression" else None,
        blend=contenders.blend if ranked_by == "blend" else None,
    )


def _card(given: TrainingInput, verdict: Verdict, contenders: Contenders, settings: Settings) -> ModelCard:
    encoder = contenders.text.encoder
    return ModelCard(
        kind="trained",
        purchase_scorer=verdict.purchase_scorer,
        item_scorer=verdict.item_scorer,
        intent_missing_reason=None,
        horizon_hours=settings.horizon_hours,
        window_events=settings.window_events,
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        data_digests=given.data_digests,
        seed=settings.seed,
        started_from=contenders.started_from,
    )


def _show_curves(evaluation: Evaluation, folder: Path, settings: Settings) -> None:
    """Precision against recall of each contender, beside the run's losses in TensorBoard."""
    with tensorboard(settings, folder) as writer:
        for name, probability in evaluation.probability.items():
            writer.add_pr_curve(f"test/{name}", evaluation.will_buy, probability, num_thresholds=127)


def _write_outcome(
    folder: Path, verdict: Verdict, evaluation: Evaluation, examples: dict[Part, Examples], split: Split
) -> None:
    outcome = {
        "verdict": asdict(verdict),
        "figures": [asdict(each) for each in evaluation.figures],
        "calibration": [
            asdict(each)
            for name, probability in evaluation.probability.items()
            for each in reliability(name, probability, evaluation.will_buy)
        ],
        "examples": {part: len(each) for part, each in examples.items()},
        "trained_from": _iso(split.train[0]),
        "tested_until": _iso(split.test[-1]),
    }
    (folder / "outcome.json").write_text(json.dumps(outcome, indent=1, ensure_ascii=False), encoding="utf-8")
    log.info(
        "candidate_judged", approved=verdict.is_approved, purchase=verdict.purchase_scorer, items=verdict.item_scorer
    )


def _iso(day: date) -> str:
    return day.isoformat()


def _rarer(label: np.ndarray) -> int:
    return int(min(label.sum(), (~label).sum()))
