"""Candidate, opponents and champion on the same test examples: what the gate judges and what is stored of it."""

import time
from dataclasses import dataclass
from datetime import date, timedelta

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent_platform.errors import NotEnoughData
from intent_platform.model.audit import find_canary, find_leaks
from intent_platform.model.behaviour import predict_trees
from intent_platform.model.blend import Blend
from intent_platform.model.calibration import Calibration
from intent_platform.model.champion import Champion, ask_champion
from intent_platform.model.examples import Examples, day_end
from intent_platform.model.features import features
from intent_platform.model.gate import CHAMPION, CONSTANT, Contest, Field
from intent_platform.model.inputs import last_events
from intent_platform.model.logistic import LogisticRegression
from intent_platform.model.metrics import Figure, figures, purchase_metrics, ranking_metrics
from intent_platform.model.network import BehaviourNetwork
from intent_platform.model.opponents import neighbour_ranks, popular_items
from intent_platform.model.ranking import Asked, blend_ranks, ranks
from intent_platform.model.reading import Reading
from intent_platform.model.rows import Rows
from intent_platform.model.slices import slices_of
from intent_platform.model.text import TextTower
from intent_platform.model.train import Material
from intent_platform.sequences import Split
from intent_platform.settings import Settings

MAX_RANKED = 20_000  # test examples whose next item is ranked against the whole catalogue
TIMED_SHOPPERS = 20
EXAMPLES_PER_CHUNK = 100_000
UNSEEN_ITEMS = "unseen_items"  # the slice of next items that had no event on the training and validation days
SLICE_METRICS = ("roc_auc", "pr_auc", "log_loss")  # all four only where everyone is judged


@dataclass(frozen=True, kw_only=True, eq=False)
class Contenders:
    """What a training leaves: fitted on the training days, calibrated and weighted on the validation days.

    The network's next-item half has learned both.
    """

    material: Material
    items: pa.Table  # in the order of the catalogue
    text: TextTower
    network: BehaviourNetwork
    started_from: str | None  # digest of the champion whose weights the network began with
    trees: lightgbm.Booster
    logistic: LogisticRegression
    calibrations: dict[str, Calibration]  # by purchase scorer
    blend: Blend | None

    def vectors(self) -> np.ndarray:
        """float32 (N, D): the network's items."""
        return self.network.item_vectors(self.items, self.material.catalogue.text_vectors)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A contest, its figures, and the probabilities behind them."""

    contest: Contest
    figures: list[Figure]
    probability: dict[str, np.ndarray]  # by contender, calibrated, of the examples right after an event
    will_buy: np.ndarray  # bool, of the same


def evaluate(
    contenders: Contenders, test: Examples, split: Split, champion: str | None, root: str, settings: Settings
) -> Evaluation:
    """champion: digest of the model that serves, in the lake at `root`."""
    material = contenders.material
    vectors = contenders.vectors()
    ranked = test.take(sample(np.flatnonzero(test.next_item >= 0), MAX_RANKED, settings))
    asked = ask(contenders.network, material, ranked, vectors, contenders.text, split.test[0], settings)
    asked_champion = ask_champion(champion, root, material, contenders.items, test, ranked, asked.known_until, settings)
    probability = _probabilities(contenders, test, vectors, asked_champion)
    slices = slices_of(material.rows, test)
    fields = {name: _purchase_field(probability, test, mask) for name, mask in slices.items() if _has_both(test, mask)}
    if "all" not in fields:
        raise NotEnoughData(f"Of {len(test):,} test examples all buy or none does: nothing can be told apart.")
    place = _places(contenders, ranked, asked, asked_champion)
    is_unseen = np.isin(ranked.next_item, _seen_items(contenders), invert=True)
    contest = Contest(
        purchase=fields["all"],
        items=_item_field(place, ranked, np.ones(len(ranked), bool)),
        unseen_items=_item_field(place, ranked, is_unseen),
        slices={name: each for name, each in fields.items() if name != "all"},
        champion_note=asked_champion.note,
        leaks=(*find_leaks(material.rows, test, settings), *find_canary(*_known(material), settings)),
        ms=_ms_per_shopper(contenders, test, vectors),
        seed=settings.seed,
    )
    at_event = slices["all"]
    return Evaluation(
        contest=contest,
        figures=_figures(contest, settings),
        probability={name: each[at_event] for name, each in probability.items() if name != CONSTANT},
        will_buy=test.will_buy[at_event],
    )


def _known(material: Material) -> tuple[Examples, np.ndarray, Examples, np.ndarray]:
    return material.train, material.train_features, material.validation, material.validation_features


def raw_probabilities(
    network: BehaviourNetwork,
    trees: lightgbm.Booster,
    logistic: LogisticRegression,
    material: Material,
    vectors: np.ndarray,
    examples: Examples,
) -> dict[str, np.ndarray]:
    """Uncalibrated, by purchase scorer; in chunks, as states are large."""
    found: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(examples), EXAMPLES_PER_CHUNK):
        some = examples.take(np.arange(first, min(first + EXAMPLES_PER_CHUNK, len(examples))))
        table = features(material.rows, some.position, some.asked_at)
        states = network.states(material, vectors, some.position)
        for name, probability in (
            ("network", network.purchase_probability(states, table)),
            ("boosted_trees", predict_trees(trees, table)),
            ("logistic_regression", logistic.predict(table)),
        ):
            found.setdefault(name, []).append(probability)
    return {name: np.concatenate(each) for name, each in found.items()}


def ask(
    network: BehaviourNetwork,
    material: Material,
    examples: Examples,
    vectors: np.ndarray,
    text: TextTower,
    first_day: date,
    settings: Settings,
) -> Asked:
    """Examples of a part that begins on first_day: the sessions begun before it are known."""
    return Asked(
        position=examples.position,
        next_item=examples.next_item,
        wanted=network.user_vectors(network.states(material, vectors, examples.position)),
        vectors=vectors,
        encoder_dimensions=text.encoder.dimensions,
        known_until=day_end(first_day - timedelta(days=1), settings),
    )


def sample(places: np.ndarray, most: int, settings: Settings) -> np.ndarray:
    """At most so many of the places, in order."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(settings.seed).choice(places, most, replace=False))


def _probabilities(
    contenders: Contenders, test: Examples, vectors: np.ndarray, champion: Champion
) -> dict[str, np.ndarray]:
    given = contenders
    raw = raw_probabilities(given.network, given.trees, given.logistic, given.material, vectors, test)
    found = {name: given.calibrations[name].apply(each) for name, each in raw.items()}
    if champion.probability is not None:
        found[CHAMPION] = champion.probability
    # The constant knows the share of buyers in validation, at events and at midnights apart.
    validation = given.material.validation
    share = [max(float(validation.will_buy[validation.is_day_end == kind].mean()), 1e-6) for kind in (False, True)]
    found[CONSTANT] = np.where(test.is_day_end, share[1], share[0])
    return found


def _has_both(test: Examples, mask: np.ndarray) -> bool:
    label = test.will_buy[mask]
    return bool(label.any() and not label.all())


def _purchase_field(probability: dict[str, np.ndarray], test: Examples, mask: np.ndarray) -> Field:
    label = test.will_buy[mask]
    return Field(
        metrics={name: purchase_metrics(each[mask], label) for name, each in probability.items()},
        users=test.user[mask],
    )


def _places(contenders: Contenders, ranked: Examples, asked: Asked, champion: Champion) -> dict[str, np.ndarray]:
    """int64 (ranked,) from 1, by contender: where each next item is ranked."""
    material = contenders.material
    items = len(asked.vectors)
    popularity = popular_items(material.rows, material.events.item, asked.known_until, items)
    place = {
        "network": ranks(asked.wanted, asked.vectors, asked.next_item),
        "popularity": 1 + np.argsort(np.argsort(-popularity, kind="stable"))[asked.next_item],
        **neighbour_ranks(material.rows, material.events.item, asked.known_until, ranked, items),
    }
    if contenders.blend is not None:
        place["blend"] = blend_ranks(contenders.blend, material, asked)
    if champion.rank is not None:
        place[CHAMPION] = champion.rank
    return place


def _seen_items(contenders: Contenders) -> np.ndarray:
    """Positions of the items that the network knows by their ids."""
    known = pa.array(contenders.network.known_items, pa.string())
    return pc.index_in(known, value_set=contenders.material.catalogue.item_ids.cast(pa.string())).to_numpy()


def _item_field(place: dict[str, np.ndarray], ranked: Examples, mask: np.ndarray) -> Field:
    return Field(metrics={name: ranking_metrics(each[mask]) for name, each in place.items()}, users=ranked.user[mask])


def _figures(contest: Contest, settings: Settings) -> list[Figure]:
    found: list[Figure] = []
    for name, field in {"all": contest.purchase, **contest.slices}.items():
        for contender, metrics in field.metrics.items():
            is_whole = name in ("all", "day_end")
            kept = {key: each for key, each in metrics.items() if is_whole or key in SLICE_METRICS}
            found += figures(contender, name, kept, field.users, settings.seed)
    for name, ranked in (("all", contest.items), (UNSEEN_ITEMS, contest.unseen_items)):
        if ranked is not None and len(ranked):
            for contender, metrics in ranked.metrics.items():
                found += figures(contender, name, metrics, ranked.users, settings.seed)
    return found


def _ms_per_shopper(contenders: Contenders, test: Examples, vectors: np.ndarray) -> float:
    """Median time from one shopper's newest events to probability and next items by the network, in ms."""
    network, material = contenders.network, contenders.material
    rows, took = material.rows, []
    for position in np.unique(test.position)[:TIMED_SHOPPERS]:
        start = rows.starts[rows.user[position]]
        shopper = Rows.of(rows.table.slice(start, position + 1 - start))
        reading = Reading.of(network)  # which remembers nothing of an earlier position
        began = time.perf_counter()
        newest = np.array([len(shopper) - 1])
        windows = last_events(rows, np.array([position]), network.shape.window_events)
        states = reading.states(material.events, windows, vectors)
        network.purchase_probability(states, features(shopper, newest, shopper.at[newest]))
        np.argpartition(-(network.user_vectors(states) @ vectors.T), min(50, len(vectors) - 1), axis=1)
        took.append(1e3 * (time.perf_counter() - began))
    return float(np.median(took))
