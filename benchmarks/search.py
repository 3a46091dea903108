"""make bench-search: text search of the product beside its parts, on real titles and on Chinese ones.

office: queries are made from titles of the Amazon Office catalogue: words dropped, and what is left put in another
order, misspelt (one letter left out, changed, doubled or swapped in a third of the words), or both. A hit is the
title's own item among the first ten. chinese: the searches of the synthetic shop in Chinese; since many items answer
such a query, a hit is each of the first ten that is of the category that is looked for.

Contenders: hybrid (`relevance`, to which `intent search` adds price, categories and interests), encoder alone, word
TF-IDF and letter TF-IDF alone. Prints tables; writes var/bench/search.json.
"""

import argparse
import gzip
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfVectorizer

from intent_platform.bench.result import write_result
from intent_platform.events.contract import ITEM_SCHEMA
from intent_platform.index.build import build_index
from intent_platform.index.demand import Demand
from intent_platform.index.item_index import load_index
from intent_platform.index.registry import bootstrap_model
from intent_platform.index.release import Manifest, Release
from intent_platform.index.search import relevance
from intent_platform.lake import Lake
from intent_platform.model import parts
from intent_platform.model.text import text_key
from intent_platform.settings import Settings
from intent_platform.synthetic.catalogue import LANGUAGES, QUERY_FORMS, make_catalogue
from intent_platform.synthetic.words import MODIFIER_WORDS

FIRST = 10
SPOILT = {"dropped": "d", "dropped_reordered": "do", "dropped_misspelt": "dm", "dropped_misspelt_reordered": "dmo"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Scorer = Callable[[list[str]], np.ndarray]
"""Queries → (queries, items), larger is better."""


def release_of(items: pa.Table, folder: Path) -> Release:
    """A bootstrap release over a catalogue, as a new shop has it."""
    settings = Settings(home=folder / "home")
    lake = Lake(settings.lake_root, settings.shop)
    lake.publish({("items", "all"): [lake.write("items", "all", items)]}, based_on=lake.snapshot())
    model = bootstrap_model(lake, lake.snapshot(), settings, "no_model_trained_yet")
    build_index(model, items, Demand(), settings, folder / "index")
    index = load_index(lake.path(""), parts.publish_part(lake.path(""), "index", folder / "index"), settings)
    manifest = Manifest(shop=settings.shop, release_id="bootstrap", model=model.digest, index=index.digest)
    return Release(manifest=manifest, model=model, index=index, is_available=np.ones(len(index), bool))


def scorers(release: Release) -> dict[str, Scorer]:
    titles = release.index.title.tolist()
    encoder = release.model.text.encoder
    vectors = encoder.encode([text_key(title) for title in titles])
    words = TfidfVectorizer(sublinear_tf=True)
    letters = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(1, 4))
    by_word, by_letter = words.fit_transform(titles), letters.fit_transform(titles)
    return {
        "hybrid": lambda queries: relevance(release, queries),
        "encoder": lambda queries: encoder.encode(queries) @ vectors.T,
        "tfidf": lambda queries: (words.transform(queries) @ by_word.T).toarray(),
        "letter_tfidf": lambda queries: (letters.transform(queries) @ by_letter.T).toarray(),
    }


def spoilt(title: str, how: str, chance: np.random.Generator) -> str:
    """A query made from a title: d drops words, m misspells, o changes the order."""
    words = re.findall(r"[\w.\-]+", title)
    if "d" in how:
        kept = max(2, min(len(words), int(chance.integers(2, 6))))
        words = [words[each] for each in np.sort(chance.permutation(len(words))[:kept])]
    if "m" in how:
        for _ in range(max(1, len(words) // 3)):
            place = int(chance.integers(len(words)))
            words[place] = misspelt(words[place], chance)
    if "o" in how:
        words = [words[each] for each in chance.permutation(len(words))]
    return text_key(" ".join(words))


def misspelt(word: str, chance: np.random.Generator) -> str:
    if len(word) < 4:
        return word
    at, letter = int(chance.integers(1, len(word) - 1)), LETTERS[chance.integers(len(LETTERS))]
    before, one, after = word[:at], word[at], word[at + 1 :]
    forms = (before + after, before + letter + after, before + one + one + after, before + after[0] + one + after[1:])
    return forms[chance.integers(len(forms))]


def own_item_found(scores: np.ndarray, wanted: np.ndarray) -> float:
    """Share of queries whose item is among the first ten; equals count before it."""
    own = scores[np.arange(len(wanted)), wanted]
    return float(((scores >= own[:, None]).sum(axis=1) <= FIRST).mean())


def of_category(scores: np.ndarray, wanted: np.ndarray, category: np.ndarray) -> float:
    """Share of the first ten that are of the wanted category."""
    first = np.argsort(-scores, axis=1, kind="stable")[:, :FIRST]
    return float((category[first] == wanted[:, None]).mean())


def office(folder: Path, count: int, temporary: Path) -> dict[str, dict[str, float]]:
    with gzip.open(folder / "items.json.gz", "rt", encoding="utf-8") as stream:
        stored = json.load(stream)
    items = _items([stored[str(number)]["title"] for number in range(len(stored))])
    release = release_of(items, temporary / "office")
    titles = release.index.title
    chance = np.random.default_rng(3)
    found: dict[str, dict[str, float]] = {}
    contenders = scorers(release)
    for kind, how in SPOILT.items():
        wanted = chance.integers(0, len(titles), count)
        queries = [spoilt(str(titles[each]), how, chance) for each in wanted]
        for name, scorer in contenders.items():
            found.setdefault(name, {})[f"hit_at_10_{kind}"] = own_item_found(scorer(queries), wanted)
    for each in found.values():
        each["hit_at_10"] = float(np.mean(list(each.values())))
    return found


def chinese(count: int, temporary: Path) -> dict[str, dict[str, float]]:
    catalogue = make_catalogue(
        seed=7, items=2_000, first_day=date(2026, 8, 1), days=14, currency="EUR", chinese_ratio=0.45
    )
    rows = catalogue.table.to_pylist()
    items = _items([row["title"] for row in rows], [row["category"] for row in rows])
    release = release_of(items, temporary / "chinese")
    chance = np.random.default_rng(3)
    number = chance.integers(0, len(rows), count)
    language = np.full(count, LANGUAGES.index("zh"))
    form, modifier = chance.integers(0, QUERY_FORMS, count), chance.integers(0, len(MODIFIER_WORDS), count)
    queries = [text_key(catalogue.queries[each]) for each in catalogue.query_number(number, language, form, modifier)]
    codes, names = release.index.category
    wanted = np.array([names.index(rows[each]["category"]) for each in number])
    return {
        name: {"category_precision_at_10_chinese": of_category(scorer(queries), wanted, codes)}
        for name, scorer in scorers(release).items()
    }


def _items(titles: list[str], categories: list[str] | None = None) -> pa.Table:
    count = len(titles)
    columns = {
        "item_id": [f"{number:08}" for number in range(count)],
        "title": titles,
        "category": categories or [None] * count,
        "is_available": [True] * count,
        "is_stub": [False] * count,
        "updated_at": [datetime(2026, 8, 1, tzinfo=UTC)] * count,
    }
    return pa.table(
        {field.name: pa.array(columns.get(field.name, [None] * count), field.type) for field in ITEM_SCHEMA},
        schema=ITEM_SCHEMA,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data")))
    parser.add_argument("--queries", type=int, default=2_000, help="of each kind")
    given = parser.parse_args()
    folder = given.data / "amazon_office"
    if not folder.is_dir():
        sys.exit(f"{folder} is not there; set INTENT_BENCH_DATA, or give --data.")
    with tempfile.TemporaryDirectory() as temporary:
        found = office(folder, given.queries, Path(temporary))
        for name, figures in chinese(given.queries, Path(temporary)).items():
            found[name] |= figures
    for key in found["hybrid"]:
        print(f"{key:42}" + "".join(f"{name:>14} {each[key]:.3f}" for name, each in found.items()))
    command = " ".join(["python benchmarks/search.py", *sys.argv[1:]])
    write_result("search", found.pop("hybrid"), found, [folder / "items.json.gz"], command)


if __name__ == "__main__":
    main()
