"""make bench-recommendations: what shoppers buy tomorrow, among what is recommended to them tonight.

A synthetic shop is trained and refreshed as of yesterday, today's purchases are the answers. `product` are the rows of
profiles.user_recommendation, but 20 of them with twice the limits; `next_item_head` the 20 available items that the
network ranks first. The interval of the difference is a bootstrap over shoppers. Then histories are told again under
other ids until there are a million rows, with a third of the catalogue sold out, written to Postgres, and judged by
sql/checks.

Prints a table; writes var/bench/recommendations.json.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from nearline import trained_shop

from intent_platform import daily, db
from intent_platform.bench.result import peak_mib, write_result
from intent_platform.index.registry import current_release
from intent_platform.index.release import Release
from intent_platform.lake import Lake
from intent_platform.model.rows import Rows
from intent_platform.paths import resource_folder
from intent_platform.profiles import ProfileRows, Stamp, upsert, write_items
from intent_platform.scoring import score
from intent_platform.sequences import read_history
from intent_platform.settings import Settings

SHOWN = 20

Lists = dict[str, list[int]]
"""user_id → positions of items in the index, best first."""


def recommended(release: Release, histories: pa.Table, at: datetime, settings: Settings) -> Lists:
    rows = score(release, histories, valid_at=at, settings=settings).recommendations
    positions = release.index.positions(rows["item_id"].combine_chunks())
    found: Lists = {}
    for user, position in zip(rows["user_id"].to_pylist(), positions.tolist(), strict=True):
        found.setdefault(user, []).append(position)
    return found


def by_head(release: Release, histories: pa.Table) -> Lists:
    """The network alone, without what is sold out."""
    rows = Rows.of(histories)
    item = np.append(release.index.positions(rows.item[1]), -1)[rows.item[0]]
    hidden = release.model.hidden(rows, rows.starts[1:] - 1, item, release.known_items)
    network = release.model.network
    assert network is not None
    assert hidden is not None
    scores = network.user_vectors(hidden) @ release.index.vectors.T
    scores[:, ~release.is_available] = -np.inf
    first = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
    return dict(zip(rows.user_ids.to_pylist(), first.tolist(), strict=True))


def bought(settings: Settings, release: Release, day: date) -> list[tuple[str, int]]:
    """(user, position) of today's purchases of known items, each once."""
    events = Lake(settings.lake_root, settings.shop).snapshot().read("sequences", [f"day={day}"])
    purchases = events.filter(pc.equal(events["event_type"], "purchase"))
    positions = release.index.positions(purchases["item_id"].combine_chunks())
    pairs = zip(purchases["user_id"].to_pylist(), positions.tolist(), strict=True)
    return sorted({(user, position) for user, position in pairs if position >= 0})


def hits(lists: Lists, answers: list[tuple[str, int]]) -> np.ndarray:
    return np.array([position in lists[user] for user, position in answers], float)


def interval(difference: np.ndarray, users: list[str]) -> tuple[float, float]:
    """95 %, shoppers resampled."""
    _, owner = np.unique(users, return_inverse=True)
    total, count = np.bincount(owner, weights=difference), np.bincount(owner)
    chance = np.random.default_rng(0)
    draws = (chance.integers(0, len(total), len(total)) for _ in range(1_000))
    means = [total[drawn].sum() / count[drawn].sum() for drawn in draws]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def variety(release: Release, lists: Lists) -> dict[str, float]:
    """coverage: share of what is for sale that somebody is shown. diversity: 1 − mean cosine of two texts of a list."""
    shown = {position for each in lists.values() for position in each}
    vectors, (category, _) = release.index.text_vectors, release.index.category
    spread, kinds = [], []
    for each in lists.values():
        likeness = vectors[each] @ vectors[each].T
        count = len(each)
        if count > 1:
            spread.append(1 - (likeness.sum() - np.trace(likeness)) / (count * (count - 1)))
        kinds.append(len(set(category[each].tolist())))
    return {
        "coverage": len(shown) / int(release.is_available.sum()),
        "diversity": float(np.mean(spread)),
        "categories_per_list": float(np.mean(kinds)),
    }


def told_again(histories: pa.Table, users: int) -> Iterator[pa.Table]:
    """The same histories under other ids, chunk by chunk, for so many users."""
    distinct = len(histories["user_id"].unique())
    for turn in range(-(-users // distinct)):
        ids = pc.binary_join_element_wise(histories["user_id"], f"{turn:06}", "-")
        yield histories.set_column(histories.column_names.index("user_id"), "user_id", ids)


def a_million_rows(settings: Settings, histories: pa.Table, at: datetime, users: int) -> dict[str, float]:
    """Refresh so many made shoppers while every third item is sold out; ask the check for rows that should not be."""
    found = current_release(settings)
    assert found is not None
    release, promotion = found
    items = Lake(settings.lake_root, settings.shop).snapshot().read("items")
    is_available = pa.array(np.arange(items.num_rows) % 3 > 0)
    items = items.set_column(items.column_names.index("is_available"), "is_available", is_available)
    updated = pa.array([at] * items.num_rows, items.schema.field("updated_at").type)
    items = items.set_column(items.column_names.index("updated_at"), "updated_at", updated)
    stamp = Stamp(
        shop=settings.shop, release_id=promotion.release_id, promotion_number=promotion.promotion_number,
        source="batch", scored_at=at, horizon_hours=settings.horizon_hours,
    )  # fmt: skip
    with db.connect(settings) as connection:
        connection.execute(sa.text("TRUNCATE profiles.user_profile CASCADE"))
        write_items(connection, items, settings.shop)
    release = release.with_catalogue(items)
    began, seconds, scored, peaks = time.perf_counter(), 0.0, 0, []
    for part in told_again(histories, users):
        started = time.perf_counter()
        scores = score(release, part, valid_at=at, settings=settings)
        seconds += time.perf_counter() - started
        scored += scores.profiles.num_rows
        with db.connect(settings) as connection:
            upsert(connection, ProfileRows.of(scores.profiles, scores.interests, scores.recommendations, stamp))
        peaks.append(peak_mib())
    check = (resource_folder("sql") / "checks" / "recommended_items_can_be_bought.sql").read_text(encoding="utf-8")
    with db.connect(settings) as connection:
        rows = connection.execute(sa.text("SELECT count(*) FROM profiles.user_recommendation")).scalar_one()
        wrong = len(connection.exec_driver_sql(check).all())
    print(f"{rows:,} rows in {time.perf_counter() - began:.0f} s; {wrong} of them can not be bought.")
    return {
        "rows": rows,
        "rows_not_available": wrong,
        "users_per_s": scored / seconds,
        "peak_mib_first": peaks[0],
        "peak_mib_last": peaks[-1],
    }


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)  # the embedded Postgres may run as another account
        yield Path(temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of recommendations that the check judges")
    given = parser.parse_args()
    today = datetime.now(UTC).date()
    with (
        _folder() as temporary,
        trained_shop(temporary, given.users, today - timedelta(days=given.days)) as settings,
    ):
        yesterday = today - timedelta(days=1)
        daily.validate_events(today, settings, max_rejected_ratio=0.2)
        daily.build_sequences(today, settings)
        found = current_release(settings)
        assert found is not None
        release, at = found[0], daily.end_of_day(yesterday, settings)
        histories = read_history(Lake(settings.lake_root, settings.shop).snapshot(), yesterday, settings)
        times = SHOWN // settings.recommendations
        wide = replace(
            settings,
            recommendations=SHOWN,
            recommendations_per_brand=times * settings.recommendations_per_brand,
            recommendations_per_category=times * settings.recommendations_per_category,
        )
        free = replace(wide, recommendations_per_brand=SHOWN, recommendations_per_category=SHOWN)
        lists = {
            "product": recommended(release, histories, at, wide),
            "without_limits": recommended(release, histories, at, free),
            "next_item_head": by_head(release, histories),
        }
        answers = [(user, item) for user, item in bought(settings, release, today) if user in lists["product"]]
        found_by = {name: hits(each, answers) for name, each in lists.items()}
        figures = {
            name: {"recall_at_20": float(found_by[name].mean()), **variety(release, each)}
            for name, each in lists.items()
        }
        low, high = interval(found_by["product"] - found_by["next_item_head"], [user for user, _ in answers])
        print(f"{len(answers):,} purchases; the items are ranked by {release.model.card.item_scorer}")
        for name, each in figures.items():
            print(f"  {name:16}" + "".join(f"{key} {value:.4f}   " for key, value in each.items()))
        print(f"  product − next_item_head: 95 % {low:+.4f} … {high:+.4f}")
        million = a_million_rows(settings, histories, at, given.rows // settings.recommendations)
    product = {**figures.pop("product"), "purchases": len(answers), "ahead_low": low, "ahead_high": high, **million}
    command = " ".join(["python benchmarks/recommendations.py", *sys.argv[1:]])
    write_result("recommendations", product, figures, [], command)


if __name__ == "__main__":
    main()
