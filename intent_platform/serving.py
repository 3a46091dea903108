"""What a scorer serves with, kept fresh beside it: the current release, the heartbeat, the inbox's partitions."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

from prometheus_client import Counter, Histogram

from intent_platform import db
from intent_platform.domain import Promotion
from intent_platform.errors import DatabaseUnavailable, IntentError, NotEnoughData
from intent_platform.events.pseudonyms import confirm_key
from intent_platform.inbox import queue
from intent_platform.inbox.outage import Outage
from intent_platform.inbox.seeding import seed_if_new
from intent_platform.index.registry import current_promotion, current_release
from intent_platform.index.release import Release
from intent_platform.lake import Lake
from intent_platform.log import get_logger
from intent_platform.profiles import Stamp
from intent_platform.settings import Settings

LOOK_S = 0.2  # for a new promotion
BEAT_S = 1.0
TIDY_S = 10.0  # rotation of the inbox; a new catalogue; batches of scorers that were stopped
SILENT_AFTER = timedelta(seconds=5)  # then a scorer's part of the shoppers goes to the others
STUCK_AFTER_S = 30.0  # as limit_waits.sql has it for who is idle

EVENTS = Counter("intent_nearline_events", "Events taken from the inbox, by what became of them.", ["outcome"])
OUTCOMES = ("accepted", "rejected", "duplicate")
for _outcome in OUTCOMES:
    EVENTS.labels(_outcome)  # told as 0 before the first of them
BATCH_SECONDS = Histogram(
    "intent_nearline_batch_seconds",
    "Time from claim to commit.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
VISIBLE_SECONDS = Histogram(
    "intent_nearline_visible_seconds",
    "Time from the oldest event of a batch being put to its profile being visible.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0),
)

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Serving:
    """What a batch is scored with: pinned for the whole of it."""

    release: Release
    promotion: Promotion
    is_behind: bool = False  # another was promoted, and cannot be loaded here

    def stamp(self, now: datetime, settings: Settings) -> Stamp:
        return Stamp(
            shop=settings.shop,
            release_id=self.promotion.release_id,
            promotion_number=self.promotion.promotion_number,
            source="nearline",
            scored_at=now,
            horizon_hours=settings.horizon_hours,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchReport:
    """What became of a batch's events: claimed = accepted + rejected + duplicate."""

    claimed: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    newest_seq: int = 0
    oldest_put_at: datetime | None = None


@dataclass(kw_only=True)
class Tally:
    """What a worker did so far; also exported as metrics."""

    batches: int = 0
    events: int = 0
    rejected: int = 0
    _by_minute: dict[int, list[int]] = field(default_factory=dict)  # minute since 1970 → events, rejected

    def add(self, batch: BatchReport, *, seconds: float, now: datetime) -> None:
        self.batches += 1
        self.events += batch.claimed
        self.rejected += batch.rejected
        lately = self._by_minute.setdefault(int(now.timestamp()) // 60, [0, 0])
        lately[0] += batch.claimed
        lately[1] += batch.rejected
        for outcome in OUTCOMES:
            EVENTS.labels(outcome).inc(getattr(batch, outcome))
        BATCH_SECONDS.observe(seconds)
        if batch.oldest_put_at is not None:
            VISIBLE_SECONDS.observe(max((now - batch.oldest_put_at).total_seconds(), 0.0))

    def of_last_hour(self, now: datetime) -> tuple[int, int]:
        """Events and, of those, rejected ones, by whole minutes; older ones are forgotten."""
        first = int(now.timestamp()) // 60 - 59
        for minute in [each for each in list(self._by_minute) if each < first]:
            del self._by_minute[minute]
        counts = list(self._by_minute.values())
        return sum(events for events, _ in counts), sum(rejected for _, rejected in counts)


class Follower:
    """A thread that loads what is promoted while the scorer goes on with what it has; leave it as a context.

    share: (part, parts), this scorer's place among those heard of lately and how many they are.
    """

    share: tuple[int, int] = (0, 1)

    def __init__(self, settings: Settings, worker: str, tally: Tally, clock: Callable[[], datetime]) -> None:
        self._settings, self._worker, self._tally, self._clock = settings, worker, tally, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self.outage = Outage()
        self._started_at = clock()
        self._items = _items_of(settings)
        self.serving = load_serving(settings)
        confirm_key(settings)

    def __enter__(self) -> Self:
        seed_if_new(self._settings)  # may take long, and until then shoppers are better left to the others
        self._beat()
        self._thread.start()
        log.info("scorer_ready", worker=self._worker, release=self.serving.release.release_id)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._beat(has_ended=error[0] is None)  # with an error it is as dead as one that was killed
        except DatabaseUnavailable as away:
            log.warning("last_beat_lost", error=away.what)

    def _follow(self) -> None:
        beat_at = tidied_at = time.monotonic()
        wait_s = LOOK_S
        while not self._stop.wait(wait_s):
            now, can_follow = time.monotonic(), True
            if now - beat_at >= BEAT_S:
                beat_at = now
                can_follow = self._goes_well(self._beat)
            if is_tidying := now - tidied_at >= TIDY_S:
                tidied_at = now
            can_follow &= self._goes_well(partial(self._follow_once, is_tidying))
            wait_s = LOOK_S if can_follow else BEAT_S

    def _goes_well(self, step: Callable[[], None]) -> bool:
        """One step may fail without the others: the scorer goes on with what it has, and is heard of, whatever file
        cannot be read."""
        try:
            step()
        except Exception as error:
            self.outage.tell("cannot_follow", error, is_away=isinstance(error, DatabaseUnavailable))
        else:
            self.outage.is_over()
            return True
        return False

    def _follow_once(self, is_tidying: bool) -> None:
        items = self._items
        if is_tidying:
            with db.connect(self._settings) as connection:
                db.query(connection, "limit_waits")
                queue.rotate(connection)
                queue.end_stuck(connection, after_s=STUCK_AFTER_S)
            items = _items_of(self._settings)
        promotion = current_promotion(self._settings)
        if promotion != self.serving.promotion or items != self._items:
            try:
                self.serving = load_serving(self._settings)
            except IntentError as error:
                is_behind = promotion != self.serving.promotion and not error.is_transient
                self.serving = replace(self.serving, is_behind=is_behind)
                raise
            self._items = items
            log.info("release_picked_up", release=self.serving.release.release_id)

    def _beat(self, *, has_ended: bool = False) -> None:
        now = self._clock()
        recent_events, recent_rejected = self._tally.of_last_hour(now)
        facts = {
            "worker": self._worker,
            "started_at": self._started_at,
            "beat_at": now,
            "stopped_at": now if has_ended else None,
            "release_id": self.serving.promotion.release_id,
            "promotion_number": self.serving.promotion.promotion_number,
            "batches": self._tally.batches,
            "events": self._tally.events,
            "rejected": self._tally.rejected,
            "recent_events": recent_events,
            "recent_rejected": recent_rejected,
        }
        alive = {"alive_since": now - SILENT_AFTER, "alive_until": now + SILENT_AFTER}
        with db.connect(self._settings) as connection:
            db.query(connection, "limit_waits")
            db.query(connection, "put_worker", shop=self._settings.shop, **facts)
            found = db.query(connection, "live_workers", shop=self._settings.shop, **alive)
        names = [each["worker"] for each in found]
        if self._worker in names:
            self.share = names.index(self._worker), len(names)


def load_serving(settings: Settings) -> Serving:
    """What serves now, with its encoder in memory: loaded within a batch, shoppers would be locked for seconds."""
    found = current_release(settings)
    if found is None:
        raise NotEnoughData(
            f"No release serves shop {settings.shop!r} yet, so nothing can be scored: run `intent day` first."
        )
    release, promotion = found
    release.model.text.encoder.warm_up()
    return Serving(release=release, promotion=promotion)


def _items_of(settings: Settings) -> tuple[str, ...]:
    """Which files hold today's catalogue."""
    snapshot = Lake(settings.lake_root, settings.shop).snapshot()
    return tuple(snapshot.paths("items"))
