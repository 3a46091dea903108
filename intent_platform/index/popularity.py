"""How much attention each item gets: decayed counts of the last days."""

from datetime import date, timedelta

import duckdb
import pyarrow as pa

from intent_platform.lake import Snapshot
from intent_platform.settings import Settings

POPULARITY_DAYS = 7
HALF_LIFE_DAYS = 3.0

WEIGHTS = {"view": 1.0, "click": 1.0, "add_to_cart": 4.0, "purchase": 8.0, "rating": 2.0}
"""What an event says about an item's demand; kinds that are not listed say nothing."""


def item_popularity(snapshot: Snapshot, day: date | None, settings: Settings) -> dict[str, float]:
    """item_id → decayed attention in the last days up to and including `day` (None: the newest published day)."""
    published = [date.fromisoformat(name.removeprefix("day=")) for name in snapshot.partitions("clean")]
    published = [each for each in published if day is None or each <= day]
    if not published:
        return {}
    newest = max(published)
    days = [each for each in published if newest - each < timedelta(days=POPULARITY_DAYS)]
    paths = snapshot.paths("clean", [f"day={each}" for each in days])
    weights = pa.table({"event_type": list(WEIGHTS), "weight": list(WEIGHTS.values())})
    end = newest + timedelta(days=1)
    with duckdb.connect(config={"threads": settings.threads}) as engine:
        engine.register("weight", weights)
        if not snapshot.lake.is_local:
            engine.register_filesystem(snapshot.lake.filesystem)
        rows = engine.execute(
            """
            SELECT
                item_id,
                sum(weight * pow(0.5, date_diff('hour', occurred_at, CAST($end AS TIMESTAMPTZ)) / 24.0 / $half))
            FROM read_parquet($paths) JOIN weight USING (event_type)
            WHERE item_id IS NOT NULL
            GROUP BY item_id ORDER BY item_id
            """,
            {"paths": paths, "end": end, "half": HALF_LIFE_DAYS},
        ).fetchall()
    return {item_id: round(attention, 4) for item_id, attention in rows}
