"""Public logs for next-item prediction, in the splits that papers use: runs of items, and the prefixes that are asked.

diginetica: sessions, split as SR-GNN did; every prefix of a test session is asked. beauty: one run per user, leave one
out, what a user has seen is removed from the ranking. office: the published split's validation rows are learned from.
"""

import ast
import csv
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VALIDATION_RATIO = 0.07  # of the training sessions, the newest (diginetica)
OFFICE_VALIDATION_RATIO = 0.2  # of users: the log tells no times

Questions = list[tuple[list[int], int]]
"""(prefix, wanted item), oldest item first."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Runs of items, oldest first, numbered 0 … N − 1; nothing is learned from `test`."""

    name: str
    runs: list[list[int]]
    held: list[int]  # for each run: how many of its newest items are asked in validation
    test: Questions
    titles: list[str]  # of the N items, empty where unknown
    is_seen_removed: bool  # from the ranking: a user never buys the same thing twice in this log
    cut: int  # hits count down to this rank
    files: tuple[Path, ...]

    @property
    def items(self) -> int:
        return len(self.titles)


def load_diginetica(folder: Path) -> Task:
    files = tuple(folder / name for name in ("train_sessions.jsonl.gz", "test_examples.jsonl.gz"))
    runs = _json_lines(files[0])
    test = [(each["prefix"], each["target"]) for each in _json_lines(files[1])]
    first_held = int(len(runs) * (1 - VALIDATION_RATIO))
    return Task(
        name="diginetica",
        runs=runs,
        held=[0 if number < first_held else len(run) - 1 for number, run in enumerate(runs)],
        test=test,
        titles=[""] * (1 + max(max(map(max, runs)), max(target for _, target in test))),
        is_seen_removed=False,
        cut=20,
        files=files,
    )


def load_beauty(folder: Path) -> Task:
    path = folder / "sequences.txt"
    runs = [[int(item) - 1 for item in line.split()[1:]] for line in path.read_text().splitlines()]
    return Task(
        name="beauty",
        runs=[run[:-1] for run in runs],
        held=[1] * len(runs),
        test=[(run[:-1], run[-1]) for run in runs],
        titles=[""] * (1 + max(map(max, runs))),
        is_seen_removed=True,
        cut=10,
        files=(path,),
    )


def load_office(folder: Path) -> Task:
    files = tuple(folder / name for name in ("items.json.gz", "valid.csv.gz", "test.csv.gz"))
    with gzip.open(files[0], "rt", encoding="utf-8") as stream:
        items = json.load(stream)
    users = _runs_of_users(files[1])
    is_held = np.random.default_rng(0).random(len(users)) < OFFICE_VALIDATION_RATIO
    runs = [(run, is_one) for of_user, is_one in zip(users, is_held, strict=True) for run in of_user]
    return Task(
        name="office",
        runs=[run for run, _ in runs],
        held=[(len(run) - 1) * int(is_one) for run, is_one in runs],
        test=[(prefix, target) for _, prefix, target in _office_rows(files[2])],
        titles=[items[str(number)]["title"] for number in range(len(items))],
        is_seen_removed=False,
        cut=10,
        files=files,
    )


LOADERS: dict[str, tuple[str, Callable[[Path], Task]]] = {
    "diginetica": ("diginetica", load_diginetica),
    "beauty": ("amazon_beauty", load_beauty),
    "office": ("amazon_office", load_office),
}
"""Protocol → folder of the benchmark data, and its loader."""


def _office_rows(path: Path) -> Iterator[tuple[str, list[int], int]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield row["user_id"], list(map(int, ast.literal_eval(row["history_item_id"]))), int(row["item_id"])


def _runs_of_users(path: Path) -> list[list[list[int]]]:
    """User by user, the runs that their rows tell piece by piece: each row repeats the newest ten items before it."""
    runs: dict[str, list[list[int]]] = {}
    for user, prefix, target in _office_rows(path):
        of_user = runs.setdefault(user, [])
        if of_user and of_user[-1][-len(prefix) :] == prefix:
            of_user[-1].append(target)
        else:
            of_user.append([*prefix, target])
    return list(runs.values())


def _json_lines(path: Path) -> list:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]
