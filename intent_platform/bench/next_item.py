"""intent bench next-item: next items on public logs, the whole catalogue ranked, simple peers in the same run.

The model is the product's: its network, trained by its own loop, and the blend of it with session neighbours, rules and
titles. The settings are the product's defaults but for the epochs. Figures: P@20 and MRR@20 (diginetica), HR@10 and
NDCG@10 (beauty, office).
Prints a table; writes <INTENT_HOME>/bench/next-item-<protocol>.json.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from intent_platform.bench.public_logs import Questions, Task, load_log
from intent_platform.bench.result import bench_folder, bench_settings, digest_of, write_result
from intent_platform.model.examples import Examples
from intent_platform.model.inputs import Inputs, catalogue_of, positions_of, read_events
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.neighbours import Runs, SessionNeighbours, sequential_rules
from intent_platform.model.ranking import Asked, blend_ranks, fit_next_items
from intent_platform.model.rows import Rows
from intent_platform.model.text import TextTower, find_encoder
from intent_platform.model.train import Material, make_material, refit_next_items, train_network
from intent_platform.sequences.build import SEQUENCE_SCHEMA
from intent_platform.settings import Settings

DAY_US = 86_400_000_000  # between the runs
STEP_US = 60_000_000  # between the events of a run: the logs keep their order, not their times
PREFIXES_PER_CHUNK = 512
MOST_FITTED = 5_000  # validation prefixes that the blend is fitted on


def ranks(scores: np.ndarray, prefixes: list[list[int]], target: np.ndarray, task: Task) -> np.ndarray:
    """Place of each target among all items, from 1; equals count before it."""
    if task.is_seen_removed:
        owner = np.repeat(np.arange(len(prefixes)), [len(each) for each in prefixes])
        scores[owner, np.concatenate(prefixes)] = -np.inf
    own = scores[np.arange(len(target)), target]
    return (scores >= own[:, None]).sum(axis=1)


def evaluate(score: Callable[[int, int], np.ndarray], asked: Questions, task: Task) -> np.ndarray:
    """Ranks of all targets; score(first, last) gives float (last − first, N) for that run of prefixes."""
    found = []
    for first in range(0, len(asked), PREFIXES_PER_CHUNK):
        chunk = asked[first : first + PREFIXES_PER_CHUNK]
        found.append(ranks(score(first, first + len(chunk)), [each for each, _ in chunk], targets(chunk), task))
    return np.concatenate(found)


def metrics(rank: np.ndarray, task: Task) -> dict[str, float]:
    is_hit = rank <= task.cut
    if task.name == "diginetica":
        return {"p_at_20": float(is_hit.mean()), "mrr_at_20": float(np.where(is_hit, 1 / rank, 0).mean())}
    gain = np.where(is_hit, 1 / np.log2(rank + 1), 0)
    return {"hr_at_10": float(is_hit.mean()), "ndcg_at_10": float(gain.mean())}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A task as the product reads it."""

    items: pa.Table
    encoder_dimensions: int
    material: Material
    test: Examples


def prepare(task: Task, settings: Settings) -> Prepared:
    text = TextTower(encoder=find_encoder(settings), lexical=fit_lexical(sorted(set(task.titles))))
    items = _items(task.items)
    catalogue = catalogue_of(items, text.vectors(task.titles))
    rows = Rows.of(_sequences(task))
    item = positions_of(catalogue.item_ids, rows)
    events = read_events(rows, item, np.full(task.items, -1), text)
    learned, validation, test = _examples(task, rows, item)
    return Prepared(
        items=items,
        encoder_dimensions=text.encoder.dimensions,
        material=make_material(Inputs(rows=rows, events=events, catalogue=catalogue), learned, validation),
        test=test,
    )


class Contender:
    """The product's network and blend on a task."""

    def __init__(self, task: Task, settings: Settings, folder: Path) -> None:
        prepared = prepare(task, settings)
        self.items, self.encoder_dimensions = prepared.items, prepared.encoder_dimensions
        self.material, self.test = prepared.material, prepared.test
        self.network = train_network(self.material, folder, settings)
        validation = self.material.validation
        chosen = np.random.default_rng(0).permutation(len(validation))[:MOST_FITTED]
        fitted = self.asked(validation.take(np.sort(chosen)), phase(task, 1))
        self.blend = fit_next_items(self.material, fitted, (date.min, date.max))
        if task.name == "diginetica":  # leave-one-out figures are published without the items that were held out
            self.network = refit_next_items(self.material, self.network, folder, settings)

    def asked(self, examples: Examples, known_until: int) -> Asked:
        vectors = self.network.item_vectors(self.items, self.material.catalogue.text_vectors)
        states = self.network.states(self.material, vectors, examples.position)
        return Asked(
            position=examples.position,
            next_item=examples.next_item,
            wanted=self.network.user_vectors(states),
            vectors=vectors,
            encoder_dimensions=self.encoder_dimensions,
            known_until=known_until,
        )


def targets(asked: Questions) -> np.ndarray:
    return np.array([target for _, target in asked])


def _items(count: int) -> pa.Table:
    return pa.table(
        {
            "item_id": [f"{number:08}" for number in range(count)],
            "category": pa.nulls(count, pa.string()),
            "price": pa.nulls(count, pa.float64()),
        }
    )


def phase(task: Task, number: int) -> int:
    """µs: learned events lie in phase 0, held ones in 1, the test's prefixes in 2."""
    return number * (len(task.runs) + 1) * DAY_US


def _sequences(task: Task) -> pa.Table:
    """One user and one session per run, in the order given, then one per prefix that the test asks."""
    runs = [*task.runs, *(prefix for prefix, _ in task.test)]
    packed = Runs.of(runs)
    held = np.array([*task.held, *[0] * len(task.test)])
    is_test = packed.owner >= len(task.runs)
    begin = np.where(is_test, packed.owner - len(task.runs), packed.owner) * DAY_US + phase(task, 2) * is_test
    place = np.arange(len(packed.item)) - packed.starts[:-1][packed.owner]
    is_held = packed.from_end < held[packed.owner]
    times = pa.timestamp("us", "UTC")
    columns = {
        "user_id": pa.array([f"{run:08}" for run in range(len(runs))]).take(pa.array(packed.owner)),
        "event_type": pa.repeat(pa.scalar("view"), len(packed.item)),
        "occurred_at": pa.array(begin + place * STEP_US + is_held * phase(task, 1)).cast(times),
        "session_started_at": pa.array(begin).cast(times),
        "item_id": pa.array([f"{number:08}" for number in packed.item.tolist()]),
    }
    length = len(packed.item)
    return pa.table(
        {field.name: columns.get(field.name, pa.nulls(length, field.type)) for field in SEQUENCE_SCHEMA},
        schema=SEQUENCE_SCHEMA,
    )


def _examples(task: Task, rows: Rows, item: np.ndarray) -> tuple[Examples, Examples, Examples]:
    """Learned from, validated on, asked in the test: every event of a run that has a next one; the prefixes' ends."""
    ends = rows.starts[1:] - 1
    is_before_item = np.ones(len(rows), bool)
    is_before_item[ends] = False
    of_runs = np.flatnonzero(is_before_item[: rows.starts[len(task.runs)]])
    from_end = ends[rows.user[of_runs]] - of_runs
    is_held = from_end <= np.array(task.held)[rows.user[of_runs]]
    test = ends[len(task.runs) :]
    return (
        _at(rows, of_runs[~is_held], item[of_runs[~is_held] + 1]),
        _at(rows, of_runs[is_held], item[of_runs[is_held] + 1]),
        _at(rows, test, targets(task.test)),
    )


def _at(rows: Rows, position: np.ndarray, next_item: np.ndarray) -> Examples:
    return Examples(
        position=position,
        asked_at=rows.at[position],
        will_buy=np.zeros(len(position), bool),
        next_item=next_item,
        is_day_end=np.zeros(len(position), bool),
        user=rows.user[position],
    )


def popularity(task: Task) -> Callable[[int, int], np.ndarray]:
    count = np.bincount(np.concatenate(task.runs), minlength=task.items).astype(float)
    return lambda first, last: np.tile(count, (last - first, 1))


def neighbours(task: Task) -> Callable[[int, int], np.ndarray]:
    model = SessionNeighbours(sessions=Runs.of(task.runs), items=task.items)
    prefixes = Runs.of([prefix for prefix, _ in task.test])
    return lambda first, last: next(model.scores(prefixes.slice(first, last))).toarray()


def item_knn(task: Task) -> Callable[[int, int], np.ndarray]:
    """What followed the prefix's items before; nearer followings and newer items weigh more."""
    rules = sequential_rules(Runs.of(task.runs), task.items)
    prefixes = Runs.of([prefix for prefix, _ in task.test])

    def score(first: int, last: int) -> np.ndarray:
        chunk = prefixes.slice(first, last)
        weight = np.exp(-chunk.from_end / 1.5)
        return (sp.csr_matrix((weight, (chunk.owner, chunk.item)), (len(chunk), task.items)) @ rules).toarray()

    return score


def tfidf(task: Task) -> Callable[[int, int], np.ndarray]:
    """Titles most like the newest one's, by words."""
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(task.titles)
    newest = np.array([prefix[-1] for prefix, _ in task.test])

    def score(first: int, last: int) -> np.ndarray:
        likeness = (vectors[newest[first:last]] @ vectors.T).toarray()
        likeness[np.arange(last - first), newest[first:last]] = -1
        return likeness

    return score


PEERS = {
    "diginetica": {"popularity": popularity, "vsknn": neighbours},
    "beauty": {"popularity": popularity, "item_knn": item_knn, "vsknn": neighbours},
    "office": {"popularity": popularity, "tfidf": tfidf, "vsknn": neighbours},
}


def run(protocol: str, data: Path, epochs: int) -> None:
    """data: where load_log finds the log. A run that was stopped goes on from its last epoch."""
    task = load_log(protocol, data)
    settings = bench_settings(epochs=epochs, encoder="" if any(task.titles) else "none")
    peers = {name: metrics(evaluate(peer(task), task.test, task), task) for name, peer in PEERS[task.name].items()}
    work = bench_folder() / "training" / f"{task.name}-{epochs}-{digest_of(task.files)[:12]}"
    started = time.monotonic()
    contender = Contender(task, settings, work / "checkpoint")
    seconds = time.monotonic() - started
    asked = contender.asked(contender.test, phase(task, 2))
    by_network = evaluate(lambda first, last: asked.wanted[first:last] @ asked.vectors.T, task.test, task)
    peers["network"] = metrics(by_network, task)
    figures = metrics(blend_ranks(contender.blend, contender.material, asked), task)
    print(contender.blend)
    for name, each in {"blend": figures, **peers}.items():
        print(f"{task.name:12}{name:12}" + "".join(f"{key:>12} {value:.4f}" for key, value in each.items()))
    write_result(
        f"next-item-{task.name}",
        {**figures, "training_s": seconds},
        peers,
        task.files,
        f"intent bench next-item --data DATA --protocol {task.name} --epochs {epochs}",
    )
    shutil.rmtree(work)
