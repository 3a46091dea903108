"""intent bench purchase: purchase within the horizon on a synthetic shop of known truth, and on a real excerpt.

synthetic: the shop's files go through the product's door, sequences and training; its test prefixes are compared, row
by row, with the posterior, the best that anybody who sees the events can know. rees46: purchase in the session from the
events before its first cart or purchase, five folds by session; three hours of a real shop with few buyers.
Prints tables; writes <INTENT_HOME>/bench/purchase-<synthetic or rees46>.json.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent_platform import daily, db, keys, sequences, training
from intent_platform.bench.public_logs import refuse_pickles
from intent_platform.bench.result import bench_settings, write_result
from intent_platform.errors import FileUnreadable, IntentError, NotEnoughData
from intent_platform.lake import Lake
from intent_platform.model.audit import find_foresight
from intent_platform.model.calibration import Scored, fit_calibration
from intent_platform.model.candidate import TrainingInput, count_labels, fit
from intent_platform.model.contest import evaluate, raw_probabilities
from intent_platform.model.examples import Examples
from intent_platform.model.inputs import Inputs, catalogue_of, category_codes, positions_of, read_events
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.logistic import fit_logistic
from intent_platform.model.metrics import difference, purchase_metrics
from intent_platform.model.opponents import fit_trees
from intent_platform.model.rows import Rows
from intent_platform.model.text import TextTower, find_encoder, item_text
from intent_platform.model.train import make_material, train_network
from intent_platform.settings import Settings
from intent_platform.synthetic import write_shop

FOLDS = 5
FIRST_DAY = date(2026, 8, 1)
KEYS = {"roc_auc": "auc", "pr_auc": "pr_auc", "log_loss": "log_loss", "calibration_error": "calibration_error"}


@contextmanager
def synthetic_shop(users: int, days: int, epochs: int) -> Iterator[tuple[Path, TrainingInput, Settings]]:
    """The folder with the files and the truth of a shop that went through the door, and what a training reads of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the embedded Postgres may run as another account
        settings = replace(
            bench_settings(epochs=epochs, encoder=""),
            home=folder / "home",
            postgres_home=str(folder / "postgres"),
            events_path=str(folder / "shop" / "events" / "{day}.csv"),
        )
        write_shop(folder / "shop", first_day=FIRST_DAY, days=days, users=users, seed=7)
        keys.create_missing_keys(settings)
        with db.serve(settings) as served:
            yield folder, _through_the_door(served, folder, days), served


def _through_the_door(settings: Settings, folder: Path, days: int) -> TrainingInput:
    db.migrate(settings)
    last = FIRST_DAY + timedelta(days=days - 1)
    daily.load_catalogue(settings, source="native_catalogue", path=str(folder / "shop" / "catalogue.csv"))
    for number in range(days):
        daily.validate_events(FIRST_DAY + timedelta(days=number), settings, max_rejected_ratio=0.2)
    daily.build_sequences(last, settings)
    snapshot = Lake(settings.lake_root, settings.shop).snapshot()
    return training.training_input(snapshot, _split(days), last, settings)


def _split(days: int) -> sequences.Split:
    return sequences.split_by_time([FIRST_DAY + timedelta(days=each) for each in range(days)], Settings.horizon_hours)


def run_synthetic(users: int, days: int, epochs: int) -> None:
    split = _split(days)
    if not (split.train and split.validation and split.test):
        raise NotEnoughData(
            f"{days} days leave {len(split.train)} to learn from, {len(split.validation)} for validation and "
            f"{len(split.test)} for the test. Give more --days."
        )
    with synthetic_shop(users, days, epochs) as (folder, given, settings):
        if not count_labels(given, settings):
            raise NotEnoughData(f"No purchase of {users} users in {days} days can be learned from. Give more of them.")
        _measure(folder, given, settings, f"intent bench purchase --users {users} --days {days} --epochs {epochs}")


def _measure(folder: Path, given: TrainingInput, settings: Settings, command: str) -> None:
    split = given.split
    began = time.monotonic()
    contenders, examples = fit(given, folder / "candidate", settings)
    trained = time.monotonic() - began
    evaluation = evaluate(contenders, examples["test"], split, None, "", settings)
    test = examples["test"].take(np.flatnonzero(~examples["test"].is_day_end))
    event_ids = contenders.material.rows.table["event_id"].combine_chunks().take(pa.array(test.position))
    posterior = _posterior(folder / "shop" / "truth", split.test, event_ids)
    known = np.isfinite(posterior)
    label, user = test.will_buy[known], test.user[known]
    probability = {name: each[known] for name, each in evaluation.probability.items()} | {"posterior": posterior[known]}
    figures, ahead = _compared(probability, label, user, settings)
    way = (figures["network"]["auc"] - 0.5) / (figures["posterior"]["auc"] - 0.5)
    print(
        f"way from 0.5 to the posterior's AUC: {way:.4f}; {trained:.0f} s of training; {known.mean():.2%} of rows known"
    )
    extra = {"way_to_posterior": way, "ahead_of_trees": ahead[0], "ahead_low": ahead[1], "training_s": trained}
    write_result(
        "purchase-synthetic",
        figures["network"] | extra,
        {"posterior": figures["posterior"], "boosted_trees": figures["boosted_trees"],
         "logistic": figures["logistic_regression"]},
        sorted((folder / "shop" / "events").iterdir()),
        command,
    )  # fmt: skip
    told = {name: find_foresight(each, posterior[known], label, user, settings) for name, each in probability.items()}
    if any(told.values()):
        raise IntentError("\n".join(f"{name}: {each}" for name, found in told.items() for each in found))


def _posterior(truth: Path, days: tuple[date, ...], event_ids: pa.Array) -> np.ndarray:
    """float64, NaN where the shop's maker does not know the row."""
    table = pa.concat_tables(
        [pq.read_table(truth / f"{day}.parquet", columns=["event_id", "posterior"]) for day in days]
    )
    place = pc.index_in(event_ids.cast(pa.large_string()), value_set=table["event_id"].combine_chunks())
    return table["posterior"].combine_chunks().take(place).to_numpy(zero_copy_only=False)


def run_excerpt(data: Path, epochs: int) -> None:
    """Each fold's sessions are asked once, at their newest event before a cart or purchase.

    data: day files of REES46's form, named 2019-10-01.csv or .csv.gz: their folder, the one that holds it as rees46/,
    or one such file.
    """
    paths = _day_files(data)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        settings = replace(
            bench_settings(epochs=epochs, encoder="none"),
            home=folder / "home",
            postgres_home=str(folder / "postgres"),
        )
        keys.create_missing_keys(settings)
        with db.serve(settings) as served:
            db.migrate(served)
            for day, path in paths.items():
                daily.validate_events(day, served, source="rees46", path=str(path))
            last = max(paths)
            daily.build_sequences(last, served)
            snapshot = Lake(served.lake_root, served.shop).snapshot()
            table, items = sequences.read_history(snapshot, last, served), snapshot.read("items").sort_by("item_id")
        _cross_validate(table, items, list(paths.values()), folder, settings)


def _day_files(data: Path) -> dict[date, Path]:
    folder = data / "rees46" if (data / "rees46").is_dir() else data
    if not folder.exists():
        raise FileUnreadable(f"{data} is not there. Give a folder of day files of REES46's form, or leave --data out.")
    there = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    files = [path for path in there if path.name.endswith((".csv", ".csv.gz", ".csv.zst"))]
    refuse_pickles(files or there)
    if not files:
        raise FileUnreadable(f"{folder} holds no day file of REES46's form, such as 2019-10-01.csv. Give its folder.")
    try:
        by_day = {date.fromisoformat(path.name.partition(".")[0]): path for path in files}
    except ValueError as error:
        raise FileUnreadable(
            f"{folder}: of {len(files)} CSV files one is not named by its day ({error}). Name each as 2019-10-01.csv."
        ) from error
    if twice := [path.name for path in files if path not in by_day.values()]:
        raise FileUnreadable(f"{folder} holds a day twice: beside {', '.join(twice)} lies another. Leave one of each.")
    return by_day


def _cross_validate(table: pa.Table, items: pa.Table, paths: list[Path], folder: Path, settings: Settings) -> None:
    inputs = _inputs(table, items)
    prefixes, session = _prefixes(inputs)
    is_asked = np.append(session[1:] != session[:-1], True)
    fold = np.random.default_rng(settings.seed).permutation(session.max() + 1)[session] % FOLDS
    _check_folds(prefixes, fold, is_asked)
    predicted = {name: np.full(len(prefixes), np.nan) for name in ("network", "boosted_trees", "logistic")}
    for number in range(FOLDS):
        held = (number + 1) % FOLDS  # for stopping and calibration
        train, validation = (
            prefixes.take(np.flatnonzero((fold != number) & (fold != held))),
            prefixes.take(np.flatnonzero(fold == held)),
        )
        asked = np.flatnonzero((fold == number) & is_asked)
        material = make_material(inputs, train, validation)
        logistic = fit_logistic(material.train_features, train)
        network = train_network(material, folder / f"fold-{number}", settings, logistic)
        trees = fit_trees(material.train_features, train, material.validation_features, validation, settings)
        vectors = network.item_vectors(items, inputs.catalogue.text_vectors)
        raw = {
            part: raw_probabilities(network, trees, logistic, material, vectors, examples)
            for part, examples in (("held", validation), ("asked", prefixes.take(asked)))
        }
        for name, peer in (
            ("network", "network"),
            ("boosted_trees", "boosted_trees"),
            ("logistic", "logistic_regression"),
        ):
            held_out = Scored(probability=raw["held"][peer], label=validation.will_buy)
            curve = fit_calibration(held_out, validation.user)
            predicted[name][asked] = curve.apply(raw["asked"][peer])
    label, user = prefixes.will_buy[is_asked], prefixes.user[is_asked]
    probability = {name: each[is_asked] for name, each in predicted.items()}
    figures, ahead = _compared(probability, label, user, settings)
    write_result(
        "purchase-rees46",
        figures["network"] | {"ahead_of_trees": ahead[0], "ahead_low": ahead[1], "ahead_high": ahead[2]},
        {name: figures[name] for name in ("boosted_trees", "logistic")},
        paths,
        f"intent bench purchase --data DATA --epochs {settings.max_epochs}",
    )


def _check_folds(prefixes: Examples, fold: np.ndarray, is_asked: np.ndarray) -> None:
    """Each fold needs sessions that end in a purchase and such that do not."""
    buyers = np.bincount(fold[is_asked & prefixes.will_buy], minlength=FOLDS)
    others = np.bincount(fold[is_asked & ~prefixes.will_buy], minlength=FOLDS)
    if not (buyers.all() and others.all()):
        raise NotEnoughData(
            f"{buyers.sum()} sessions end in a purchase and {others.sum()} do not; {FOLDS} folds by chance need "
            "some of each kind in every one. Give more day files."
        )


def _inputs(table: pa.Table, items: pa.Table) -> Inputs:
    columns = (items[name].to_pylist() for name in ("title", "category", "brand"))
    texts = [item_text(*each) for each in zip(*columns, strict=True)]
    text = TextTower(encoder=find_encoder(Settings(encoder="none")), lexical=fit_lexical(sorted(set(texts))))
    rows = Rows.of(table)
    item = positions_of(items["item_id"].combine_chunks(), rows)
    events = read_events(rows, item, category_codes(items["category"].to_pylist()), text)
    return Inputs(rows=rows, events=events, catalogue=catalogue_of(items, text.vectors(texts)))


def _prefixes(inputs: Inputs) -> tuple[Examples, np.ndarray]:
    """Every event before its session's first cart or purchase, and the number of its session, in order of rows."""
    rows, item = inputs.rows, inputs.events.item
    is_start = np.ones(len(rows), bool)
    is_start[1:] = (rows.user[1:] != rows.user[:-1]) | (rows.session_at[1:] != rows.session_at[:-1])
    session = np.cumsum(is_start) - 1
    is_late = np.cumsum(rows.is_type("add_to_cart", "purchase"))
    before = is_late == (is_late - rows.is_type("add_to_cart", "purchase"))[np.flatnonzero(is_start)][session]
    bought = np.zeros(session[-1] + 1, bool)
    bought[session[rows.is_type("purchase")]] = True
    position = np.flatnonzero(before)
    following = np.minimum(position + 1, len(rows) - 1)
    has_next = (following > position) & (session[following] == session[position]) & (item[following] != item[position])
    examples = Examples(
        position=position,
        asked_at=rows.at[position],
        will_buy=bought[session[position]],
        next_item=np.where(has_next, item[following], -1),
        is_day_end=np.zeros(len(position), bool),
        user=rows.user[position],
    )
    return examples, np.unique(session[position], return_inverse=True)[1]


def _compared(
    probability: dict[str, np.ndarray], label: np.ndarray, user: np.ndarray, settings: Settings
) -> tuple[dict[str, dict[str, float]], tuple[float, float, float]]:
    """Figures of each scorer, and how far the network is ahead of the trees in AUC, with its 95 % interval; printed."""
    metrics = {name: purchase_metrics(each, label) for name, each in probability.items()}
    everyone = np.ones(len(label))
    figures = {
        name: {KEYS[key]: metric(everyone) for key, metric in each.items()} | {"prefixes": len(label)}
        for name, each in metrics.items()
    }
    for name, each in figures.items():
        print(f"{name:22}" + "".join(f"{key:>20} {value:.4f}" for key, value in each.items()))
    ahead = difference(metrics["network"]["roc_auc"], metrics["boosted_trees"]["roc_auc"], user, settings.seed)
    interval = f"95 % {ahead[1]:+.4f} … {ahead[2]:+.4f}"
    print(f"{label.sum()} buyers; network − boosted trees, AUC: {ahead[0]:+.4f} ({interval})")
    return figures, ahead
