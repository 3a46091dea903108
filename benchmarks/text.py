"""make bench-text: texts/s of the product's encoder beside a plain loop over the same weights, and how alike they are.

The peer `fp32` is what a straightforward script does with transformers: float32, 64 texts a batch in the order they
come, padded to the longest. Texts: titles of the Amazon Office catalogue and customer questions of Banking77, mixed.
Both sides encode all texts in each round, one after the other, in one process with the same threads; loading is not
timed, tokenising is. Prints a table; writes var/bench/text.json (see ../shared/benchmarks.md).
"""

import argparse
import csv
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: as the product's own child processes have it

import numpy as np
import torch

from intent_platform.bench.result import write_result
from intent_platform.model import encoding
from intent_platform.model.text import Encoder, find_encoder
from intent_platform.settings import Settings

DATA = Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data"))
FILES = [DATA / "amazon_office" / "items.json.gz", DATA / "banking77" / "train.csv"]
PEER_BATCH = 64


def read_texts(count: int, seed: int = 7) -> list[str]:
    """Distinct titles and as many questions, in random order."""
    with gzip.open(FILES[0], "rt", encoding="utf-8") as stream:
        titles = sorted({item["title"] for item in json.load(stream).values() if item["title"]})
    with FILES[1].open(encoding="utf-8", newline="") as stream:
        questions = sorted({row["text"] for row in csv.DictReader(stream)})
    chance = np.random.default_rng(seed)
    half = min(count // 2, len(titles), len(questions))
    texts = [each[place] for each in (titles, questions) for place in chance.permutation(len(each))[:half]]
    return [texts[place] for place in chance.permutation(len(texts))]


def plain(transformer: encoding.Transformer, texts: list[str]) -> np.ndarray:
    """The peer."""
    found = []
    for start in range(0, len(texts), PEER_BATCH):
        batch = transformer.tokenizer(
            texts[start : start + PEER_BATCH],
            padding=True,
            truncation=True,
            max_length=encoding.MAX_TOKENS,
            return_tensors="pt",
        ).to(transformer.device)
        with torch.inference_mode():
            tokens = transformer.network(**batch).last_hidden_state
        found.append(encoding.mean_of_tokens(tokens, batch["attention_mask"]).cpu().numpy())
    return np.concatenate(found)


def seconds_of(embed: Callable[[list[str]], np.ndarray], texts: list[str]) -> float:
    started = time.perf_counter()
    embed(texts)
    return time.perf_counter() - started


def repeat(encoder: Encoder, texts: list[str], home: Path) -> float:
    """Seconds of a second run with a warm cache; ends the benchmark if it needs the network."""
    find_encoder(Settings(home=home, device=encoder.device)).encode(texts)
    again = replace(encoder, cache=home / "text_cache", known={}, read_files=set())
    seconds = seconds_of(again.encode, texts)
    if "transformer" in again.__dict__:
        sys.exit("The repeated run loaded the network: something was encoded twice.")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=2_000)
    given = parser.parse_args()
    texts = read_texts(given.texts)
    with tempfile.TemporaryDirectory(prefix="intent-bench-") as home:
        encoder = find_encoder(Settings(home=Path(home), device="cpu"))
        peer = encoder.load()
        sides = {"fp32": lambda each: plain(peer, each), "ours": encoder.transformer.embed}
        cosine = np.sum(sides["fp32"](texts) * sides["ours"](texts), axis=1)  # also warms both up
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(given.rounds):
            for name, embed in sides.items():
                speeds[name].append(len(texts) / seconds_of(embed, texts))
        repeated = repeat(encoder, texts, Path(home))
    print_table(speeds, encoder.precision, cosine, repeated)
    middle = {name: statistics.median(each) for name, each in speeds.items()}
    figures = {
        "texts_per_s": middle["ours"],
        "texts_per_s_low": min(speeds["ours"]),
        "texts_per_s_high": max(speeds["ours"]),
        "cosine": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
        "repeat_texts_per_s": len(texts) / repeated,
        "texts": len(texts),
    }
    low, high = min(speeds["fp32"]), max(speeds["fp32"])
    peers = {
        "fp32": {"texts_per_s": middle["fp32"], "texts_per_s_low": low, "texts_per_s_high": high, "cosine": 1.0},
    }
    write_result("text", figures, peers, FILES, "make bench-text")


def print_table(speeds: dict[str, list[float]], precision: str, cosine: np.ndarray, repeated: float) -> None:
    peer = statistics.median(speeds["fp32"])
    print(f"{'':16}{'median texts/s':>16}{'lowest':>10}{'highest':>10}{'ratio':>8}")
    for name, each in speeds.items():
        middle = statistics.median(each)
        label = f"ours, {precision}" if name == "ours" else "plain fp32"
        print(f"{label:16}{middle:16,.0f}{min(each):10,.0f}{max(each):10,.0f}{middle / peer:7.2f}×")
    print(f"cosine to plain fp32: least {cosine.min():.5f}, mean {cosine.mean():.6f}")
    print(f"repeated, from the cache: {len(cosine) / repeated:,.0f} texts/s, none encoded")


if __name__ == "__main__":
    main()
