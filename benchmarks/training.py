"""make bench-training: the product's packed trainer beside a plain padded SASRec, on Diginetica's sessions.

The peer `plain_sasrec` is what a straightforward script does (Kang and McAuley 2018, "Self-attentive sequential
recommendation"): sessions padded to 50, width 64, two blocks, one head, dropout 0.2, Adam, 128 sessions a batch, 256
uniform negatives per session whose logits are raised by the log of the items they stand for. Its rate is 3e-3, as at
the usual 1e-3 it learned more slowly here. Ours is train_network with a shop's first form and its usual settings.

Each side is a process of its own with the same threads and the environment of the product's training. They take turns
of an epoch, always the one that has trained for less, until --minutes of training each. Between turns both rank the
same validation prefixes against the whole catalogue, which is not timed. Seconds are of processor time: what neighbours
take of the machine does not count, and with one thread, the default, it is the time on a quiet machine. Prints the two
curves; writes var/bench/training.json.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from intent_platform.bench.next_item import prepare
from intent_platform.bench.public_logs import load_log
from intent_platform.bench.result import write_result
from intent_platform.model.inputs import Inputs
from intent_platform.model.network import BehaviourNetwork
from intent_platform.model.ranking import ranks
from intent_platform.model.train import FORMS, Material, train_network
from intent_platform.settings import Settings
from intent_platform.training import CHILD_ENVIRONMENT

LENGTH, WIDTH, BLOCKS, DROPOUT = 50, 64, 2, 0.2
BATCH, NEGATIVES, RATE = 128, 256, 3e-3
MOST_RANKED = 4_000  # validation prefixes


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where a side stands after an epoch."""

    seconds: float  # of training so far
    positions: int  # real ones, trained on so far
    mrr_at_20: float
    peak_mib: float  # while it trained


class Stopped(Exception):
    """The other side of the pipe wants no more epochs."""


@dataclass(kw_only=True)
class Turn:
    """One side's end of the pipe, and its clock, which stands still while it is judged or waits."""

    pipe: Connection
    positions_per_epoch: int
    seconds: float = 0.0
    positions: int = 0
    peak_mib: float = 0.0
    began: float = field(default=0.0)

    def begin(self) -> None:
        """Wait for the go, then start the clock."""
        if not self.pipe.recv():
            raise Stopped
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again: judging took memory of its own
        self.began = time.process_time()

    def end(self, judge: Callable[[], float]) -> None:
        self.seconds += time.process_time() - self.began
        self.positions += self.positions_per_epoch
        self.peak_mib = max(self.peak_mib, _high_water_mib())
        mrr = judge()
        self.pipe.send(Mark(seconds=self.seconds, positions=self.positions, mrr_at_20=mrr, peak_mib=self.peak_mib))


def _high_water_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each behind a layer norm and with a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(WIDTH, eps=1e-8), nn.LayerNorm(WIDTH, eps=1e-8)
        self.to_heads, self.from_heads = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, WIDTH), nn.Dropout(DROPOUT)
        )

    def forward(self, state_BTD: Tensor) -> Tensor:
        query, key, value = self.to_heads(self.before_attention(state_BTD)).chunk(3, dim=-1)
        # Padding stands behind the session, so a causal mask already hides it from every real position.
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=DROPOUT if self.training else 0.0
        )
        state_BTD = state_BTD + self.from_heads(mixed)
        return state_BTD + self.feed(self.before_feed(state_BTD))


class PlainSasrec(nn.Module):
    """Items 1 … N; 0 is padding."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.item = nn.Embedding(items + 1, WIDTH, padding_idx=0)
        self.place = nn.Embedding(LENGTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.last = nn.LayerNorm(WIDTH, eps=1e-8)
        for each in (self.item, self.place):
            nn.init.normal_(each.weight, std=0.02)

    def forward(self, item_BT: Tensor) -> Tensor:
        place_TD = self.place.weight[: item_BT.shape[1]]
        state_BTD = self.dropout(self.item(item_BT) * WIDTH**0.5 + place_TD) * (item_BT > 0).unsqueeze(-1)
        return self.last(self.blocks(state_BTD))


def padded(runs: list[np.ndarray]) -> np.ndarray:
    """int64 (len(runs), LENGTH): the newest items of each run, from 1, padded with 0 behind."""
    table = np.zeros((len(runs), LENGTH), np.int64)
    for row, run in zip(table, runs, strict=True):
        newest = run[-LENGTH:]
        row[: len(newest)] = newest + 1
    return table


def train_plain(material: Material, turn: Turn, settings: Settings) -> None:
    torch.manual_seed(settings.seed)
    runs = [run[-LENGTH - 1 :] for run in learned_runs(material)]
    read, wanted = padded([run[:-1] for run in runs]), padded([run[1:] for run in runs])
    data = torch.utils.data.TensorDataset(torch.from_numpy(read), torch.from_numpy(wanted))
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
    items = len(material.catalogue.item_ids)
    network = PlainSasrec(items)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.9, 0.98))
    asked = Asked.of(material, settings)
    prefixes = torch.from_numpy(padded(asked.prefixes(material)))
    while True:
        turn.begin()
        network.train()
        for read_BT, wanted_BT in loader:
            loss = sampled_softmax(network, read_BT, wanted_BT, items)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        turn.end(lambda: asked.mrr(plain_states(network, prefixes), network.item.weight[1:].detach().numpy()))


def sampled_softmax(network: PlainSasrec, read_BT: Tensor, wanted_BT: Tensor, items: int) -> Tensor:
    """Cross-entropy of each target against its session's drawn items, each of which stands for items / NEGATIVES."""
    state_BTD = network(read_BT)
    drawn_BK = torch.randint(1, items + 1, (len(read_BT), NEGATIVES))
    own_BT1 = (state_BTD * network.item(wanted_BT)).sum(-1, keepdim=True)
    drawn_BTK = state_BTD @ network.item(drawn_BK).mT + math.log(items / NEGATIVES)
    drawn_BTK = drawn_BTK.masked_fill(wanted_BT[:, :, None] == drawn_BK[:, None, :], -math.inf)
    logits = torch.cat([own_BT1, drawn_BTK], dim=-1)[wanted_BT > 0]
    return nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


@torch.inference_mode()
def plain_states(network: PlainSasrec, prefixes: Tensor) -> np.ndarray:
    """float32 (prefixes, WIDTH): after each prefix's newest item."""
    newest = (prefixes > 0).sum(1) - 1
    parts = zip(prefixes.split(BATCH), newest.split(BATCH), strict=True)
    return torch.cat([network(each)[torch.arange(len(each)), end] for each, end in parts]).numpy()


def train_ours(material: Material, turn: Turn, settings: Settings) -> None:
    asked = Asked.of(material, settings)

    def after_epoch(network: BehaviourNetwork) -> None:
        turn.end(lambda: asked.mrr(*asked.by_network(network, material)))
        turn.begin()

    with tempfile.TemporaryDirectory() as folder:
        turn.begin()
        train_network(material, Path(folder) / "run", settings, forms=FORMS[:1], after_epoch=after_epoch)


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """The validation prefixes that both sides rank."""

    position: np.ndarray
    next_item: np.ndarray

    @classmethod
    def of(cls, material: Material, settings: Settings) -> "Asked":
        count = len(material.validation)
        chosen = np.sort(np.random.default_rng(settings.seed).permutation(count)[:MOST_RANKED])
        examples = material.validation.take(chosen)
        return cls(position=examples.position, next_item=examples.next_item)

    def prefixes(self, inputs: Inputs) -> list[np.ndarray]:
        start = inputs.rows.starts[inputs.rows.user[self.position]]
        return [inputs.events.item[a : b + 1] for a, b in zip(start, self.position, strict=True)]

    def by_network(self, network: BehaviourNetwork, material: Material) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            network.eval()
            vectors = network.tower(*network.tower_inputs(material.catalogue)).numpy()
        return network.user_vectors(network.states(material, vectors, self.position)), vectors

    def mrr(self, queries: np.ndarray, vectors: np.ndarray) -> float:
        rank = ranks(queries, vectors, self.next_item)
        return float(np.where(rank <= 20, 1 / rank, 0).mean())


def learned_runs(material: Material) -> list[np.ndarray]:
    """Items of each session that is learned from, its last target included."""
    rows, item = material.rows, material.events.item
    position = material.train.position
    users, first = np.unique(rows.user[position], return_index=True)
    last = np.append(position[first[1:] - 1], position[-1])
    return [item[a : b + 2] for a, b in zip(rows.starts[users], last, strict=True)]


SIDES = {"ours": train_ours, "plain_sasrec": train_plain}


def side(name: str, data: Path, pipe: Connection, settings: Settings) -> None:
    """The process of one side."""
    torch.set_num_threads(settings.threads)
    material = prepare(load_log("diginetica", data), settings).material
    turn = Turn(pipe=pipe, positions_per_epoch=len(material.train))
    with contextlib.suppress(Stopped):
        SIDES[name](material, turn, settings)
    pipe.send(None)


def race(data: Path, minutes: float, settings: Settings) -> dict[str, list[Mark]]:
    """Each side's marks, in order of time."""
    context = multiprocessing.get_context("spawn")
    os.environ.update(CHILD_ENVIRONMENT, OMP_NUM_THREADS=str(settings.threads))
    pipes = {}
    for name in SIDES:
        pipes[name], theirs = context.Pipe()
        context.Process(target=side, args=(name, data, theirs, settings), daemon=True).start()
    marks: dict[str, list[Mark]] = {name: [] for name in SIDES}
    running = set(SIDES)
    while running:
        name = min(running, key=lambda each: marks[each][-1].seconds if marks[each] else 0.0)
        may_go = not marks[name] or marks[name][-1].seconds < 60 * minutes
        pipes[name].send(may_go)
        mark = pipes[name].recv()
        if mark is None:
            running.remove(name)
            continue
        marks[name].append(mark)
        print(f"{name:14}{mark.seconds:9.0f} s   MRR@20 {mark.mrr_at_20:.4f}{mark.peak_mib:9,.0f} MiB", flush=True)
    return marks


def reached(marks: list[Mark], mrr: float) -> Iterator[float]:
    return (each.seconds for each in marks if each.mrr_at_20 >= mrr)


def figures(marks: list[Mark], peer_best: float) -> dict[str, float]:
    found = {
        "real_positions_per_s": marks[-1].positions / marks[-1].seconds,
        "peak_mib": marks[-1].peak_mib,
        "best_mrr_at_20": max(each.mrr_at_20 for each in marks),
    }
    # The last step up a plateau may take long: how soon 99 % of the way was done is said beside it.
    for key, share in (("seconds_to_peer_best", 1.0), ("seconds_to_99_percent", 0.99)):
        seconds = next(reached(marks, share * peer_best), None)
        if seconds is not None:
            found[key] = seconds
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data")))
    parser.add_argument("--minutes", type=float, default=20, help="of training, for each side")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    task = load_log("diginetica", given.data)  # what is wrong with it is said before anything runs
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), encoder="none", threads=given.threads)
        marks = race(given.data, given.minutes, settings)
    best = max(each.mrr_at_20 for each in marks["plain_sasrec"])
    found = {name: figures(each, best) for name, each in marks.items()}
    for name, each in found.items():
        print(f"{name:14}" + "".join(f"   {key} {value:,.4g}" for key, value in each.items()))
    if "seconds_to_peer_best" in found["ours"]:
        ratio = found["ours"]["seconds_to_peer_best"] / found["plain_sasrec"]["seconds_to_peer_best"]
        print(f"Ours is as good as the plain loop's best in {ratio:.3f} of its time.")
    else:
        print("Ours did not get as good as the plain loop's best.")
    write_result(
        "training",
        found["ours"],
        {"plain_sasrec": found["plain_sasrec"]},
        task.files,
        f"python benchmarks/training.py --minutes {given.minutes:g} --threads {given.threads}",
    )


if __name__ == "__main__":
    main()
