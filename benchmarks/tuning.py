"""make bench-tuning: recall@10 of the frozen text encoder, LoRA and AdaLoRA on pairs that came after those tuned on.

office: Amazon Office, (titles of the history) → title of the next item; the first 80 % of the valid rows tune, the rest
judge. shop: 14 days of the synthetic shop, 2,000 shoppers, in English and Chinese; the training days of the split tune,
its test days judge, queries by script. Every item of the catalogue is ranked, a history's own items left out. Beside
them the lexical half of the text tower, which is never tuned. Writes var/bench/tuning-<data>.json.
"""

import argparse
import ast
import csv
import gzip
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import date, timedelta
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: as the product's own child processes have it

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from intent_platform.bench.result import write_result
from intent_platform.log import log_to_stderr
from intent_platform.model.examples import make_examples
from intent_platform.model.inputs import positions_of
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.rows import Rows
from intent_platform.model.text import find_encoder
from intent_platform.model.tuning import TITLES, Pairs, figures_of, pairs_of, tune_encoder
from intent_platform.sequences import split_by_time
from intent_platform.settings import Settings
from intent_platform.synthetic.dirt import Dirt
from intent_platform.synthetic.shop import write_shop

DATA = Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data"))
OFFICE = [DATA / "amazon_office" / "items.json.gz", DATA / "amazon_office" / "valid.csv.gz"]
FIRST_DAY, DAYS, SHOPPERS = date(2026, 8, 1), 14, 2_000
METHODS = ("lora", "adalora")


def office_pairs() -> Pairs:
    """One pair per valid row whose item is not in its history, in the file's order."""
    with gzip.open(OFFICE[0], "rt", encoding="utf-8") as stream:
        items = json.load(stream)
    texts = [items[str(number)]["title"] for number in range(len(items))]
    with gzip.open(OFFICE[1], "rt", encoding="utf-8", newline="") as stream:
        rows = [(ast.literal_eval(row["history_item_id"]), int(row["item_id"])) for row in csv.DictReader(stream)]
    rows = [(tuple(dict.fromkeys(history[::-1])), item) for history, item in rows if item not in history]
    return Pairs(
        asked=[". ".join(texts[each] for each in history[:TITLES]) for history, _ in rows],
        item=np.array([item for _, item in rows]),
        own=[history for history, _ in rows],
        is_query=np.zeros(len(rows), bool),
        texts=texts,
        category=np.full(len(texts), -1),
    )


def shop_pairs(folder: Path, settings: Settings) -> tuple[Pairs, Pairs]:
    """Pairs of the training days, and of the test days: the rows are the shop's clean events, sessions its own."""
    clean = Dirt(**{each.name: 0 for each in fields(Dirt)})
    write_shop(folder, first_day=FIRST_DAY, days=DAYS, users=SHOPPERS, seed=settings.seed, dirt=clean)
    items = pa_csv.read_csv(folder / "catalogue.csv").sort_by("item_id")
    rows = Rows.of(_sequences(folder))
    item = positions_of(items["item_id"].combine_chunks().cast(pa.string()), rows)
    category = items["category"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    split = split_by_time([FIRST_DAY + timedelta(days=each) for each in range(DAYS)], settings.horizon_hours)
    examples = make_examples(rows, item, split, settings)
    texts = items["title"].to_pylist()
    return tuple(pairs_of(rows, item, examples[part], texts, category) for part in ("train", "test"))


def _sequences(folder: Path) -> pa.Table:
    return duckdb.sql(
        f"""
        SELECT coalesce(user_id, anonymous_id) AS user_id, event_id, event_type,
               occurred_at::TIMESTAMPTZ AS occurred_at,
               min(occurred_at::TIMESTAMPTZ) OVER (PARTITION BY coalesce(user_id, anonymous_id), session_id)
                   AS session_started_at,
               item_id, query_text, category, brand, price::DOUBLE AS price, currency, quantity::INT AS quantity,
               order_id
        FROM read_csv('{folder}/events/*.csv', all_varchar = true) ORDER BY user_id, occurred_at, event_id
        """
    ).to_arrow_table()


def judge(embed: Callable[[list[str]], np.ndarray], pairs: Pairs) -> dict[str, float]:
    """Figures over the whole catalogue; those of Chinese queries apart."""
    everything = np.arange(len(pairs.texts))
    is_chinese = np.array([bool(re.search("[一-鿿]", asked)) for asked in pairs.asked])
    found = figures_of(embed, pairs.take(np.flatnonzero(~pairs.is_query)), everything)
    for name, mask in (("english", ~is_chinese), ("chinese", is_chinese)):
        which = np.flatnonzero(pairs.is_query & mask)
        if len(which):
            found |= {f"{name}_{key}": value for key, value in figures_of(embed, pairs.take(which), everything).items()}
    return found


def compare(name: str, train: Pairs, test: Pairs, data: list[Path], settings: Settings) -> None:
    frozen = find_encoder(settings)
    lexical = fit_lexical(sorted(set(test.texts)), seed=settings.seed)
    found = {
        "lexical": judge(lambda texts: lexical.sparse(texts).toarray(), test),
        "frozen": judge(frozen.transformer.embed, test),
    }
    for method in METHODS:
        chosen = replace(settings, encoder_tuning=method)
        started = time.perf_counter()
        encoder = tune_encoder(train, frozen, chosen, settings.home / method)
        seconds = time.perf_counter() - started
        report = json.loads((settings.home / method / "tuning.json").read_text(encoding="utf-8"))
        facts = {"is_kept": float(report["is_kept"]), "best_step": float(report["best_step"]), "seconds": seconds}
        found[method] = judge(encoder.transformer.embed, test) | facts
    sizes = {"pairs": len(train), "test_pairs": len(test), "items": len(test.texts)}
    for contender, figures in found.items():
        print(f"{contender:8}", *(f"{key} {value:.4f} " for key, value in figures.items()))
    peers = {contender: found[contender] for contender in ("frozen", "lexical")}
    figures = {f"{method}_{key}": value for method in METHODS for key, value in found[method].items()} | sizes
    write_result(f"tuning-{name}", figures, peers, data, f"make bench-tuning ONLY={name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="?", choices=("office", "shop"))
    parser.add_argument("--steps", type=int, default=Settings.encoder_tuning_steps)
    given = parser.parse_args()
    log_to_stderr(logging.INFO)
    for name in (given.only,) if given.only else ("office", "shop"):
        with tempfile.TemporaryDirectory(prefix="intent-bench-") as home:
            settings = Settings(home=Path(home), device="cpu", encoder_tuning_steps=given.steps)
            if name == "office":
                pairs = office_pairs()
                old = int(len(pairs) * 0.8)
                train, test = pairs.take(np.arange(old)), pairs.take(np.arange(old, len(pairs)))
                compare(name, train, test, OFFICE, settings)
            else:
                train, test = shop_pairs(Path(home) / "shop", settings)
                files = [Path(home) / "shop" / "catalogue.csv", *sorted((Path(home) / "shop" / "events").iterdir())]
                compare(name, train, test, files, settings)


if __name__ == "__main__":
    main()
