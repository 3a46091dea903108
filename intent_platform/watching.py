"""Is the nearline door well? What waits, who scores, how much is rejected; and what to do when nobody does."""

import threading
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta

from intent_platform import db
from intent_platform.errors import IntentError, NearlineUnwell
from intent_platform.inbox.door import NAME
from intent_platform.log import get_logger
from intent_platform.nearline import Scorer
from intent_platform.settings import Settings

DEAD_AFTER = timedelta(seconds=30)
RECENT = timedelta(hours=1)  # over which the rejected share is taken
DEAD_TOLD = timedelta(days=1)  # how long a scorer that went silent is an alarm, unless another was started since
LONGEST_DRAIN_S = 120.0  # where events come faster than they are scored, the alarm cannot wait until none is left
VALIDATED_WITHIN = timedelta(days=2)  # from the beginning of a received day, before it is an alarm
KEPT_DAYS = 2  # that ids and accepted events are kept beyond the longest lateness

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class NearlineHealth:
    """What a look at the inbox and the workers found."""

    waiting: int  # events in the inbox
    lag_s: float  # how long the oldest of them has waited
    alive: int  # workers heard of within DEAD_AFTER
    dead: int  # workers that went silent without having stopped in order, and that none started since stands in for
    events: int  # taken within RECENT
    rejected: int  # of those
    days_lacking: list[date]  # received days, over since a day at least, whose accepted events the lake has not all of
    drained: int = 0  # events that the watch itself scored, as no worker was alive

    @property
    def rejected_ratio(self) -> float:
        return self.rejected / max(self.events, 1)


def is_used(settings: Settings) -> bool:
    """Whether a scorer was ever started, or something waits for one."""
    with db.connect(settings) as connection:
        (row,) = db.query(connection, "is_nearline_used", shop=settings.shop)
    return row["is_used"]


def watch(settings: Settings, now: datetime) -> NearlineHealth:
    """Look, score what waits if no worker is alive, and forget what is kept long enough.

    NearlineUnwell says what is wrong.
    """
    health, failed = _look(settings, now), []
    if health.waiting and not health.alive:
        scorer = Scorer(settings=settings)
        enough = threading.Timer(LONGEST_DRAIN_S, scorer.stop.set)
        enough.start()
        try:
            scorer.run(drain=True)
        except IntentError as error:
            failed = [str(error)]
        finally:
            enough.cancel()
        health = replace(health, drained=scorer.tally.events)
    _forget(settings, now)
    log.info("nearline_watched", **asdict(health))
    if troubles := [*_troubles(health, settings), *failed]:
        raise NearlineUnwell(" ".join(troubles))
    return health


def _look(settings: Settings, now: datetime) -> NearlineHealth:
    moments = {"alive_since": now - DEAD_AFTER, "dead_since": now - DEAD_TOLD, "recent_since": now - RECENT}
    today = now.astimezone(settings.zone).date()
    days = {"first_day": today - timedelta(days=settings.quarantine_days), "last_day": today - VALIDATED_WITHIN}
    with db.connect(settings) as connection:
        (row,) = db.query(connection, "nearline_health", shop=settings.shop, inbox=NAME, now=now, **moments, **days)
    return NearlineHealth(**row)


def _forget(settings: Settings, now: datetime) -> None:
    """An event older than the longest lateness breaks a rule if it comes again, so its id is not needed any more."""
    today = now.astimezone(settings.zone).date()
    oldest = today - timedelta(days=-(-settings.max_lateness_hours // 24) + KEPT_DAYS)
    with db.connect(settings) as connection:
        db.query(
            connection,
            "forget_inbox",
            shop=settings.shop,
            inbox=NAME,
            time_zone=settings.time_zone,
            kept_from=oldest,
            rejected_kept_from=today - timedelta(days=settings.quarantine_days),
        )


def _troubles(health: NearlineHealth, settings: Settings) -> list[str]:
    troubles = []
    if health.drained:
        troubles.append(
            f"No scorer was alive: {health.drained:,} waiting events were scored by the watch. Start `intent nearline`."
        )
    if health.dead:
        troubles.append(
            f"{health.dead} scorers went silent without having stopped; nearline.worker names them. Start others in "
            "their place."
        )
    if health.lag_s > settings.nearline_max_lag_s and not health.drained:
        advice = ". Add workers: `intent nearline --workers N`." if health.alive else ", and no scorer is alive."
        troubles.append(
            f"{health.waiting:,} events wait, the oldest for {health.lag_s:.0f} s (allowed "
            f"{settings.nearline_max_lag_s} s){advice}"
        )
    if health.rejected_ratio > settings.max_rejected_ratio:
        troubles.append(
            f"{health.rejected:,} of {health.events:,} events of the last hour were rejected "
            f"(allowed {settings.max_rejected_ratio:.2%}); inbox.rejected says by which rule."
        )
    if health.days_lacking:
        first, *more = health.days_lacking
        troubles.append(
            f"Nearline events of {first}{f' and of {len(more):,} later days' if more else ''} are not all in the lake, "
            f"and go after {settings.quarantine_days} days (INTENT_QUARANTINE_DAYS); until then refreshes take longer. "
            f"Run `intent day {first}`."
        )
    return troubles
