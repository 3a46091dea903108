"""make bench-unseen: next items that had no event in training, found by a network with texts and by one without.

Both networks are the product's first form, trained alike on the same events; one has every title and query blanked.
recall@20 and MRR@20 over the whole catalogue, of test targets without an event in training and of all others. office: a
real log where an item is its title; shop: the synthetic shop, whose items also have a category and a price.
Prints a table; writes var/bench/unseen-<data>.json with the network without texts as the peer `no_text`.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from intent_platform.bench.next_item import prepare as prepare_log
from intent_platform.bench.public_logs import load_log
from intent_platform.bench.purchase import synthetic_shop
from intent_platform.bench.result import bench_settings, write_result
from intent_platform.model.candidate import prepare
from intent_platform.model.examples import Examples
from intent_platform.model.logistic import fit_logistic
from intent_platform.model.metrics import ranking_metrics
from intent_platform.model.ranking import ranks
from intent_platform.model.train import FORMS, Material, train_network
from intent_platform.settings import Settings

MOST_RANKED = 20_000  # test examples


@dataclass(frozen=True, kw_only=True, eq=False)
class Shop:
    """What is learned from and asked."""

    items: pa.Table
    material: Material
    test: Examples


def without_text(material: Material) -> Material:
    return replace(
        material,
        catalogue=replace(material.catalogue, text_vectors=np.zeros_like(material.catalogue.text_vectors)),
        events=replace(material.events, query_vectors=np.zeros_like(material.events.query_vectors)),
    )


def figures(shop: Shop, settings: Settings) -> dict[str, float]:
    """Train on the shop's material, then rank."""
    material = shop.material
    logistic = fit_logistic(material.train_features, material.train) if material.train.will_buy.any() else None
    with tempfile.TemporaryDirectory() as folder:
        network = train_network(material, Path(folder) / "run", settings, logistic, FORMS[:1])
    vectors = network.item_vectors(shop.items, material.catalogue.text_vectors)
    wanted = network.user_vectors(network.states(material, vectors, shop.test.position))
    rank = ranks(wanted, vectors, shop.test.next_item)
    is_seen = np.isin(shop.items["item_id"].to_numpy(), network.known_items)[shop.test.next_item]
    found: dict[str, float] = {}
    for name, mask in (("unseen", ~is_seen), ("seen", is_seen)):
        found[f"{name}_targets"] = int(mask.sum())
        found |= {f"{name}_{key}": metric(np.ones(mask.sum())) for key, metric in ranking_metrics(rank[mask]).items()}
    return found


def compare(name: str, shop: Shop, files: list[Path], settings: Settings, command: str) -> None:
    known = np.flatnonzero(shop.test.next_item >= 0)
    asked = np.sort(np.random.default_rng(settings.seed).permutation(known)[:MOST_RANKED])
    shop = replace(shop, test=shop.test.take(asked))
    with_text = figures(shop, settings)
    without = figures(replace(shop, material=without_text(shop.material)), settings)
    for key, value in with_text.items():
        print(f"{name:8}{key:22}{value:12.4f} with text {without[key]:12.4f} without")
    write_result(f"unseen-{name}", with_text, {"no_text": without}, files, command)


def office(data: Path, epochs: int) -> None:
    settings = bench_settings(epochs=epochs, encoder="")
    task = load_log("office", data)
    prepared = prepare_log(task, settings)
    shop = Shop(items=prepared.items, material=prepared.material, test=prepared.test)
    compare("office", shop, list(task.files), settings, f"python benchmarks/unseen.py office --epochs {epochs}")


def synthetic(users: int, days: int, epochs: int) -> None:
    with synthetic_shop(users, days, epochs) as (folder, given, settings):
        prepared = prepare(given, folder, settings)
        shop = Shop(items=prepared.items, material=prepared.material, test=prepared.examples["test"])
        command = f"python benchmarks/unseen.py shop --users {users} --days {days} --epochs {epochs}"
        compare("shop", shop, sorted((folder / "shop" / "events").iterdir()), settings, command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("office", "shop"), nargs="*", default=["office", "shop"])
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    if "office" in given.data:
        office(Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data")), given.epochs)
    if "shop" in given.data:
        synthetic(given.users, given.days, given.epochs)


if __name__ == "__main__":
    main()
