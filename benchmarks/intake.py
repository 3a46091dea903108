"""make bench-intake: the whole door (daily.validate_events) in events/s and peak memory, at 1 M and 5 M events.

Beside it, on the same file of 1 M events: Great Expectations alone (the same row rules on a pandas frame that is typed
already, same verdicts) and a bare DuckDB read-and-write. Each measurement runs in a process of its own; the three of a
round come one after another, rounds repeat. Prints a table; writes var/bench/intake.json (see ../shared/benchmarks.md).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from intent_platform.bench.result import write_result

DAY = date(2026, 8, 21)
SMALL, LARGE = 1_000_000, 5_000_000
DIRT_RATIO = 0.005  # each of DIRT takes an equal part
CHUNK_ROWS = 250_000
THREADS = 2
TYPES = ("view", "click", "search", "add_to_cart", "remove_from_cart", "purchase", "rating")
TYPE_SHARES = (0.70, 0.08, 0.08, 0.08, 0.02, 0.03, 0.01)
ITEMS, QUERIES = 50_000, 5_000
DIRT = ("price", "user_id", "event_type", "occurred_at", "currency", "torn")


def write_events(path: Path, events: int, seed: int = 7) -> None:
    """A native CSV like a shop's: skewed items, ten events per user, 0.5 % dirt."""
    rng = np.random.default_rng(seed)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as stream:
        for start in range(0, events, CHUNK_ROWS):
            table, is_torn = _chunk(rng, start, min(CHUNK_ROWS, events - start), events // 10)
            options = pa_csv.WriteOptions(include_header=start == 0, quoting_style="none")
            sink = pa.BufferOutputStream()
            pa_csv.write_csv(table, sink, options)
            stream.write(sink.getvalue())
            stream.write(b"view,torn\n" * is_torn)
    temporary.rename(path)


def _chunk(rng: np.random.Generator, first: int, rows: int, users: int) -> tuple[pa.Table, int]:
    kind = rng.choice(len(TYPES), rows, p=TYPE_SHARES)
    item = (rng.zipf(1.3, rows) - 1) % ITEMS
    user = rng.integers(0, users, rows)
    dirt = np.where(rng.random(rows) < DIRT_RATIO, rng.integers(0, len(DIRT), rows), -1)
    is_search, is_purchase, is_rating = (kind == TYPES.index(name) for name in ("search", "purchase", "rating"))
    second = rng.integers(0, 86_400_000, rows)
    at = np.datetime64(DAY, "ms") + second.astype("timedelta64[ms]")
    at = np.where(dirt == DIRT.index("occurred_at"), np.datetime64("1999-01-01", "ms"), at)
    price = np.round(5 + (item * 7919 % 20_000) / 100, 2)
    numbers = np.arange(first, first + rows, dtype=np.uint64)
    event_id = pa.array([f"{n:016x}" for n in numbers * np.uint64(0x9E3779B97F4A7C15)])
    words = np.where(dirt == DIRT.index("event_type"), "hover", np.array(TYPES)[kind])
    null = pa.scalar(None, pa.string())

    def some(mask: np.ndarray, texts: pa.Array) -> pa.Array:
        return pc.if_else(pa.array(mask), texts, null)

    def labels(prefix: str, values: np.ndarray) -> pa.Array:
        return pc.binary_join_element_wise(prefix, pa.array(values).cast(pa.string()), "")

    prices = np.where(dirt == DIRT.index("price"), -1.0, price)
    table = pa.table(
        {
            "event_id": event_id,
            "event_type": pa.array(words),
            "occurred_at": pc.binary_join_element_wise(pc.strftime(pa.array(at), "%Y-%m-%dT%H:%M:%S"), "Z", ""),
            "user_id": some(dirt != DIRT.index("user_id"), labels("customer-", user)),
            "anonymous_id": pa.nulls(rows, pa.string()),
            "session_id": labels("s", user * 3 + second // 43_200_000),
            "item_id": some(~is_search, labels("item-", item)),
            "query_text": some(is_search, labels("running shoes size ", item % QUERIES)),
            "category": some(~is_search, labels("department.category-", item % 300)),
            "brand": some(~is_search, labels("brand-", item % 1000)),
            "price": some(~is_search, pa.array(prices).cast(pa.string())),
            "currency": pa.array(np.where(dirt == DIRT.index("currency"), "eur", "EUR")),
            "quantity": some(is_purchase, pa.array(1 + item % 3).cast(pa.string())),
            "rating": some(is_rating, pa.array(1 + item % 5).cast(pa.string())),
            "order_id": some(is_purchase, labels("o", numbers)),
            "device": pa.array(np.array(["mobile", "desktop", "tablet"])[user % 3]),
            "market": pa.array(np.array(["US", "DE", "CN"])[user % 3]),
        }
    )
    return table.filter(pa.array(dirt != DIRT.index("torn"))), int((dirt == DIRT.index("torn")).sum())


class Stopwatch:
    """Seconds by the wall, and of the processor in all threads; on a shared machine only the second says much."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._wall, "cpu_s": time.process_time() - self._processor}


def measure_door(path: Path, home: Path) -> dict:
    """The whole door: read, pseudonymise, type, judge, seal, write, expectations, merge, publish."""
    from intent_platform import daily, db
    from intent_platform.keys import create_missing_keys
    from intent_platform.settings import Settings

    settings = Settings(home=home, postgres_home=str(home.parent / "postgres"), threads=THREADS)
    create_missing_keys(settings)
    with db.serve(settings) as served, tempfile.TemporaryDirectory(dir=home) as lake:
        db.migrate(served)
        import great_expectations  # noqa: F401  (3 s of imports are no part of the door)

        watch = Stopwatch()
        report = daily.validate_events(DAY, replace(served, lake=lake), path=str(path))
        taken = watch.read()
    (account,) = report.accounts
    facts = {"rows": account.rows_read, "rejected": account.quarantined}
    return {**taken, "by_rule": account.by_rule, **facts}


def measure_great_expectations(path: Path, _: Path) -> dict:
    """The row rules as expectations on a frame that is in memory and typed; reading and writing are not timed."""
    import great_expectations as gx
    import pandas as pd

    text = pd.read_csv(path, dtype=str, on_bad_lines="skip", engine="c")
    text = text[text["event_id"].notna() & text["currency"].notna()]  # pandas pads torn rows, it does not tear them
    frame = text.assign(
        occurred_at=pd.to_datetime(text["occurred_at"], utc=True, errors="coerce"),
        owner=text["user_id"].fillna(text["anonymous_id"]),
        **{name: pd.to_numeric(text[name], errors="coerce") for name in ("price", "quantity", "rating")},
    ).reset_index(drop=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = (
        context.data_sources.add_pandas("bench")
        .add_dataframe_asset("events")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = gx.ExpectationSuite(name="rules", expectations=_expectations(gx.expectations))
    watch = Stopwatch()
    batch = batch.get_batch(batch_parameters={"dataframe": frame})
    result = batch.validate(suite, result_format={"result_format": "COMPLETE", "include_unexpected_rows": False})
    broken: set[int] = set()
    for each in result.results:
        broken.update(each.result.get("unexpected_index_list") or ())
    return {**watch.read(), "rows": len(frame), "rejected": len(broken)}


def _expectations(kinds) -> list:
    end = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(days=1)
    texts = ("event_id", "session_id", "item_id", "category", "brand", "order_id", "device", "market")
    return [
        kinds.ExpectColumnValuesToNotBeNull(column="event_type"),
        kinds.ExpectColumnValuesToBeInSet(column="event_type", value_set=[*TYPES, "refund", "impression"]),
        kinds.ExpectColumnValuesToNotBeNull(column="owner"),
        kinds.ExpectColumnValuesToNotBeNull(column="occurred_at"),
        kinds.ExpectColumnValuesToBeBetween(
            column="occurred_at", min_value=end - timedelta(days=3), max_value=end, strict_max=True
        ),
        kinds.ExpectColumnValuesToNotBeNull(
            column="item_id", row_condition="event_type not in ['search', 'refund', 'hover']", condition_parser="pandas"
        ),
        kinds.ExpectColumnValuesToNotBeNull(
            column="query_text", row_condition="event_type == 'search'", condition_parser="pandas"
        ),
        kinds.ExpectColumnValuesToBeBetween(column="price", min_value=0, max_value=10_000_000),
        kinds.ExpectColumnValuesToBeBetween(column="quantity", min_value=1, max_value=100_000),
        kinds.ExpectColumnValuesToBeBetween(column="rating", min_value=0, max_value=10),
        kinds.ExpectColumnValuesToNotBeNull(
            column="rating", row_condition="event_type == 'rating'", condition_parser="pandas"
        ),
        kinds.ExpectColumnValuesToMatchRegex(column="currency", regex="^[A-Z]{3}$"),
        *(kinds.ExpectColumnValueLengthsToBeBetween(column=name, max_value=512) for name in texts),
    ]


def measure_duckdb(path: Path, home: Path) -> dict:
    """Read the CSV as text and write it as Parquet: no rule, no key, no merge."""
    import duckdb

    engine = duckdb.connect(config={"threads": THREADS})
    target = home / "bare.parquet"
    watch = Stopwatch()
    engine.execute(
        f"COPY (FROM read_csv('{path}', all_varchar = true, ignore_errors = true)) TO '{target}' (COMPRESSION zstd)"
    )
    taken = watch.read()
    (rows,) = engine.execute(f"SELECT count(*) FROM '{target}'").fetchone() or (0,)
    return {**taken, "rows": rows, "rejected": 0}


MEASURES = {"door": measure_door, "great_expectations": measure_great_expectations, "duckdb": measure_duckdb}


def in_child(name: str, path: Path, home: Path) -> dict:
    """Run one measurement in a process of its own; adds its peak memory."""
    command = [sys.executable, __file__, "--measure", name, "--file", str(path), "--home", str(home)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{name} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        facts = MEASURES[given.measure](given.file, given.home)
        facts["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(facts))
        return
    with tempfile.TemporaryDirectory(prefix="intent-bench-") as folder:
        Path(folder).chmod(0o755)  # the embedded Postgres runs as another user
        run_all(Path(folder), given.rounds)


def run_all(folder: Path, rounds: int) -> None:
    home, small, large = folder / "home", folder / "small.csv", folder / "large.csv"
    home.mkdir()
    write_events(small, SMALL)
    write_events(large, LARGE)
    found: dict[str, list[dict]] = {name: [] for name in MEASURES}
    for _ in range(rounds):
        for name in MEASURES:
            found[name].append(in_child(name, small, home))
    at_large = in_child("door", large, home)
    check_same_verdicts(found)
    speeds = {name: [each["rows"] / each["seconds"] for each in runs] for name, runs in found.items()}
    processor = {name: statistics.median(_cpu_s_per_million(each) for each in runs) for name, runs in found.items()}
    peaks = {name: statistics.median(each["peak_mib"] for each in runs) for name, runs in found.items()}
    print_table(speeds, processor, peaks, at_large)
    middle = {name: statistics.median(each) for name, each in speeds.items()}
    figures = {
        "events_per_s": middle["door"],
        "events_per_s_low": min(speeds["door"]),
        "events_per_s_high": max(speeds["door"]),
        "events_per_s_5m": at_large["rows"] / at_large["seconds"],
        "cpu_s_per_million": processor["door"],
        "cpu_s_per_million_5m": _cpu_s_per_million(at_large),
        "peak_mib_1m": peaks["door"],
        "peak_mib_5m": at_large["peak_mib"],
    }
    peers = {
        name: {"events_per_s": middle[name], "peak_mib_1m": peaks[name], "cpu_s_per_million": processor[name]}
        for name in ("great_expectations", "duckdb")
    }
    write_result("intake", figures, peers, [small], "make bench-intake")


def check_same_verdicts(found: dict[str, list[dict]]) -> None:
    """Great Expectations sees every row but the torn ones, and must reject the same number of them."""
    door, peer = found["door"][0], found["great_expectations"][0]
    untorn = door["rejected"] - door["by_rule"].get("row_torn", 0)
    if (peer["rows"], peer["rejected"]) != (door["rows"] - door["by_rule"].get("row_torn", 0), untorn):
        sys.exit(f"Verdicts differ: the door rejects {untorn} untorn rows, Great Expectations {peer['rejected']}.")


def _cpu_s_per_million(run: dict) -> float:
    return run["cpu_s"] / run["rows"] * 1_000_000


def print_table(
    speeds: dict[str, list[float]], processor: dict[str, float], peaks: dict[str, float], at_large: dict
) -> None:
    door = statistics.median(speeds["door"])
    print(
        f"{'1 M events':22}{'median events/s':>17}{'lowest':>12}{'highest':>12}{'CPU s/M':>9}{'peak MiB':>10}"
        f"{'door is':>9}"
    )
    for name, each in speeds.items():
        ratio = door / statistics.median(each)
        print(
            f"{name:22}{statistics.median(each):17,.0f}{min(each):12,.0f}{max(each):12,.0f}"
            f"{processor[name]:9.2f}{peaks[name]:10,.0f}{ratio:8.2f}×"
        )
    speed = at_large["rows"] / at_large["seconds"]
    cpu = _cpu_s_per_million(at_large)
    print(f"{'door at 5 M, once':22}{speed:17,.0f}{'':24}{cpu:9.2f}{at_large['peak_mib']:10,.0f}")


if __name__ == "__main__":
    main()
