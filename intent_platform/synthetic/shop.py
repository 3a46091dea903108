"""Write a whole shop to a folder: shoppers in blocks, files day by day, so that memory stays flat."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from intent_platform.errors import SettingInvalid
from intent_platform.synthetic.catalogue import FEWEST_PER_LEAF, Catalogue, make_catalogue
from intent_platform.synthetic.chance import Bools
from intent_platform.synthetic.clock import DAY_MS, most_ticks_within
from intent_platform.synthetic.contract import Renderer, as_field, make_identities
from intent_platform.synthetic.dirt import Dirt
from intent_platform.synthetic.files import DailyFiles, Shard
from intent_platform.synthetic.law import BUY, LAW_VERSION, make_law
from intent_platform.synthetic.shoppers import Rows, World, make_world, simulate
from intent_platform.synthetic.words import DEPARTMENTS

_USERS_PER_BLOCK = 4096
_LEAVES = sum(len(department.leaves) for department in DEPARTMENTS)
_AUC_BINS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ShopSummary:
    """What was written; counts are of clean events unless named otherwise."""

    events: int
    rows_written: int  # data rows in the daily files, dirt included
    shoppers: int  # with at least one event
    items: int
    orders: int
    will_buy_ratio: float  # share of events followed by a purchase within the horizon
    posterior_auc: float  # of the truth's posterior, on these events: the ceiling; to about 1e-4
    days: int


def write_shop(
    out: Path,
    *,
    first_day: date,
    days: int,
    users: int,
    seed: int,
    items: int | None = None,
    chinese_ratio: float = 0.45,
    currency: str = "EUR",
    median_days_away: float = 0.8,
    horizon_hours: int = 24,
    dirt: Dirt | None = None,
) -> ShopSummary:
    """Write events/, truth/, catalogue.csv, dirt.json and, last, shop.json into `out`, which must be empty or absent.

    The same arguments give the same bytes. `items` defaults to 600 … 2000, growing with users. median_days_away sets
    how often shoppers come back, and with it the number of events: at 0.8, about 8 a day for each shopper. A folder
    without shop.json is an unfinished shop.
    """
    items = items if items is not None else int(np.clip(users // 4, 600, 2000))
    _check(out, days=days, users=users, items=items, horizon_hours=horizon_hours)
    catalogue = make_catalogue(
        seed=seed, items=items, first_day=first_day, days=days, currency=currency, chinese_ratio=chinese_ratio
    )
    law = make_law(median_days_away)
    most_ticks = most_ticks_within(horizon_hours)
    world = make_world(law, catalogue, days=days, horizon_hours=horizon_hours, most_ticks=most_ticks)
    for folder in ("events", "truth", ".shards"):
        (out / folder).mkdir(parents=True)
    _write_catalogue(out / "catalogue.csv", catalogue)
    _write_shards(out / ".shards", world, users, seed)
    renderer = Renderer(catalogue, make_identities(users, seed), first_day, seed)
    tally = _Tally(users)
    files = DailyFiles(out, renderer, dirt or Dirt(), first_day=first_day, days=days, seed=seed)
    for day in range(days):
        shard = _read_shard(out / ".shards" / f"{day}.arrow")
        tally.add(shard)
        files.write(day, shard)
    shutil.rmtree(out / ".shards")
    _write_json(out / "dirt.json", files.counts)
    summary = tally.summary(
        items=items, rows_written=sum(day["rows_written"] for day in files.counts.values()), days=days
    )
    parameters = {
        "first_day": first_day.isoformat(),
        "days": days,
        "users": users,
        "seed": seed,
        "items": items,
        "chinese_ratio": chinese_ratio,
        "currency": currency,
        "median_days_away": median_days_away,
        "horizon_hours": horizon_hours,
        "dirt": asdict(dirt or Dirt()),
    }
    _write_json(out / "shop.json", {"law_version": LAW_VERSION, "parameters": parameters, "summary": asdict(summary)})
    return summary


def _check(out: Path, *, days: int, users: int, items: int, horizon_hours: int) -> None:
    for name, value, least in (
        ("days", days, 1),
        ("users", users, 1),
        ("items", items, _LEAVES * FEWEST_PER_LEAF),
        ("horizon_hours", horizon_hours, 1),
    ):
        if value < least:
            raise SettingInvalid(f"{name} is {value}; the invented shop needs at least {least}.")
    if out.exists() and any(out.iterdir()):
        raise SettingInvalid(f"{out} is not empty; give a new folder for the invented shop, or empty this one.")


def _write_catalogue(path: Path, catalogue: Catalogue) -> None:
    table = catalogue.table
    fields_ = [[as_field(value) for value in table[name].to_pylist()] for name in table.column_names]
    rows = [",".join(table.column_names), *(",".join(row) for row in zip(*fields_, strict=True))]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")


_SHARD = pa.schema(
    [
        (each.name, pa.float64() if each.name == "posterior" else pa.bool_() if each.name == "is_click" else pa.int64())
        for each in fields(Rows)
    ]
    + [("will_buy", pa.bool_())]
)


def _write_shards(folder: Path, world: World, users: int, seed: int) -> None:
    """Simulate block by block, and append each block's rows to the shard of the day they occurred on."""
    shards = [pa.ipc.new_file(folder / f"{day}.arrow", _SHARD) for day in range(world.days)]
    for start in range(0, users, _USERS_PER_BLOCK):
        rows = simulate(world, range(start, min(start + _USERS_PER_BLOCK, users)), seed)
        bought = will_buy(rows, world.horizon_hours)
        columns = {each.name: getattr(rows, each.name) for each in fields(Rows)} | {"will_buy": bought}
        day = rows.wall_ms // DAY_MS
        by_day = np.argsort(day, kind="stable")
        bounds = np.searchsorted(day[by_day], np.arange(world.days + 1))
        for shard, low, high in zip(shards, bounds[:-1], bounds[1:], strict=True):
            chosen = by_day[low:high]
            shard.write_batch(pa.record_batch([columns[name][chosen] for name in _SHARD.names], schema=_SHARD))
    for shard in shards:
        shard.close()


def will_buy(rows: Rows, horizon_hours: int) -> Bools:
    """Say of each row whether its shopper buys, strictly later and in another order, within the horizon."""
    span = int(rows.wall_ms.max()) + 1 + horizon_hours * 3_600_000
    at = (rows.user - rows.user.min()) * span + rows.wall_ms
    purchases = np.append(np.sort(at[rows.action == BUY]), np.iinfo(np.int64).max)
    following = purchases[np.searchsorted(purchases, at, side="right")]
    return following - at <= horizon_hours * 3_600_000


def _read_shard(path: Path) -> Shard:
    """Return a day's rows in order of time; the rows of one order stay together, as written."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    order = np.lexsort((table["slot"].to_numpy(), table["user"].to_numpy(), table["wall_ms"].to_numpy()))
    return {name: table[name].to_numpy()[order] for name in table.column_names}


class _Tally:
    """Counts for the summary, in memory that does not grow with the events."""

    def __init__(self, users: int) -> None:
        self._is_seen = np.zeros(users, dtype=bool)
        self._orders = 0
        self._by_posterior = np.zeros((2, _AUC_BINS), dtype=np.int64)  # will_buy, bin

    def add(self, shard: Shard) -> None:
        self._is_seen[shard["user"]] = True
        self._orders += int(((shard["action"] == BUY) & (shard["slot"] == 0)).sum())
        bins = np.minimum((shard["posterior"] * _AUC_BINS).astype(int), _AUC_BINS - 1)
        for label in (0, 1):
            self._by_posterior[label] += np.bincount(bins[shard["will_buy"] == label], minlength=_AUC_BINS)

    def summary(self, *, items: int, rows_written: int, days: int) -> ShopSummary:
        stays, buys = self._by_posterior
        events = int(stays.sum() + buys.sum())
        ahead = float(buys @ (np.cumsum(stays) - stays / 2))  # pairs in the right order, ties half
        pairs = float(stays.sum()) * float(buys.sum())
        return ShopSummary(
            events=events,
            rows_written=rows_written,
            shoppers=int(self._is_seen.sum()),
            items=items,
            orders=self._orders,
            will_buy_ratio=float(buys.sum()) / events if events else 0.0,
            posterior_auc=ahead / pairs if pairs else 0.5,
            days=days,
        )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
