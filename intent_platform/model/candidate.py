"""A candidate: network and opponents fitted on the same examples, calibrated, judged on the test days.

folder/model/            the files of model/<digest>
folder/outcome.json      verdict, figures, sizes
folder/report.html       the evaluation report
"""

import json
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from intent_platform.log import get_logger
from intent_platform.model.behaviour import ModelCard, predict_trees, save_model
from intent_platform.model.blend import Blend
from intent_platform.model.calibration import Calibration, fit_calibration
from intent_platform.model.examples import Examples, Part, day_end, make_examples
from intent_platform.model.features import features
from intent_platform.model.gate import Contest, Verdict, judge
from intent_platform.model.inputs import EventInputs, catalogue_of, positions_of, read_events, tile
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.metrics import Figure, Metric, figures, purchase_metrics, ranking_metrics
from intent_platform.model.network import BehaviourNetwork
from intent_platform.model.opponents import fit_trees, neighbour_ranks, popular_items
from intent_platform.model.ranking import Asked, blend_ranks, fit_next_items
from intent_platform.model.report import write_report
from intent_platform.model.rows import Rows
from intent_platform.model.text import TextTower, find_encoder, item_text
from intent_platform.model.train import Material, catch_up, make_material, train_network
from intent_platform.model.tuning import pairs_of, tune_encoder
from intent_platform.sequences import Split
from intent_platform.settings import Settings

MAX_RANKED = 20_000  # test examples whose next item is ranked against the whole catalogue
MAX_FITTED = 5_000  # validation examples that the blend is fitted on

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingInput:
    """What a candidate is made from; nothing else is read."""

    rows: pa.Table  # sequence rows of all days of the split and the gaps behind them
    items: pa.Table
    split: Split
    data_digests: dict[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Calibrated purchase probabilities of the test examples by contender, and ranks of wanted items."""

    probability: dict[str, np.ndarray]
    rank: dict[str, np.ndarray]
    ranked: np.ndarray  # which test examples were ranked


def count_labels(given: TrainingInput, settings: Settings) -> int:
    """Mature training examples of the rarer class."""
    rows = Rows.of(given.rows)
    examples = make_examples(rows, np.full(len(rows), -1), given.split, settings)
    return min((_rarer(each.will_buy) for each in examples.values()), default=0)


def make_candidate(given: TrainingInput, folder: Path, settings: Settings) -> Verdict:
    """Fit, calibrate, judge, write; returns the verdict that is also in outcome.json."""
    items = given.items.sort_by("item_id")
    columns = (items[name].to_pylist() for name in ("title", "category", "brand"))
    texts = [item_text(*each) for each in zip(*columns, strict=True)]
    rows = Rows.of(given.rows)
    item = positions_of(items["item_id"].combine_chunks(), rows)
    category = pa.array(items["category"].to_pylist(), pa.string()).dictionary_encode().indices.fill_null(-1)
    item_category = category.to_numpy(zero_copy_only=False).astype(np.int64)
    examples = make_examples(rows, item, given.split, settings)
    encoder = find_encoder(settings)
    if settings.encoder_tuning != "none":
        pairs = pairs_of(rows, item, examples["train"], texts, item_category)
        encoder = tune_encoder(pairs, encoder, settings, folder / "model")
    text = TextTower(encoder=encoder, lexical=fit_lexical(sorted(set(texts)), seed=settings.seed))
    catalogue = catalogue_of(items, text.vectors(texts))
    events = read_events(rows, item, item_category, text)
    material = make_material(rows, events, catalogue, examples["train"], examples["validation"])
    network = train_network(material, folder / "checkpoint", settings)
    trees = fit_trees(
        material.train_features, material.train, material.validation_features, material.validation, settings
    )
    vectors = _vectors(network, material)
    calibrations = {
        name: fit_calibration(raw, material.validation.will_buy, material.validation.user)
        for name, raw in _raw(network, trees, rows, events, vectors, material.validation, settings).items()
    }
    blend = _fit_blend(network, material, vectors, text, given, settings)
    catch_up(network, material, settings)
    vectors = _vectors(network, material)
    test = examples["test"]
    raw_test = _raw(network, trees, rows, events, vectors, test, settings)
    predicted = _predict(network, blend, text, material, test, raw_test, calibrations, vectors, given.split, settings)
    contest, found = _contest(test, predicted, settings)
    verdict = judge(contest)
    card = _card(given, verdict, text, settings)
    save_model(
        folder / "model",
        card,
        text.lexical,
        calibration=calibrations[verdict.purchase_scorer],
        network=network if verdict.purchase_scorer == "network" or verdict.item_scorer != "popularity" else None,
        trees=trees if verdict.purchase_scorer == "boosted_trees" else None,
        blend=blend if verdict.item_scorer == "blend" else None,
    )
    _write_outcome(folder, verdict, found, examples, given.split)
    shown = {name: each for name, each in predicted.probability.items() if name != "constant"}
    is_prefix = ~test.is_day_end
    write_report(
        folder / "report.html",
        found,
        verdict,
        {name: each[is_prefix] for name, each in shown.items()},
        test.will_buy[is_prefix],
        given.split,
    )
    return verdict


def _raw(
    network: BehaviourNetwork,
    trees: Any,  # lightgbm.Booster
    rows: Rows,
    events: EventInputs,
    vectors: np.ndarray,
    examples: Examples,
    settings: Settings,
) -> dict[str, np.ndarray]:
    """Uncalibrated probabilities by contender."""
    table = features(rows, examples.position, examples.asked_at)
    hidden = hidden_of(network, rows, events, vectors, examples, settings)
    return {
        "network": network.purchase_probability(hidden, table),
        "boosted_trees": predict_trees(trees, table),
    }


def hidden_of(
    network: BehaviourNetwork,
    rows: Rows,
    events: EventInputs,
    vectors: np.ndarray,
    examples: Examples,
    settings: Settings,
) -> np.ndarray:
    """float32 (E, H): states at the examples' positions, read in overlapping windows."""
    positions, of = np.unique(examples.position, return_inverse=True)
    users, first = np.unique(rows.user[positions], return_index=True)
    last = np.append(first[1:], len(positions)) - 1
    begin = np.maximum(rows.starts[users], positions[first] - settings.window_events // 2)
    windows = tile(begin, positions[last] + 1, settings.window_events)
    wanted = np.zeros(len(rows), bool)
    wanted[positions] = True
    # Windows come in order of rows and count each row once, so what is read out is in order of position.
    states = network.read_out(events, windows, vectors, wanted)
    return states[of]


def _vectors(network: BehaviourNetwork, material: Material) -> np.ndarray:
    with torch.inference_mode():
        return network.tower(*network.tower_inputs(material.catalogue)).cpu().numpy()


def _fit_blend(
    network: BehaviourNetwork,
    material: Material,
    vectors: np.ndarray,
    text: TextTower,
    given: TrainingInput,
    settings: Settings,
) -> Blend | None:
    """None where no next item is known in validation."""
    known = _sample(np.flatnonzero(material.validation.next_item >= 0), MAX_FITTED, settings)
    if not len(known):
        return None
    asked = _asked(network, material, material.validation.take(known), vectors, given.split.validation[0], settings)
    days = sorted(date.fromisoformat(each) for each in given.data_digests)
    return fit_next_items(material, text.encoder.dimensions, asked, (days[0], days[-1]))


def _asked(
    network: BehaviourNetwork,
    material: Material,
    examples: Examples,
    vectors: np.ndarray,
    day: date,
    settings: Settings,
) -> Asked:
    """Examples of a part that begins on `day`: the sessions begun before it are known."""
    hidden = hidden_of(network, material.rows, material.events, vectors, examples, settings)
    return Asked(
        position=examples.position,
        next_item=examples.next_item,
        wanted=network.user_vectors(hidden),
        vectors=vectors,
        known_until=day_end(day - timedelta(days=1), settings),
    )


def _sample(places: np.ndarray, most: int, settings: Settings) -> np.ndarray:
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(settings.seed).choice(places, most, replace=False))


def _predict(
    network: BehaviourNetwork,
    blend: Blend | None,
    text: TextTower,
    material: Material,
    test: Examples,
    raw: dict[str, np.ndarray],
    calibrations: dict[str, Calibration],
    vectors: np.ndarray,
    split: Split,
    settings: Settings,
) -> Prediction:
    probability = {name: calibrations[name].apply(each) for name, each in raw.items()}
    # The constant knows the share of buyers in validation, at events and at midnights apart.
    share = [
        max(float(material.validation.will_buy[material.validation.is_day_end == kind].mean()), 1e-6)
        for kind in (False, True)
    ]
    probability["constant"] = np.where(test.is_day_end, share[1], share[0])
    ranked = _sample(np.flatnonzero(test.next_item >= 0), MAX_RANKED, settings)
    asked = _asked(network, material, test.take(ranked), vectors, split.test[0], settings)
    popularity = popular_items(material.rows, material.events.item, asked.known_until, len(vectors))
    rank = {
        "network": ranks(asked.wanted, vectors, asked.next_item),
        "popularity": 1 + np.argsort(np.argsort(-popularity, kind="stable"))[asked.next_item],
        **neighbour_ranks(material.rows, material.events.item, asked.known_until, test.take(ranked), len(vectors)),
    }
    if blend is not None:
        rank["blend"] = blend_ranks(blend, material, text.encoder.dimensions, asked)
    return Prediction(probability=probability, rank=rank, ranked=ranked)


def ranks(queries: np.ndarray, vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """int64: place of each target among all items by dot product, from 1; equals before it count."""
    found = []
    for start in range(0, len(queries), 1_024):
        scores = queries[start : start + 1_024] @ vectors.T
        own = np.take_along_axis(scores, target[start : start + 1_024, None], axis=1)
        found.append((scores >= own).sum(axis=1))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _contest(test: Examples, predicted: Prediction, settings: Settings) -> tuple[Contest, list[Figure]]:
    found: list[Figure] = []
    is_prefix = ~test.is_day_end
    purchase: dict[str, dict[str, Metric]] = {}
    for name, probability in predicted.probability.items():
        for slice_name, mask in (("all", is_prefix), ("day_end", test.is_day_end)):
            if _rarer(test.will_buy[mask]) == 0:
                continue
            metrics = purchase_metrics(probability[mask], test.will_buy[mask])
            if slice_name == "all":
                purchase[name] = metrics
            found += figures(name, slice_name, metrics, test.user[mask], settings.seed)
    users = test.user[predicted.ranked]
    ranking = {name: ranking_metrics(rank) for name, rank in predicted.rank.items()}
    for name, metrics in ranking.items():
        if len(users):
            found += figures(name, "all", metrics, users, settings.seed)
    contest = Contest(
        purchase=purchase,
        ranking=ranking,
        purchase_users=test.user[is_prefix],
        ranking_users=users,
        seed=settings.seed,
    )
    return contest, found


def _card(given: TrainingInput, verdict: Verdict, text: TextTower, settings: Settings) -> ModelCard:
    return ModelCard(
        kind="trained",
        purchase_scorer=verdict.purchase_scorer,
        item_scorer=verdict.item_scorer,
        intent_missing_reason=None,
        horizon_hours=settings.horizon_hours,
        window_events=settings.window_events,
        encoder=text.encoder.name,
        encoder_digest=text.encoder.digest,
        data_digests=given.data_digests,
        seed=settings.seed,
    )


def _write_outcome(
    folder: Path, verdict: Verdict, found: list[Figure], examples: dict[Part, Examples], split: Split
) -> None:
    outcome = {
        "verdict": asdict(verdict),
        "figures": [asdict(each) for each in found],
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
