"""The day's steps, in order, from the shop's raw file to user_profile rows. Read this first."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa

from intent_platform import db, sequences
from intent_platform.domain import Promotion
from intent_platform.errors import NotEnoughData, SettingInvalid
from intent_platform.events import catalogue
from intent_platform.events.intake import Door, take_in
from intent_platform.events.mapping import load_mapping
from intent_platform.events.pseudonyms import confirm_key
from intent_platform.events.readers import list_files
from intent_platform.events.replay import QuarantinedRow, keep_fixed_rows, quarantined_rows, read_fixed_rows, replay
from intent_platform.events.validation import DayReport, publish_day
from intent_platform.inbox.source import take_in_inbox
from intent_platform.index.registry import current_release, ensure_release
from intent_platform.lake import Lake
from intent_platform.log import get_logger
from intent_platform.meeting import Meeting
from intent_platform.model.examples import end_of_day
from intent_platform.profiles import ProfileRows, Stamp, only_news, upsert, write_items
from intent_platform.scoring import Scores, score
from intent_platform.settings import Settings

log = get_logger(__name__)
USERS_PER_TRANSACTION = 250  # a scorer may wait for one of them: some tens of milliseconds
WRITERS = 2  # chunks written at once: while one is made here, Postgres has another to write
REMOVE_FILES_AFTER = timedelta(days=1)  # longer than any step reads


def validate_events(
    day: date,
    settings: Settings,
    *,
    source: str | None = None,
    path: str | None = None,
    max_rejected_ratio: float | None = None,
) -> DayReport:
    """What was received for `day`, by file and nearline → accepted, quarantined and clean rows, published whole.

    DayRefused, and nothing is published, when too much of it is wrong.
    """
    confirm_key(settings)
    lake = Lake(settings.lake_root, settings.shop)
    mapping = load_mapping(source or settings.source)
    door = Door(received_on=day, mapping=mapping, settings=settings, lake=lake)
    allowed = settings.max_rejected_ratio if max_rejected_ratio is None else max_rejected_ratio
    with lake.guarded():
        from_inbox = take_in_inbox(door)
        is_only_inbox = from_inbox is not None and not (path or settings.events_path)
        if from_inbox is None and not (path or settings.events_path):
            raise SettingInvalid(
                f"Nothing came for {day}: the inbox has no event received then that the lake lacks, and "
                "INTENT_EVENTS_PATH is empty. Give a path with {day} in it, for example /drop/events/{day}.csv, or "
                "name the file with --path."
            )
        files = [] if is_only_inbox else list_files(path or events_path(day, settings), mapping)
        intakes = [keep_fixed_rows(take_in(file, door), door) for file in files]
        if from_inbox is not None:
            intakes.append(from_inbox)
        return publish_day(door, intakes, max_rejected_ratio=allowed)


def build_sequences(day: date, settings: Settings) -> tuple[str, ...]:
    """Clean days → sequences and items, for every day whose inputs changed; returns the partitions published."""
    lake = Lake(settings.lake_root, settings.shop)
    with lake.guarded(), db.connect(settings) as connection:
        db.exclusive(connection, "lake", settings.shop)
        snapshot = lake.snapshot()
        items, changed = catalogue.changed_items(snapshot, settings, None, end_of_day(day, settings))
        changes = sequences.build_days(snapshot, settings) | changed
        write_items(connection, items, settings.shop)
        if changes:
            snapshot = lake.publish(changes, based_on=snapshot)
        for figures in sequences.account_of_days(snapshot):
            db.query(connection, "put_sequence_day", shop=settings.shop, **figures)
    log.info("sequences_built", shop=settings.shop, day=day, partitions=len(changes))
    lake.remove_unpublished(older_than=REMOVE_FILES_AFTER, now=datetime.now(UTC))
    return tuple(f"{table}/{partition}" for table, partition in changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class RefreshReport:
    """One row of profiles.refreshed_day."""

    day: date
    release_id: str
    promotion_number: int
    users: int
    rows_changed: int


def refresh_profiles(day: date, settings: Settings) -> RefreshReport:
    """Score everyone seen in the last history_days with the release that serves, and move their profiles.

    Commits in key-ordered chunks, so that no writer waits long; the day's marker comes last.
    NotEnoughData for a day that is still to come: profiles only move forward, so none could be taken back.
    """
    with db.connect(settings) as connection:
        (received,) = db.query(connection, "was_day_received", shop=settings.shop, day=day)
    if not received["was_received"]:
        raise NotEnoughData(
            f"Neither {day} nor a later day was published for shop {settings.shop!r}, so nobody's profile can be told "
            f"up to its end. Run `intent day {day}` once it is over."
        )
    ensure_release(settings, day)
    found = current_release(settings)
    assert found is not None
    release, promotion = found
    valid_at = end_of_day(day, settings)
    stamp = _stamp(promotion, valid_at, settings)
    snapshot = Lake(settings.lake_root, settings.shop).snapshot()
    meeting = Meeting.of(snapshot, day, settings)
    is_rerun = _is_refreshed(day, promotion, settings)
    write = partial(_write, meeting=meeting, stamp=stamp, settings=settings, is_rerun=is_rerun)
    users = rows_changed = 0
    for histories in sequences.user_buckets(snapshot, day, settings):
        scores = score(release, histories, valid_at=valid_at, settings=settings)
        users += scores.profiles.num_rows
        rows_changed += _move(scores, histories, write)
    if meeting is not None:
        rows_changed += meeting.catch_up(release, stamp)
    report = RefreshReport(
        day=day,
        release_id=promotion.release_id,
        promotion_number=promotion.promotion_number,
        users=users,
        rows_changed=rows_changed,
    )
    with db.connect(settings) as connection:
        facts = {"users": users, "rows_changed": rows_changed, "release_id": promotion.release_id}
        number = promotion.promotion_number
        db.query(connection, "put_refreshed_day", shop=settings.shop, day=day, promotion_number=number, **facts)
    log.info("profiles_refreshed", shop=settings.shop, day=day, users=users, changed=rows_changed)
    return report


def _is_refreshed(day: date, promotion: Promotion, settings: Settings) -> bool:
    with db.connect(settings) as connection:
        progress = db.query(connection, "progress_of_days", shop=settings.shop)
    return {"day": day, "promotion_number": promotion.promotion_number} in map(dict, progress)


def _move(scores: Scores, histories: pa.Table, write: Callable[[Scores, pa.Table], int]) -> int:
    """Write scored users chunk by chunk, WRITERS of them at a time; returns how many profiles changed."""
    with ThreadPoolExecutor(max_workers=WRITERS, thread_name_prefix="writer") as writers:
        return sum(writers.map(lambda chunk: write(*chunk), _chunks(scores, histories)))


def _write(
    scores: Scores,
    histories: pa.Table,
    *,
    meeting: Meeting | None,
    stamp: Stamp,
    settings: Settings,
    is_rerun: bool,
) -> int:
    """One chunk of users in a transaction; those who are ahead of the lake are left to the meeting."""
    rows = ProfileRows.of(scores.profiles, scores.interests, scores.recommendations, stamp)
    if is_rerun:  # else there is no use in asking: their day is new to all of them
        with db.connect(settings) as connection:
            rows = only_news(connection, rows)
    with db.connect(settings) as connection:
        db.query(connection, "limit_idle", "commit_without_disk")
        if meeting is not None:
            ahead = meeting.seed(connection, histories)
            rows = rows.only(set(rows.user_ids) - ahead)
        changed = upsert(connection, rows)
    if meeting is not None:
        with db.connect(settings) as connection:
            meeting.look_again(connection, histories)
    return changed


STEPS = (validate_events, build_sequences, refresh_profiles)


def run_day(
    day: date,
    settings: Settings,
    *,
    source: str | None = None,
    path: str | None = None,
    max_rejected_ratio: float | None = None,
) -> tuple[DayReport, RefreshReport]:
    """The steps one after another, as the DAGs run them."""
    received = validate_events(day, settings, source=source, path=path, max_rejected_ratio=max_rejected_ratio)
    build_sequences(day, settings)
    return received, refresh_profiles(day, settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueReport:
    """What load_catalogue did."""

    items: int  # known now, stubs among them
    is_new: bool  # False: the file held nothing that was not known


def replay_quarantine(
    day: date, settings: Settings, *, source: str | None = None, fixed: Path | None = None
) -> DayReport:
    """Quarantined rows of a received day come in if they are good now: under a mended mapping, or mended by hand.

    `fixed` names JSON Lines with file, line and raw of mended rows. Running it again changes nothing.
    """
    confirm_key(settings)
    lake = Lake(settings.lake_root, settings.shop)
    door = Door(received_on=day, mapping=load_mapping(source or settings.source), settings=settings, lake=lake)
    intakes = replay(door, read_fixed_rows(fixed) if fixed else {})
    if not intakes:
        return DayReport(day=day, accounts=(), days_published=(), findings=())
    return publish_day(door, intakes, max_rejected_ratio=1.0)


def quarantined(day: date, settings: Settings) -> Iterator[QuarantinedRow]:
    """The rows quarantined for a received day, unsealed."""
    mapping = load_mapping(settings.source)
    lake = Lake(settings.lake_root, settings.shop)
    return quarantined_rows(Door(received_on=day, mapping=mapping, settings=settings, lake=lake))


def load_catalogue(settings: Settings, *, source: str | None = None, path: str | None = None) -> CatalogueReport:
    """Read the shop's item file and publish the items it changes."""
    path = path or settings.catalogue_path
    if not path:
        raise SettingInvalid("No catalogue is set: give INTENT_CATALOGUE_PATH, or --path.")
    lake = Lake(settings.lake_root, settings.shop)
    read = catalogue.read_catalogue(path, source or settings.catalogue_source, settings=settings, lake=lake)
    with lake.guarded(), db.connect(settings) as connection:
        db.exclusive(connection, "lake", settings.shop)
        snapshot = lake.snapshot()
        items, changed = catalogue.changed_items(snapshot, settings, read, datetime.now(UTC))
        if changed:
            lake.publish(changed, based_on=snapshot)
        write_items(connection, items, settings.shop)
    return CatalogueReport(items=items.num_rows, is_new=bool(changed))


def events_path(day: date, settings: Settings) -> str:
    """Where the files of a day arrive, from INTENT_EVENTS_PATH."""
    if "{day}" not in settings.events_path:
        raise SettingInvalid(
            f"INTENT_EVENTS_PATH is {settings.events_path!r}; give a path with {{day}} in it, for example "
            "/drop/events/{day}.csv, or name the file with --path."
        )
    return settings.events_path.format(day=day)


def _stamp(promotion: Promotion, valid_at: datetime, settings: Settings) -> Stamp:
    return Stamp(
        shop=settings.shop,
        release_id=promotion.release_id,
        promotion_number=promotion.promotion_number,
        source="batch",
        scored_at=valid_at,
        horizon_hours=settings.horizon_hours,
    )


def _chunks(scores: Scores, histories: pa.Table) -> Iterator[tuple[Scores, pa.Table]]:
    """Runs of USERS_PER_TRANSACTION users with their events; all tables are in user_id order."""
    for start in range(0, scores.profiles.num_rows, USERS_PER_TRANSACTION):
        profiles = scores.profiles.slice(start, USERS_PER_TRANSACTION)
        interests, recommendations, own = (
            _rows_of(each, profiles["user_id"]) for each in (scores.interests, scores.recommendations, histories)
        )
        yield Scores(profiles=profiles, interests=interests, recommendations=recommendations), own


def _rows_of(satellite: pa.Table, user_ids: pa.ChunkedArray) -> pa.Table:
    of = satellite["user_id"]
    first = bisect_left(of, user_ids[0].as_py(), key=pa.StringScalar.as_py)
    stop = bisect_right(of, user_ids[-1].as_py(), key=pa.StringScalar.as_py)
    return satellite.slice(first, stop - first)
