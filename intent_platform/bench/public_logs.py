"""Public logs for next-item prediction, in the splits that papers use: runs of items, and the prefixes that are asked.

diginetica: sessions, split as SR-GNN did; every prefix of a test session is asked. beauty: one run per user, leave one
out, what a user has seen is removed from the ranking. office: the published split's validation rows are learned from.
A log is text, and is read as nothing else: a pickle is refused, as reading one runs what it says.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from intent_platform.errors import FileUnreadable, NotEnoughData

VALIDATION_RATIO = 0.07  # of the training sessions, the newest (diginetica)
OFFICE_VALIDATION_RATIO = 0.2  # of users: the log tells no times
MOST_ITEMS = 10_000_000  # a larger number in a log is no item, and would fill the memory

PICKLE = re.compile(rb"\x80[\x02-\x05]|\(+[ldt]?p\d+\n|\(*[\]})]q|c[\w.]+\n[\w.]+\n")
"""How a pickle begins, of the newer protocols and of those that look like text; no log does."""

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


def _diginetica(files: tuple[Path, ...]) -> Task:
    sessions, examples = files
    runs = list(_json_lines(sessions, lambda each: _numbers(each, least=1)))
    test = list(_json_lines(examples, lambda each: (_numbers(each["prefix"], least=1), _number(each["target"]))))
    first_held = int(len(runs) * (1 - VALIDATION_RATIO))
    return Task(
        name="diginetica",
        runs=runs,
        held=[0 if number < first_held else len(run) - 1 for number, run in enumerate(runs)],
        test=test,
        titles=[""] * (1 + max(max(map(max, runs)), *(max(*prefix, target) for prefix, target in test))),
        is_seen_removed=False,
        cut=20,
        files=files,
    )


def _beauty(files: tuple[Path, ...]) -> Task:
    """Each line: the user, then items numbered from 1; the last is the test's, the one before it validation's."""
    with _lines(files[0]) as lines:
        runs = [_numbers([int(word) - 1 for word in line.split()[1:]], least=3) for line in lines]
    return Task(
        name="beauty",
        runs=[run[:-1] for run in runs],
        held=[1] * len(runs),
        test=[(run[:-1], run[-1]) for run in runs],
        titles=[""] * (1 + max(map(max, runs))),
        is_seen_removed=True,
        cut=10,
        files=files,
    )


def _office(files: tuple[Path, ...]) -> Task:
    catalogue, validation, test = files
    titles = _office_titles(catalogue)
    users = _runs_of_users(validation, len(titles))
    is_held = np.random.default_rng(0).random(len(users)) < OFFICE_VALIDATION_RATIO
    runs = [(run, is_one) for of_user, is_one in zip(users, is_held, strict=True) for run in of_user]
    return Task(
        name="office",
        runs=[run for run, _ in runs],
        held=[(len(run) - 1) * int(is_one) for run, is_one in runs],
        test=[(prefix, target) for _, prefix, target in _office_rows(test, len(titles))],
        titles=titles,
        is_seen_removed=False,
        cut=10,
        files=files,
    )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a public log is read and asked."""

    folder: str  # its usual name
    files: tuple[str, ...]
    read: Callable[[tuple[Path, ...]], Task]


PROTOCOLS = {
    "diginetica": Protocol(
        folder="diginetica", files=("train_sessions.jsonl.gz", "test_examples.jsonl.gz"), read=_diginetica
    ),
    "beauty": Protocol(folder="amazon_beauty", files=("sequences.txt",), read=_beauty),
    "office": Protocol(folder="amazon_office", files=("items.json.gz", "valid.csv.gz", "test.csv.gz"), read=_office),
}


def load_log(name: str, data: Path) -> Task:
    """data: the folder of the log's files, or the one that holds it under its usual name."""
    protocol = PROTOCOLS[name]
    folder = data / protocol.folder if (data / protocol.folder).is_dir() else data
    if not folder.is_dir():
        refuse_pickles([folder])
        raise FileUnreadable(f"{data} is no folder. Give the folder of {name}'s files: {', '.join(protocol.files)}.")
    missing = [file for file in protocol.files if not (folder / file).is_file()]
    if missing:
        refuse_pickles(folder.iterdir())
        raise FileUnreadable(
            f"{folder} lacks {len(missing)} of the {len(protocol.files)} files of {name}: {', '.join(missing)}. "
            "Give the folder that holds them, or another --protocol."
        )
    task = protocol.read(tuple(folder / file for file in protocol.files))
    held, asked = sum(task.held), len(task.test)
    learned = sum(len(run) - 1 for run in task.runs) - held
    if not (learned > 0 and held and asked):
        raise NotEnoughData(
            f"{folder} has {max(learned, 0):,} next items to learn from, {held:,} for validation and {asked:,} for the "
            "test; each needs one at least. Give the whole log."
        )
    return task


def refuse_pickles(paths: Iterable[Path]) -> None:
    """Whether a person named it, or it lies where the log should: it is told apart from other files that do not fit."""
    for path in sorted(paths):
        if path.is_file() and (path.suffix in (".pkl", ".pickle") or _begins_as_pickle(path)):
            raise _pickle(path)


def _begins_as_pickle(path: Path) -> bool:
    with path.open("rb") as stream:
        return bool(PICKLE.match(stream.read(200)))


def _pickle(path: Path) -> FileUnreadable:
    return FileUnreadable(
        f"{path} is a Python pickle and is not read: reading one runs whatever it says. Write its content as text."
    )


class _Numbered(Iterator[str]):
    """Lines of a text, and the number of the one that was taken last."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.number = stream, 0

    def __next__(self) -> str:
        line = next(self.stream)
        self.number += 1
        return line


@contextmanager
def _lines(path: Path) -> Iterator[_Numbered]:
    """A text's lines, plain or .gz; whatever goes wrong with one is told with its number. A file without any fails."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            if PICKLE.match(stream.peek(200)[:200]):
                raise _pickle(path)
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8", newline="") as stream:
            lines = _Numbered(stream)
            try:
                yield lines
            finally:
                number = lines.number
    except (OSError, EOFError, zlib.error, csv.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}"
        raise FileUnreadable(
            f"{path} cannot be read at line {number} ({told[:200]}). Fetch it again, or mend that line."
        ) from error
    if number == 0:
        raise FileUnreadable(f"{path} holds no lines. Fetch it again.")


def _json_lines(path: Path, read: Callable[[Any], Any]) -> Iterator[Any]:
    with _lines(path) as lines:
        for line in lines:
            yield read(json.loads(line))


def _number(given: Any) -> int:
    if type(given) is not int or not 0 <= given < MOST_ITEMS:
        raise ValueError(f"{given!r} is no item; items are whole numbers from 0 to below {MOST_ITEMS:,}")
    return given


def _numbers(given: Any, least: int) -> list[int]:
    if not isinstance(given, list) or len(given) < least:
        raise ValueError(f"expected a list of {least} numbers or more")
    return [_number(each) for each in given]


def _office_titles(path: Path) -> list[str]:
    with _lines(path) as lines:
        items = json.loads("".join(lines))
        titles = [items[str(number)]["title"] for number in range(len(items))]
        if not any(re.search(r"\w\w", title) for title in titles):
            raise ValueError(f"none of {len(titles)} items has a title")
        return titles


def _office_rows(path: Path, items: int) -> Iterator[tuple[str, list[int], int]]:
    with _lines(path) as lines:
        for row in csv.DictReader(lines, strict=True):
            prefix, target = _numbers(json.loads(row["history_item_id"]), least=1), _number(int(row["item_id"]))
            if max(*prefix, target) >= items:
                raise ValueError(f"item {max(*prefix, target)} is not among the {items} of the catalogue")
            yield row["user_id"], prefix, target


def _runs_of_users(path: Path, items: int) -> list[list[list[int]]]:
    """User by user, the runs that their rows tell piece by piece: each row repeats the newest ten items before it."""
    runs: dict[str, list[list[int]]] = {}
    for user, prefix, target in _office_rows(path, items):
        of_user = runs.setdefault(user, [])
        if of_user and of_user[-1][-len(prefix) :] == prefix:
            of_user[-1].append(target)
        else:
            of_user.append([*prefix, target])
    return list(runs.values())
