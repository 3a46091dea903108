"""make bench-index: the product's item index beside exact search (flat) and hnswlib, on real item vectors.

Vectors and questions are the product's: its network is trained on the public log, items are its item vectors, questions
its shoppers' vectors at the ends of the test's prefixes. 100,000 and 1,000,000 items are made from Diginetica's, each
between an item and one of its ten nearest. `build_nearest` is what `intent index` calls, here with codes at any size
(by itself it scans up to 20,000 items exactly); it is adjusted on one half of the questions, everything is measured on
the other. All contenders take turns in each round; a batch is shared by all threads, one question has one.

Prints tables; writes var/bench/index.json (100,000 items; other catalogues under a prefix) and
var/bench/recall-latency.svg.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import hnswlib
import matplotlib as mpl
import numpy as np

from intent_platform.bench.next_item import Contender, phase
from intent_platform.bench.public_logs import Task, load_log
from intent_platform.bench.result import bench_folder, bench_settings, peak_mib, write_result
from intent_platform.index.nearest import RECALL_AT, SHARED_FROM, WANTED_RECALL, Asked, Nearest, build_nearest
from intent_platform.settings import Settings

QUESTIONS = 4_000
SINGLE = 300
EF = (20, 40, 60, 80, 120, 160, 240, 320, 480)  # what hnswlib looks at


@dataclass(frozen=True, kw_only=True, eq=False)
class Shop:
    """Item vectors (N, D) and what shoppers ask of them (Q, D)."""

    name: str
    vectors: np.ndarray
    questions: np.ndarray

    @property
    def asked(self) -> Asked:
        return Asked.of(self.vectors, self.questions[1::2])


@dataclass(frozen=True, kw_only=True, eq=False)
class Contestant:
    search: Callable[[np.ndarray], np.ndarray]  # questions → positions
    build_s: float


def learned(task: Task, epochs: int) -> Shop:
    """The product's vectors of a public log; kept, because training takes minutes."""
    kept = bench_folder() / "vectors" / f"{task.name}-{epochs}.npz"
    if not kept.exists():
        settings = bench_settings(epochs=epochs, encoder="" if any(task.titles) else "none")
        contender = Contender(task, settings, kept.with_suffix("") / "checkpoint")
        asked = contender.asked(contender.test, phase(task, 2))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, vectors=asked.vectors, questions=asked.wanted)
    with np.load(kept) as arrays:
        questions = arrays["questions"]
        chosen = np.random.default_rng(0).permutation(len(questions))[:QUESTIONS]
        return Shop(name=task.name, vectors=arrays["vectors"], questions=np.ascontiguousarray(questions[chosen]))


def made(shop: Shop, items: int, name: str) -> Shop:
    """More items: each between one of the shop's and one of its ten nearest, as long as the first."""
    chance = np.random.default_rng(0)
    nearest, _ = build_nearest(shop.vectors, shop.vectors[:200], Settings())
    near = np.concatenate([nearest.search(part, 11)[1] for part in np.array_split(shop.vectors, 20)])
    one = chance.integers(0, len(shop.vectors), items - len(shop.vectors))
    other = np.maximum(near[one, chance.integers(1, 11, len(one))], 0)
    share = chance.random((len(one), 1), dtype=np.float32)
    between = share * shop.vectors[one] + (1 - share) * shop.vectors[other]
    lengths = np.linalg.norm(shop.vectors[one], axis=1) / np.maximum(np.linalg.norm(between, axis=1), 1e-9)
    vectors = np.concatenate([shop.vectors, between * lengths[:, None]]).astype(np.float32)
    return Shop(name=name, vectors=vectors, questions=shop.questions)


def flat(shop: Shop) -> Contestant:
    """Asked through the product's own class, so that it has as many threads as the product."""
    began = time.perf_counter()
    index = faiss.IndexFlatIP(shop.vectors.shape[1])
    index.add(shop.vectors)
    build_s = _since(began)
    nearest = Nearest(kind="flat", faiss=index, vectors=shop.vectors, threads=Settings().threads)
    return Contestant(search=lambda questions: nearest.search(questions, RECALL_AT)[1], build_s=build_s)


def product(shop: Shop) -> tuple[Contestant, Nearest]:
    """With codes at any size; the build asks half of the questions, several times, to adjust itself."""
    began = time.perf_counter()
    index, _ = build_nearest(shop.vectors, shop.questions, Settings(flat_index_max_items=0))
    build_s = _since(began)
    return Contestant(search=lambda questions: index.search(questions, RECALL_AT)[1], build_s=build_s), index


def hnsw(shop: Shop) -> tuple[Contestant, hnswlib.Index]:
    """16 links, 100 looked at while building; it then looks at as little as gives the recall that is wanted."""
    began = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=shop.vectors.shape[1])
    index.init_index(max_elements=len(shop.vectors), M=16, ef_construction=100, random_seed=7)
    index.set_num_threads(Settings().threads)
    index.add_items(shop.vectors)
    build_s = _since(began)
    asked = Asked.of(shop.vectors, shop.questions[::2])
    for ef in EF:
        index.set_ef(ef)
        if asked.recall(ask_hnsw(index, asked.questions)) >= WANTED_RECALL:
            break
    return Contestant(search=lambda questions: ask_hnsw(index, questions), build_s=build_s), index


def ask_hnsw(index: hnswlib.Index, questions: np.ndarray) -> np.ndarray:
    threads = Settings().threads if len(questions) >= SHARED_FROM else 1
    return index.knn_query(questions, RECALL_AT, num_threads=threads)[0].astype(np.int64)


def measure(shop: Shop, contestants: dict[str, Contestant], rounds: int) -> dict[str, dict[str, float]]:
    asked = shop.asked
    batch: dict[str, list[float]] = {name: [] for name in contestants}
    single: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            began = time.perf_counter()
            contestant.search(asked.questions)
            batch[name].append(_since(began))
            began = time.perf_counter()
            for number in range(SINGLE):
                contestant.search(asked.questions[number : number + 1])
            single[name].append(_since(began) / SINGLE)
    return {
        name: {
            "build_s": contestant.build_s,
            "recall_at_20": asked.recall(contestant.search(asked.questions)),
            "batch_qps": len(asked.questions) / statistics.median(batch[name]),
            "single_ms": 1000 * statistics.median(single[name]),
        }
        for name, contestant in contestants.items()
    }


def table(shop: Shop, figures: dict[str, dict[str, float]], kind: str) -> None:
    print(f"{shop.name}: {len(shop.vectors):,} × {shop.vectors.shape[1]}, the product with codes: {kind}")
    base = figures["flat"]
    for name, each in figures.items():
        print(
            f"  {name:10} build {each['build_s']:7.2f} s  recall@20 {each['recall_at_20']:.4f}  "
            f"{each['batch_qps']:>9,.0f}/s (× {each['batch_qps'] / base['batch_qps']:.1f})  "
            f"{each['single_ms']:.3f} ms (× {base['single_ms'] / each['single_ms']:.1f})"
        )


def plot(shop: Shop, index: Nearest, other: hnswlib.Index, path: Path) -> None:
    """Recall against the time of one question: the product's lists and depths, and hnswlib's ef."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    asked = shop.asked
    lists = faiss.downcast_index(index.faiss.base_index)
    stored = index.faiss.k_factor, lists.nprobe
    figure, axes = plt.subplots(figsize=(7, 4))
    for times in (2, 3, 4, 8):
        points = []
        for share in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1):
            index.faiss.k_factor, lists.nprobe = times, max(1, round(share * lists.nlist))
            points.append(_point(asked, lambda questions: index.search(questions, RECALL_AT)[1]))
        axes.plot(*zip(*points, strict=True), marker=".", label=f"lists, {times} × k ranked again")
    index.faiss.k_factor, lists.nprobe = stored
    points = []
    for ef in EF:
        other.set_ef(ef)
        points.append(_point(asked, lambda questions: ask_hnsw(other, questions)))
    axes.plot(*zip(*points, strict=True), marker="x", color="black", label="hnswlib, M 16")
    axes.axvline(0.99, color="grey", linewidth=0.5)
    axes.set(
        yscale="log", xlabel="recall@20", ylabel="ms for one question",
        title=f"{len(shop.vectors):,} items of {shop.vectors.shape[1]} dimensions",
    )  # fmt: skip
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def _point(asked: Asked, search: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    took = []
    for _ in range(3):
        began = time.perf_counter()
        for number in range(SINGLE):
            search(asked.questions[number : number + 1])
        took.append(1000 * _since(began) / SINGLE)
    return asked.recall(search(asked.questions)), min(took)


def _since(began: float) -> float:
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data")))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    tasks = {name: load_log(name, given.data) for name in ("office", "diginetica")}
    shops = [learned(task, given.epochs) for task in tasks.values()]
    shops += [made(shops[-1], 100_000, "made_100k"), made(shops[-1], 1_000_000, "made_1m")]
    figures: dict[str, float] = {}
    peers: dict[str, dict[str, float]] = {"flat": {}, "hnswlib": {}}
    for shop in shops:
        ours, index = product(shop)
        contestants = {"product": ours, "flat": flat(shop)}
        if shop.name != "made_1m":  # hnswlib takes minutes to build it
            contestants["hnswlib"], other = hnsw(shop)
        found = measure(shop, contestants, given.rounds)
        table(shop, found, index.kind)
        prefix = "" if shop.name == "made_100k" else f"{shop.name}_"
        figures |= {f"{prefix}{key}": value for key, value in found["product"].items()}
        for name in peers.keys() & found.keys():
            peers[name] |= {f"{prefix}{key}": value for key, value in found[name].items()}
        if shop.name == "made_100k" and index.kind == "lists":
            plot(shop, index, other, bench_folder() / "recall-latency.svg")
    figures["peak_mib"] = peak_mib()
    files = [path for task in tasks.values() for path in task.files]
    write_result("index", figures, peers, files, " ".join(["python benchmarks/index.py", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
