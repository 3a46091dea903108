"""make torture-swap: whoever builds, publishes and swaps an index is killed at every step, while others read.

A catalogue carries its number in every title. A forked process indexes it and dies at its 1st, 2nd, … step (a file
opened for writing, renamed, removed, a folder made, a statement, a commit), then at random moments. After each death
the shop must serve a whole release, the one before or the new one; readers go on all the while, and none may see
titles of two catalogues, or vectors and words of other titles than its items have. Replayable from a seed; writes
var/bench/torture-swap.json.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
import torch
from model_shop import NOON, catalogue, history, publish, shop_of_its_own

from intent_platform import training
from intent_platform.db.connection import _engine
from intent_platform.index.registry import current_release
from intent_platform.index.release import Release
from intent_platform.index.search import search
from intent_platform.scoring import score
from intent_platform.settings import Settings

CHANGES_FILES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree", "shutil.copytree"}
WRITES = os.O_WRONLY | os.O_RDWR
READERS = 2


@dataclass(kw_only=True)
class Torture:
    settings: Settings
    chance: random.Random
    number: int = 0  # of the newest catalogue
    outcomes: Counter = field(default_factory=Counter)  # after a kill: old, new, torn
    readers: dict[int, int] = field(default_factory=dict)  # process id → end of its pipe

    def change_catalogue(self) -> None:
        self.number += 1
        items = catalogue()
        titles = pc.binary_join_element_wise(f"v{self.number}", items["title"], " ")
        changed = items.set_column(items.column_names.index("title"), "title", titles)
        publish(self.settings, items=changed, days={NOON.date(): history((2, "view", 6), (1, "purchase", 3))})

    def rebuild(self, *, die_at_step: int | None = None, die_after_s: float | None = None) -> int | None:
        """Index the newest catalogue in a forked process; the steps it took, None where it was killed."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            with _own_process():
                steps = _count_steps(die_at_step)
                training.rebuild_index(self.settings, now=NOON + timedelta(minutes=self.number))
                os.write(write_end, str(steps()).encode())
        os.close(write_end)
        if die_after_s is not None:
            time.sleep(die_after_s)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(read_end) as told:
            said = told.read()
        if not os.WIFSIGNALED(status) and not said:
            raise AssertionError(f"The rebuild of catalogue {self.number} ended by itself, with status {status}.")
        return int(said) if said else None

    def kill_and_look(self, **when) -> None:
        before = _version(current_release(self.settings)[0])
        self.change_catalogue()
        if self.rebuild(**when) is not None:
            return  # it was done before its time came
        release, _ = current_release(self.settings)
        version = _version(release)
        whole = not is_mixed(release) and version in (before, self.number)
        self.outcomes["torn" if not whole else "old" if version == before else "new"] += 1

    def start_readers(self) -> None:
        for _ in range(READERS):
            read_end, write_end = os.pipe()
            pid = os.fork()
            if pid == 0:
                with _own_process():
                    _read_until_told(self.settings, write_end)
            os.close(write_end)
            self.readers[pid] = read_end

    def stop_readers(self) -> Counter:
        """How many answers they got, and how many of them were mixed or failed."""
        seen: Counter = Counter()
        for pid, read_end in self.readers.items():
            os.kill(pid, signal.SIGTERM)
            with os.fdopen(read_end) as told:
                seen += Counter(json.loads(told.read()))
            os.waitpid(pid, 0)
        return seen


@contextmanager
def _own_process() -> Iterator[None]:
    """A forked process that never returns into the parent's frames, which would stop its Postgres."""
    _engine.cache_clear()  # connections are the parent's
    try:
        yield
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def is_mixed(release: Release) -> bool:
    """Whether an answer of it, or it itself, is made of two."""
    hits = search(release, "running shoes", 13).hits
    rows = history((2, "view", 0), (1, "search", "kettle"))
    shown = score(release, rows, valid_at=NOON, settings=Settings(threads=1)).recommendations["item_id"]
    title_of = {row["item_id"]: row["title"] for row in release.index.items.to_pylist()}
    titles = [str(hit.title) for hit in hits] + [title_of[item_id] for item_id in shown.to_pylist()]
    index = release.index
    vectors = release.model.text.vectors([str(title) for title in index.title])
    sizes = {len(each) for each in (index, index.by_vector, index.by_text, index.neighbours)}
    sizes.add(index.lexical.postings.shape[1])
    is_of_one_piece = len(sizes) == 1 and np.allclose(vectors, index.text_vectors, atol=1e-5)
    is_of_this_catalogue = bool((index.lexical.scores([titles[0].split()[0]])[0] > 0).all())
    return not (is_of_one_piece and is_of_this_catalogue) or len({title.split()[0] for title in titles}) != 1


def _version(release: Release) -> int:
    return int(str(release.index.title[0]).split()[0].removeprefix("v"))


def _read_until_told(settings: Settings, write_end: int) -> None:
    is_over = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    seen = {"answers": 0, "mixed": 0, "failed": 0, "releases": 0}
    last = None
    while not is_over:
        try:
            release, promotion = current_release(settings)
            seen["mixed"] += is_mixed(release)
        except Exception as error:  # whatever a reader meets counts
            print(f"A reader failed: {error!r}", file=sys.stderr)
            seen["failed"] += 1
            continue
        seen["answers"] += 1
        seen["releases"] += promotion != last
        last = promotion
    os.write(write_end, json.dumps(seen).encode())


def _count_steps(die_at: int | None) -> Callable[[], int]:
    """Count what a crash could come between, and die right before step `die_at`."""
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1
        if taken == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, given: tuple) -> None:
        if event in CHANGES_FILES or (event == "open" and isinstance(given[2], int) and given[2] & WRITES):
            step()

    sys.addaudithook(audit)
    for name in ("before_cursor_execute", "commit"):
        sa.event.listen(sa.engine.Engine, name, lambda *_: step())
    return lambda: taken


def torture(settings: Settings, *, kills: int, seed: int, seconds: float = 3600) -> dict[str, float]:
    """Die at every step, or at as many as `kills` allows, then at random moments; in the end the newest must serve."""
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    run = Torture(settings=settings, chance=random.Random(seed))
    until = time.monotonic() + seconds
    run.change_catalogue()
    training.ensure_release(settings, NOON.date())
    run.change_catalogue()
    began = time.monotonic()
    steps = run.rebuild()
    took = time.monotonic() - began
    run.start_readers()
    in_turn = list(range(1, steps + 1))
    run.chance.shuffle(in_turn)
    while run.outcomes.total() < kills and time.monotonic() < until:
        if in_turn:
            run.kill_and_look(die_at_step=in_turn.pop())
        else:
            run.kill_and_look(die_after_s=run.chance.random() * took)
    run.change_catalogue()
    run.rebuild()
    seen = run.stop_readers()
    release, _ = current_release(settings)
    if not seen["answers"]:
        raise AssertionError("The readers read nothing.")
    return {
        "kills": run.outcomes.total(),
        "steps": steps,
        "steps_not_reached": len(in_turn),
        "served_old": run.outcomes["old"],
        "served_new": run.outcomes["new"],
        "torn": run.outcomes["torn"] + (_version(release) != run.number),
        "answers": seen["answers"],
        "releases_seen": seen["releases"],
        "mixed": seen["mixed"],
        "failed": seen["failed"],
    }


def main() -> None:
    from intent_platform.bench.result import write_result

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with shop_of_its_own(threads=1, keep_releases=5) as served:
        figures = torture(served, kills=given.kills, seed=given.seed, seconds=60 * given.minutes)
    print(figures)
    write_result("torture-swap", figures, {}, [], " ".join(["python tests/swap_torture.py", *sys.argv[1:]]))
    sys.exit(bool(figures["torn"] or figures["mixed"] or figures["failed"]))


if __name__ == "__main__":
    main()
