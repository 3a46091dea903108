"""make bench-parity: a day of a large shop through 1, 2 and 4 scorers, beside the batch's profiles of the same events.

A small synthetic shop is trained; then it grows: other shoppers and a new catalogue, which the model indexes, for four
days by file. Everyone is told as of the last midnight. The fifth day's events wait in the inbox, shuffled and some
twice, and real scorer processes drain them; the batch takes the same events by file into a lake of its own. Every
profile must be equal: numbers within the product's tolerance, the rest exactly. Among the shoppers are some with
thousands of events, devices that become known, change their user, or were known long ago, and late events. Prints a
table; writes var/bench/parity.json; ends with an error when anything differs.
"""

import argparse
import csv
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import sqlalchemy as sa
import torch
from nearline import trained_shop
from refresh import copied

from intent_platform import daily, db, sequences, training
from intent_platform.bench.result import write_result
from intent_platform.inbox.seeding import seed_if_new
from intent_platform.lake import Lake, Snapshot
from intent_platform.model.examples import day_end
from intent_platform.nearline import Scorer
from intent_platform.parity import BATCH, TOLERANCE, score_by_batch
from intent_platform.serving import Serving
from intent_platform.settings import Settings
from intent_platform.synthetic import Dirt, write_shop

TODAY = date(2026, 8, 21)
YESTERDAY = TODAY - timedelta(days=1)
GROWN_DAYS = [TODAY - timedelta(days=ago) for ago in range(4, -1, -1)]
TRAINED_DAYS = 10
HISTORY_DAYS = 10  # fewer than there are, so that windows have an end to get right
SEED = 4103  # a shopper's number and the seed make event ids: none of the trained shop's comes again
PUT_BY_NOBODY = Dirt(torn_ratio=0, broken_encoding_ratio=0)  # lines that are no rows, so not for a table
HEAVY_USERS = 8
HAND_MADE_DEVICES = 200
REPEATED_RATIO = 0.05
USERS_AT_ONCE = 5_000

COUNTS_DIFFERING = """
SELECT count(*)
FROM (SELECT * FROM profiles.user_profile WHERE shop = :nearline) AS nearline
FULL JOIN (SELECT * FROM profiles.user_profile WHERE shop = :batch) AS batch ON nearline.user_id = batch.user_id
WHERE (
    nearline.events_1d, nearline.events_7d, nearline.events_30d, nearline.views_7d, nearline.searches_7d,
    nearline.add_to_carts_7d, nearline.purchases_30d
) IS DISTINCT FROM (
    batch.events_1d, batch.events_7d, batch.events_30d, batch.views_7d, batch.searches_7d,
    batch.add_to_carts_7d, batch.purchases_30d
)
"""

TOLD = "SELECT * FROM profiles.user_profile WHERE user_id = any(:user_ids) ORDER BY user_id, shop"

TOLD_LATER = """
SELECT nearline.user_id
FROM profiles.user_profile AS nearline
INNER JOIN profiles.user_profile AS batch ON nearline.user_id = batch.user_id
WHERE nearline.shop = :nearline AND batch.shop = :batch AND nearline.valid_at > batch.valid_at
"""

Row = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the batch made of the day's file; its profiles are those of the shop BATCH."""

    serving: Serving
    snapshot: Snapshot  # of the batch's lake
    users: int
    users_today: int  # with an event that happened today
    accepted: int
    heaviest: int  # most events of one shopper in the history_days


def grow(settings: Settings, folder: Path, given: argparse.Namespace) -> Settings:
    """The trained shop on the eve of today, with so many shoppers more; returns settings of the grown one."""
    settings = replace(settings, history_days=HISTORY_DAYS)
    write_shop(
        folder / "grown", first_day=GROWN_DAYS[0], days=len(GROWN_DAYS), users=given.users, seed=SEED, items=2_000,
        median_days_away=given.days_away, dirt=PUT_BY_NOBODY,
    )  # fmt: skip
    known_devices = _linked_devices(folder / "shop")
    for day in GROWN_DAYS:
        _add_by_hand(file_of(folder, day), day, given.heavy_events, known_devices)
    daily.load_catalogue(settings, source="native_catalogue", path=str(folder / "grown" / "catalogue.csv"))
    for day in GROWN_DAYS[:-1]:
        daily.validate_events(day, settings, path=str(file_of(folder, day)), max_rejected_ratio=0.2)
    daily.build_sequences(YESTERDAY, settings)
    training.rebuild_index(settings)
    daily.refresh_profiles(YESTERDAY, settings)
    with db.connect(settings) as connection:  # of the trained shop's, whom no refresh tells any more
        leaving = "DELETE FROM profiles.user_profile WHERE valid_at < :midnight"
        connection.execute(sa.text(leaving), {"midnight": daily.end_of_day(YESTERDAY, settings)})
    seed_if_new(settings)
    return settings


def file_of(folder: Path, day: date) -> Path:
    return folder / "grown" / "events" / f"{day}.csv"


def _linked_devices(folder: Path) -> list[str]:
    """Devices that the trained shop's log linked to a user, in order of the first such event."""
    found: dict[str, None] = {}
    for path in sorted((folder / "events").iterdir()):
        with path.open(encoding="utf-8", errors="ignore", newline="") as stream:
            for row in csv.DictReader(stream):
                if row["user_id"] and row["anonymous_id"]:
                    found[row["anonymous_id"]] = None
    return list(found)


def _add_by_hand(path: Path, day: date, heavy_events: int, known_devices: list[str]) -> None:
    """Append copies of the file's rows under the ids of heavy shoppers and of devices with a story."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["event_type"] in ("view", "search", "add_to_cart")]
    chance = np.random.default_rng(day.toordinal())
    made = [
        *_heavy(day, heavy_events if day == TODAY else heavy_events // 5, chance),
        *_devices(day),
        *_returning(day, known_devices),
    ]
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        for number, ids in enumerate(made):
            like = rows[int(chance.integers(len(rows)))]
            writer.writerow(like | {"event_id": f"by-hand-{day}-{number}", "user_id": "", "anonymous_id": ""} | ids)


def _heavy(day: date, events_each: int, chance: np.random.Generator) -> Iterator[Row]:
    """Customers of the trained shop, too: their windows reach back beyond a week and the history_days."""
    for user in range(HEAVY_USERS):
        for second in chance.integers(24 * 3600, size=events_each):
            yield {"user_id": f"customer-{user:06d}", "occurred_at": _at(day, int(second))}


def _devices(day: date) -> Iterator[Row]:
    """Each is seen every hour, logs in at noon of one of the days, and every third belongs to another from 18 h on;
    every twentieth logs in again each night."""
    for number in range(HAND_MADE_DEVICES):
        device = f"by-hand-{number}"
        for hour in range(24):
            yield {"anonymous_id": device, "occurred_at": _at(day, 3600 * hour + number)}
        if number % 20 == 0:  # so the late link below lies within a run of these
            yield {"anonymous_id": device, "user_id": f"login-{number}", "occurred_at": _at(day, 3600 * 22)}
        if GROWN_DAYS[number % len(GROWN_DAYS)] == day:
            yield {"anonymous_id": device, "user_id": f"login-{number}", "occurred_at": _at(day, 3600 * 12)}
            if number % 3 == 0:
                yield {"anonymous_id": device, "user_id": f"heir-{number}", "occurred_at": _at(day, 3600 * 18)}
        if day == TODAY and number % 10 == 0:
            yield {"anonymous_id": device, "user_id": f"late-{number}", "occurred_at": _at(YESTERDAY, 3600 * 20)}


def _returning(day: date, known_devices: list[str]) -> Iterator[Row]:
    """Today only: those whose links are from a day to two weeks old."""
    for device in known_devices if day == TODAY else ():
        yield {"anonymous_id": device, "occurred_at": _at(day, 3600 * 9)}


def _at(day: date, second: int) -> str:
    return f"{day}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000Z"


def batch_of_today(settings: Settings, folder: Path) -> Expected:
    """Today's file through the batch, in copies of lake and database; the profiles are put beside the shop's own."""
    found = training.current_release(settings)
    assert found is not None
    serving = Serving(release=found[0], promotion=found[1])
    shutil.copytree(settings.lake_root, folder / "lake_of_batch")
    with copied(settings, "parity_batch") as aside:
        aside = replace(aside, lake=str(folder / "lake_of_batch"))
        report = daily.validate_events(TODAY, aside, path=str(file_of(folder, TODAY)), max_rejected_ratio=0.2)
        daily.build_sequences(TODAY, aside)
    snapshot = Lake(aside.lake_root, aside.shop).snapshot()
    midnight = day_end(YESTERDAY, settings)
    users_today, heaviest, users = set[str](), 0, 0
    for until in (TODAY, YESTERDAY):
        for histories in sequences.user_buckets(snapshot, until, settings):
            if until == TODAY:
                at = histories["occurred_at"].cast(pa.int64()).to_numpy()
                wanted = pc.unique(histories["user_id"].filter(pa.array(at >= midnight)))
                users_today.update(wanted.to_pylist())
            else:  # whom today's events do not name, or only late ones: told as of midnight, with its window
                wanted = pa.array(sorted(users_today), pa.string())
            is_named = pc.is_in(histories["user_id"], value_set=wanted)
            histories = histories.filter(is_named if until == TODAY else pc.invert(is_named))
            heaviest = max(heaviest, int(np.diff(sequences.offsets(histories)).max(initial=0)))
            for some in _of_some_users(histories):
                with db.connect(settings) as connection:
                    users += score_by_batch(connection, serving, TODAY, some, settings.shop, settings)
    accepted = sum(account.accepted for account in report.accounts)
    return Expected(
        serving=serving, snapshot=snapshot, users=users, users_today=len(users_today), accepted=accepted,
        heaviest=heaviest,
    )  # fmt: skip


def _of_some_users(histories: pa.Table) -> Iterator[pa.Table]:
    """The same rows, USERS_AT_ONCE users at a time."""
    starts = sequences.offsets(histories)
    for first in range(0, len(starts) - 1, USERS_AT_ONCE):
        begin, end = starts[first], starts[min(first + USERS_AT_ONCE, len(starts) - 1)]
        yield histories.slice(begin, end - begin)


def put_today(settings: Settings, path: Path, seed: int) -> int:
    """The file's rows into the inbox, shuffled, and REPEATED_RATIO of them twice; returns how many were put."""
    with path.open("rb") as stream:
        names = stream.readline().decode().strip().split(",")
    as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    rows = pa_csv.read_csv(path, convert_options=as_text)
    chance = np.random.default_rng(seed)
    repeats = chance.integers(rows.num_rows, size=int(rows.num_rows * REPEATED_RATIO))
    order = chance.permutation(np.concatenate([np.arange(rows.num_rows), repeats]))
    with db.connect(settings) as connection:
        db.copy_rows(connection, "inbox.event", rows.take(pa.array(order)))
    return len(order)


def drained(settings: Settings, workers: int) -> float:
    """Seconds from the first scorer's start until the last found nothing waiting."""
    spawn = multiprocessing.get_context("spawn")
    spans = spawn.Queue()
    processes = [spawn.Process(target=score_until_nothing_waits, args=(settings, spans)) for _ in range(workers)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    if any(each.exitcode for each in processes):
        sys.exit("A scorer ended with an error; it is above.")
    began, ended = zip(*(spans.get() for _ in processes), strict=True)
    return max(ended) - min(began)


def score_until_nothing_waits(settings: Settings, spans: multiprocessing.Queue) -> None:
    """One scorer at the end of today; sends when it began and ended."""
    torch.set_num_threads(1)
    evening = daily.end_of_day(TODAY, settings) - timedelta(seconds=1)
    began = time.time()
    Scorer(settings=settings, clock=lambda: evening).run(drain=True)
    spans.put((began, time.time()))


def tell_later(settings: Settings, expected: Expected) -> int:
    """Score by batch once more whom nearline told as of an event that moved to another shopper since; how many."""
    with db.connect(settings) as connection:
        told = connection.execute(sa.text(TOLD_LATER), {"nearline": settings.shop, "batch": BATCH}).scalars()
        users = pa.array(sorted(told), pa.string())
    for histories in sequences.user_buckets(expected.snapshot, TODAY, settings):
        some = histories.filter(pc.is_in(histories["user_id"], value_set=users))
        with db.connect(settings) as connection:
            score_by_batch(connection, expected.serving, TODAY, some, settings.shop, settings)
    return len(users)


def compared(settings: Settings, expected: Expected, put: int) -> dict[str, float]:
    """How far the drained shop is from the batch; all from events_missing on must be 0, or below TOLERANCE."""
    shops = {"nearline": settings.shop, "batch": BATCH}
    told_later = tell_later(settings, expected)
    with db.connect(settings) as connection:
        (row,) = db.query(connection, "parity_of_shops", **shops, tolerance=TOLERANCE)
        counts_differing = connection.execute(sa.text(COUNTS_DIFFERING), shops).scalar_one()
        (accepted, rejected, duplicate, waiting) = (
            connection.execute(sa.text(f"SELECT count(*) FROM inbox.{table}")).scalar_one()
            for table in ("accepted", "rejected", "duplicate", "event")
        )
        for told in connection.execute(sa.text(TOLD), {"user_ids": row["differing"]}).mappings():
            print(*(f"{name}={value}" for name, value in told.items()), file=sys.stderr)
    return {
        "events": put,
        "duplicates_dropped": duplicate,
        "rejected": rejected,
        "users_told_later": told_later,
        "events_missing": abs(expected.accepted - accepted) + abs(put - accepted - rejected - duplicate) + waiting,
        "users_differing": row["users_differing"],
        "users_reordered": row["users_reordered"],  # told apart by no more than which of equal scores comes first
        "counts_differing": counts_differing,
        "largest_difference": row["largest_difference"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--trained-users", type=int, default=2_000, help="of the small shop, which also stay")
    parser.add_argument("--days-away", type=float, default=6, help="median days until a shopper comes back")
    parser.add_argument(
        "--heavy-events", type=int, default=3_000, help=f"of each of {HEAVY_USERS} shoppers today; before, a fifth"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the embedded Postgres may run as another account
        first_day = GROWN_DAYS[0] - timedelta(days=TRAINED_DAYS)
        with trained_shop(folder, given.trained_users, first_day, GROWN_DAYS[0]) as shop:
            figures = measure(shop, folder, given)
        data = [*sorted((folder / "shop" / "events").iterdir()), *sorted((folder / "grown" / "events").iterdir())]
        write_result("parity", figures, {}, data, " ".join(["python benchmarks/parity.py", *sys.argv[1:]]))
    is_equal = all(
        value <= (TOLERANCE if "largest_difference" in name else 0)
        for name, value in figures.items()
        if name.startswith(("events_missing", "users_differing", "counts_differing", "largest_difference"))
    )
    sys.exit(not is_equal)


def measure(shop: Settings, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    began = time.monotonic()
    settings = grow(replace(shop, threads=1), folder, given)
    print(f"{time.monotonic() - began:,.0f} s until the eve of {TODAY}", flush=True)
    expected = batch_of_today(settings, folder)
    took = f"{time.monotonic() - began:,.0f} s until the batch had told"
    print(f"{took} {expected.users:,} profiles, {expected.users_today:,} of them with events today", flush=True)
    figures: dict[str, float] = {
        "users": expected.users, "users_today": expected.users_today, "most_events_of_a_user": expected.heaviest,
    }  # fmt: skip
    for workers in given.workers:
        with copied(settings, f"parity_{workers}") as mine:
            put = put_today(mine, file_of(folder, TODAY), seed=workers)
            seconds = drained(mine, workers)
            row = compared(mine, expected, put) | {"events_per_s": put / seconds}
        print(f"{workers} scorers" + "".join(f"{name:>20} {value:<9.4g}" for name, value in row.items()), flush=True)
        figures |= {f"{name}_{workers}_workers": value for name, value in row.items()}
    return figures


if __name__ == "__main__":
    main()
