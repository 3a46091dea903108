"""What a scorer says while it goes on trying: that something fails, now and then; and that Postgres is back."""

import threading
import time

import psycopg2

from intent_platform import db
from intent_platform.errors import DatabaseUnavailable, IntentError
from intent_platform.log import get_logger

TELL_EVERY_S = 10.0

log = get_logger(__name__)


class Outage:
    """Shared by all that a scorer does at a time, so that a server that is away fills no log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told_at: dict[object, float] = {}  # monotonic s, by kind of failure
        self._untold = 0  # failures since anything was told
        self._away_since: float | None = None  # monotonic s

    def tell(self, action: str, error: Exception, *, is_away: bool = False) -> None:
        """The first failure of a kind at once, then one every TELL_EVERY_S; whatever Postgres' absence makes fail is of
        one kind. is_away: it does not answer."""
        now = time.monotonic()
        kind = DatabaseUnavailable if isinstance(error, DatabaseUnavailable | psycopg2.Error) else (action, type(error))
        with self._lock:
            if is_away and self._away_since is None:
                self._away_since = now
            if now - self._told_at.get(kind, float("-inf")) < TELL_EVERY_S:
                self._untold += 1
                return
            self._told_at[kind], untold, self._untold = now, self._untold, 0
        what = error.what if isinstance(error, IntentError) else db.first_line(error)
        is_foreseen = isinstance(error, IntentError | psycopg2.Error)  # else the traceback is needed
        log.warning(action, error=what, then="tries_again", untold=untold, exc_info=not is_foreseen)

    def is_over(self) -> None:
        """Postgres answers."""
        with self._lock:
            if self._away_since is None:
                return
            away_s, self._away_since = time.monotonic() - self._away_since, None
            untold, self._untold = self._untold, 0
        log.info("database_back", away_s=round(away_s, 1), untold=untold)
