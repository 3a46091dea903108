"""make bench-accuracy: next-item prediction on public logs, the whole catalogue ranked, simple peers in the same run.

diginetica: the SR-GNN split; every test prefix; P@20 and MRR@20. beauty: leave one out, what a user has seen is
removed; HR@10 and NDCG@10. office: trained on the published split's validation rows only; HR@10 and NDCG@10.

The model is the product's own network, trained by its own loop, and the blend of it with session neighbours, rules and
titles; the settings are its defaults but for the epochs.
Prints a table; writes var/bench/next-item-<protocol>.json.
"""

import argparse
import ast
import csv
import gzip
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from intent_platform.model.blend import (
    FEATURES,
    PER_SOURCE,
    Candidates,
    Shop,
    find_candidates,
    fit_blend,
    rank_candidates,
)
from intent_platform.model.candidate import hidden_of
from intent_platform.model.examples import Examples
from intent_platform.model.inputs import catalogue_of, positions_of, read_events
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.neighbours import Runs, SessionNeighbours, fit_decays, sequential_rules
from intent_platform.model.rows import Rows
from intent_platform.model.text import TextTower, find_encoder
from intent_platform.model.train import make_material, train_network
from intent_platform.sequences.build import SEQUENCE_SCHEMA
from intent_platform.settings import Settings

RESULTS = Path("var/bench")
SECOND_US = 1_000_000
STEP_US = 60 * SECOND_US  # between the events of a run: the logs keep their order, not their times
VALIDATION_RATIO = 0.07  # of the training sessions, the newest (diginetica)
PREFIXES_PER_CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class Task:
    """Runs of items, oldest first, numbered 0 … N − 1; the model may learn from `train`, never from `test`."""

    name: str
    train: list[list[int]]
    known: list[list[int]]  # all that had happened before the test: what the peers know
    validation: list[tuple[list[int], int]]  # (prefix, wanted item)
    test: list[tuple[list[int], int]]
    titles: list[str]  # of the N items, empty where unknown
    is_seen_removed: bool  # from the ranking: a user never buys the same thing twice in this log
    cut: int  # hits count down to this rank
    digest: str

    @property
    def items(self) -> int:
        return len(self.titles)


def load_diginetica(folder: Path) -> Task:
    sessions, tests = (folder / name for name in ("train_sessions.jsonl.gz", "test_examples.jsonl.gz"))
    runs = _json_lines(sessions)
    test = [(each["prefix"], each["target"]) for each in _json_lines(tests)]
    held = int(len(runs) * (1 - VALIDATION_RATIO))
    prefixes = [(run[:end], run[end]) for run in runs[held:] for end in range(1, len(run))]
    chosen = np.random.default_rng(0).choice(len(prefixes), min(5_000, len(prefixes)), replace=False)
    return Task(
        name="diginetica",
        train=runs[:held],
        known=runs,
        validation=[prefixes[each] for each in chosen],
        test=test,
        titles=[""] * (1 + max(max(map(max, runs)), max(target for _, target in test))),
        is_seen_removed=False,
        cut=20,
        digest=_digest(sessions, tests),
    )


def load_beauty(folder: Path) -> Task:
    path = folder / "sequences.txt"
    runs = [[int(item) - 1 for item in line.split()[1:]] for line in path.read_text().splitlines()]
    return Task(
        name="beauty",
        train=[run[:-2] for run in runs],
        known=[run[:-1] for run in runs],
        validation=[(run[:-2], run[-2]) for run in runs],
        test=[(run[:-1], run[-1]) for run in runs],
        titles=[""] * (1 + max(map(max, runs))),
        is_seen_removed=True,
        cut=10,
        digest=_digest(path),
    )


def load_office(folder: Path) -> Task:
    names = ("items.json.gz", "valid.csv.gz", "test.csv.gz")
    catalogue, rows, tests = (folder / name for name in names)
    with gzip.open(catalogue, "rt", encoding="utf-8") as stream:
        items = json.load(stream)
    runs = [[*prefix, target] for prefix, target in _office_rows(rows)]
    held = np.random.default_rng(0).random(len(runs)) < 0.2
    return Task(
        name="office",
        train=[run if not is_held else run[:-1] for run, is_held in zip(runs, held, strict=True)],
        known=runs,
        validation=[(run[:-1], run[-1]) for run, is_held in zip(runs, held, strict=True) if is_held],
        test=_office_rows(tests),
        titles=[items[str(number)]["title"] for number in range(len(items))],
        is_seen_removed=False,
        cut=10,
        digest=_digest(catalogue, rows, tests),
    )


LOADERS: dict[str, tuple[str, Callable[[Path], Task]]] = {
    "diginetica": ("diginetica", load_diginetica),
    "beauty": ("amazon_beauty", load_beauty),
    "office": ("amazon_office", load_office),
}


def _office_rows(path: Path) -> list[tuple[list[int], int]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return [
            (list(map(int, ast.literal_eval(row["history_item_id"]))), int(row["item_id"]))
            for row in csv.DictReader(stream)
        ]


def _json_lines(path: Path) -> list:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def ranks(scores: np.ndarray, prefixes: list[list[int]], target: np.ndarray, task: Task) -> np.ndarray:
    """Place of each target among all items, from 1; equals count before it."""
    if task.is_seen_removed:
        owner = np.repeat(np.arange(len(prefixes)), [len(each) for each in prefixes])
        scores[owner, np.concatenate(prefixes)] = -np.inf
    own = scores[np.arange(len(target)), target]
    return (scores >= own[:, None]).sum(axis=1)


def evaluate(score: Callable[[int, int], np.ndarray], asked: list[tuple[list[int], int]], task: Task) -> np.ndarray:
    """Ranks of all targets; score(first, last) gives float (last − first, N) for that run of prefixes."""
    found = []
    for first in range(0, len(asked), PREFIXES_PER_CHUNK):
        chunk = asked[first : first + PREFIXES_PER_CHUNK]
        target = np.array([each for _, each in chunk])
        found.append(ranks(score(first, first + len(chunk)), [prefix for prefix, _ in chunk], target, task))
    return np.concatenate(found)


def metrics(rank: np.ndarray, task: Task) -> dict[str, float]:
    is_hit = rank <= task.cut
    if task.name == "diginetica":
        return {"p_at_20": float(is_hit.mean()), "mrr_at_20": float(np.where(is_hit, 1 / rank, 0).mean())}
    gain = np.where(is_hit, 1 / np.log2(rank + 1), 0)
    return {"hr_at_10": float(is_hit.mean()), "ndcg_at_10": float(gain.mean())}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The product's network on a task: its queries, its item vectors, and what titles say."""

    wanted_validation: np.ndarray  # float32 (prefixes, D)
    wanted_test: np.ndarray
    vectors: np.ndarray  # float32 (N, D)
    text_vectors: np.ndarray  # float32 (N, T)
    encoder_dimensions: int


def train(task: Task, settings: Settings, folder: Path) -> Trained:
    """Fit the product's network on the training runs, stopped on the validation prefixes."""
    text = TextTower(encoder=find_encoder(settings), lexical=fit_lexical(sorted(set(task.titles))))
    items = _items(task)
    catalogue = catalogue_of(items, text.vectors(task.titles))
    runs = [*task.train, *(prefix for prefix, _ in task.validation), *(prefix for prefix, _ in task.test)]
    rows = Rows.of(_sequences(runs))
    item = positions_of(catalogue.item_ids, rows)
    events = read_events(rows, item, np.full(task.items, -1), text)
    first_validation, first_test = len(task.train), len(task.train) + len(task.validation)
    learned = _train_examples(rows, item, first_validation)
    validation, test = _asked(rows, first_validation, task.validation), _asked(rows, first_test, task.test)
    network = train_network(make_material(rows, events, catalogue, learned, validation), folder, settings)
    vectors = network.item_vectors(items, catalogue.text_vectors)

    def wanted(asked: Examples) -> np.ndarray:
        return network.user_vectors(hidden_of(network, rows, events, vectors, asked, settings))

    return Trained(
        wanted_validation=wanted(validation),
        wanted_test=wanted(test),
        vectors=vectors,
        text_vectors=catalogue.text_vectors,
        encoder_dimensions=text.encoder.dimensions,
    )


class Blend:
    """Network, neighbours, rules, titles and popularity, weighted on the validation prefixes."""

    def __init__(self, task: Task, trained: Trained) -> None:
        self.task, self.trained = task, trained
        asked, target = Runs.of([prefix for prefix, _ in task.validation]), _targets(task.validation)
        sample = slice(0, min(2_000, len(asked)))
        self.decays = fit_decays(Runs.of(task.train), task.items, asked.slice(0, sample.stop), target[sample])
        batches = list(self._candidates(task.train, task.validation, trained.wanted_validation))
        chunks = [target[first : first + PREFIXES_PER_CHUNK] for first in range(0, len(target), PREFIXES_PER_CHUNK)]
        self.weights = fit_blend(batches, chunks)
        print(self.decays, dict(zip(FEATURES, self.weights.round(3).tolist(), strict=True)))

    def ranks(self) -> np.ndarray:
        """Of the test's targets, from 1; a target that is no candidate comes last."""
        found = []
        target = _targets(self.task.test)
        first = 0
        for candidates in self._candidates(self.task.known, self.task.test, self.trained.wanted_test):
            best = rank_candidates(candidates, self.weights)
            is_target = best == target[first : first + len(best), None]
            first += len(best)
            found.append(np.where(is_target.any(axis=1), 1 + is_target.argmax(axis=1), self.task.items))
        return np.concatenate(found)

    def _candidates(
        self, known: list[list[int]], asked: list[tuple[list[int], int]], wanted: np.ndarray
    ) -> Iterator[Candidates]:
        sessions, items = Runs.of(known), self.task.items
        trained = self.trained
        near = top_rows(trained.text_vectors, trained.text_vectors, 20) if any(self.task.titles) else _nothing(items)
        shop = Shop(
            vectors=trained.vectors,
            text_vectors=trained.text_vectors,
            encoder_dimensions=trained.encoder_dimensions,
            near_by_text=near,
            popularity=np.bincount(sessions.item, minlength=items).astype(float),
            neighbours=SessionNeighbours(sessions=sessions, items=items, decays=self.decays),
            rules=sequential_rules(sessions, items),
        )
        for first in range(0, len(asked), PREFIXES_PER_CHUNK):
            prefixes = Runs.of([prefix for prefix, _ in asked[first : first + PREFIXES_PER_CHUNK]])
            of_chunk = wanted[first : first + len(prefixes)]
            nearest = top_rows(of_chunk, trained.vectors, PER_SOURCE)
            yield self._without_seen(find_candidates(shop, prefixes, of_chunk, nearest))

    def _without_seen(self, candidates: Candidates) -> Candidates:
        if not self.task.is_seen_removed:
            return candidates
        is_seen = candidates.features[..., FEATURES.index("is_in_prefix")] > 0
        return replace(candidates, item=np.where(is_seen, -1, candidates.item))


def top_rows(queries: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """int64 (Q, count): the rows of `vectors` with the greatest dot products, in any order."""
    found = [
        np.argpartition(-(queries[first : first + PREFIXES_PER_CHUNK] @ vectors.T), count - 1, axis=1)[:, :count]
        for first in range(0, len(queries), PREFIXES_PER_CHUNK)
    ]
    return np.concatenate(found)


def _nothing(items: int) -> np.ndarray:
    return np.full((items, 1), -1)


def _targets(asked: list[tuple[list[int], int]]) -> np.ndarray:
    return np.array([target for _, target in asked])


def _items(task: Task) -> pa.Table:
    count = task.items
    return pa.table(
        {
            "item_id": [f"{number:08}" for number in range(count)],
            "category": pa.nulls(count, pa.string()),
            "price": pa.nulls(count, pa.float64()),
        }
    )


def _sequences(runs: list[list[int]]) -> pa.Table:
    """One user and one session per run, in the order given."""
    packed = Runs.of(runs)
    place = packed.from_end.max(initial=0) - packed.from_end
    moment = pa.array(place * STEP_US).cast(pa.timestamp("us", "UTC"))
    columns = {
        "user_id": pa.array([f"{run:08}" for run in range(len(runs))]).take(pa.array(packed.owner)),
        "event_type": pa.repeat(pa.scalar("view"), len(packed.item)),
        "occurred_at": moment,
        "session_started_at": moment.take(pa.array(packed.starts[:-1][packed.owner])),
        "item_id": pa.array([f"{number:08}" for number in packed.item.tolist()]),
    }
    length = len(packed.item)
    return pa.table(
        {field.name: columns.get(field.name, pa.nulls(length, field.type)) for field in SEQUENCE_SCHEMA},
        schema=SEQUENCE_SCHEMA,
    )


def _train_examples(rows: Rows, item: np.ndarray, runs: int) -> Examples:
    """Every event of the first `runs` runs that has a next one."""
    ends = np.zeros(len(rows), bool)
    ends[rows.starts[1:] - 1] = True
    position = np.flatnonzero(~ends[: rows.starts[runs]])
    return _examples(rows, position, item[position + 1])


def _asked(rows: Rows, first_run: int, asked: list[tuple[list[int], int]]) -> Examples:
    position = rows.starts[first_run + 1 : first_run + 1 + len(asked)] - 1
    return _examples(rows, position, np.array([target for _, target in asked]))


def _examples(rows: Rows, position: np.ndarray, next_item: np.ndarray) -> Examples:
    return Examples(
        position=position,
        asked_at=rows.at[position],
        will_buy=np.zeros(len(position), bool),
        next_item=next_item,
        is_day_end=np.zeros(len(position), bool),
        user=rows.user[position],
    )


def popularity(task: Task) -> Callable[[int, int], np.ndarray]:
    count = np.bincount(np.concatenate(task.known), minlength=task.items).astype(float)
    return lambda first, last: np.tile(count, (last - first, 1))


def neighbours(task: Task) -> Callable[[int, int], np.ndarray]:
    model = SessionNeighbours(sessions=Runs.of(task.known), items=task.items)
    prefixes = Runs.of([prefix for prefix, _ in task.test])
    return lambda first, last: next(model.scores(prefixes.slice(first, last))).toarray()


PEERS = {"popularity": popularity, "vsknn": neighbours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", choices=LOADERS, action="append", help="default: all")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data")))
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    for name in given.protocol or LOADERS:
        folder, load = LOADERS[name]
        if not (given.data / folder).is_dir():
            sys.exit(f"{given.data / folder} is not there; set INTENT_BENCH_DATA, or give --data.")
        run(load(given.data / folder), given.epochs)


def run(task: Task, epochs: int) -> None:
    settings = Settings(max_epochs=epochs, home=Path("var"), encoder="" if any(task.titles) else "none")
    peers = {name: metrics(evaluate(peer(task), task.test, task), task) for name, peer in PEERS.items()}
    started = time.monotonic()
    trained = train(task, settings, RESULTS / "checkpoints" / f"{task.name}-{epochs}")
    blend = Blend(task, trained)
    seconds = time.monotonic() - started
    wanted, vectors = trained.wanted_test, trained.vectors
    network = evaluate(lambda first, last: wanted[first:last] @ vectors.T, task.test, task)
    figures = metrics(blend.ranks(), task)
    peers["network"] = metrics(network, task)
    for name, each in {"blend": figures, **peers}.items():
        print(f"{task.name:12}{name:12}" + "".join(f"{key:>12} {value:.4f}" for key, value in each.items()))
    result = {
        "name": f"next-item-{task.name}",
        "figures": {**figures, "training_s": seconds},
        "peers": peers,
        "data_digest": task.digest,
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "command": f"python benchmarks/next_item.py --protocol {task.name} --epochs {epochs}",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"next-item-{task.name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
