"""What shoppers want of a shop, seen from its newest days: popular items, what is bought again, what is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend

from intent_platform.events.engine import open_engine
from intent_platform.lake import Snapshot
from intent_platform.model.text import text_key
from intent_platform.sequences import SEQUENCE_SCHEMA, sample_history
from intent_platform.settings import Settings

POPULARITY_DAYS = 7
HALF_LIFE_DAYS = 3.0

WEIGHTS = {"view": 1.0, "click": 1.0, "add_to_cart": 4.0, "purchase": 8.0, "rating": 2.0}
"""What an event says about an item's demand; kinds that are not listed say nothing."""

RETURNING_RATIO = 0.05
"""Items are bought again when at least so many of those a shopper bought were bought again on a later day."""

ENOUGH_BUYERS = 20
"""Of a category with fewer shoppers who bought, all of the shop's tell whether they return."""

FIRST_TO_RETURN = 0.25
"""An item is due when so many of the first returns have come."""

SAMPLED = 2_000
"""Shoppers, and searches, that an index is adjusted to and measured on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """Days up to and including `until`; None: no day is published."""

    until: date | None = None
    popularity: dict[str, float] = field(default_factory=dict)  # item_id → decayed attention
    return_days: dict[str, float] = field(default_factory=dict)  # category → days until its buyers return, or inf
    return_days_otherwise: float = np.inf  # of a category with too few buyers
    histories: pa.Table = field(default_factory=SEQUENCE_SCHEMA.empty_table)  # of some shoppers, as IN_ORDER
    queries: list[str] = field(default_factory=list)  # of some searches, each as text_key

    def popularity_of(self, item_ids: pa.ChunkedArray) -> np.ndarray:
        """float32 (items,); 0 for what nobody touched."""
        return np.array([self.popularity.get(item_id, 0.0) for item_id in item_ids.to_pylist()], np.float32)

    def return_days_of(self, categories: pa.ChunkedArray) -> np.ndarray:
        """float32 (items,); inf for what is bought once."""
        days = [self.return_days.get(category, self.return_days_otherwise) for category in categories.to_pylist()]
        return np.array(days, np.float32)


def read_demand(snapshot: Snapshot, day: date | None, settings: Settings) -> Demand:
    """From the published days up to and including `day` (None: the newest)."""
    published = [date.fromisoformat(name.removeprefix("day=")) for name in snapshot.partitions("clean")]
    published = [each for each in published if day is None or each <= day]
    if not published:
        return Demand()
    newest = max(published)
    recent = [f"day={each}" for each in published if newest - each < timedelta(days=POPULARITY_DAYS)]
    known = [f"day={each}" for each in published if newest - each < timedelta(days=settings.training_days)]
    with open_engine(settings, snapshot.lake) as engine:
        events = snapshot.scan(engine, "clean", recent)
        return Demand(
            until=newest,
            popularity=_popularity(events, newest + timedelta(days=1)),
            **_return_days(engine, snapshot, known),
            histories=sample_history(snapshot, newest, settings, users=SAMPLED),
            queries=_queries(events),
        )


def _popularity(events: ibis.Table, end: date) -> dict[str, float]:
    weight = events.event_type.cases(*((name, weight) for name, weight in WEIGHTS.items()), else_=0.0)
    age_days = ibis.literal(end).cast(events.occurred_at.type()).delta(events.occurred_at, unit="hour") / 24.0
    touched = events.mutate(attention=weight * ibis.literal(0.5).pow(age_days / HALF_LIFE_DAYS))
    touched = touched.filter(touched.item_id.notnull(), touched.attention > 0)
    by_item = touched.group_by("item_id").aggregate(attention=touched.attention.sum()).order_by("item_id")
    return {row["item_id"]: round(row["attention"], 4) for row in by_item.to_pyarrow().to_pylist()}


def _return_days(engine: Backend, snapshot: Snapshot, days: list[str]) -> dict[str, Any]:
    """Fields of Demand: after how many days those who buy an item again begin to."""
    events = snapshot.scan(engine, "clean", days)
    items = snapshot.scan(engine, "items").select("item_id", "category")
    bought = events.filter(events.event_type == "purchase", events.item_id.notnull())
    bought = bought.select("user_id", "item_id", day=bought.occurred_at.date()).distinct().left_join(items, "item_id")
    in_order = ibis.window(group_by=["user_id", "item_id"], order_by="day")
    bought = bought.mutate(gap=bought.day.lead().over(in_order).delta(bought.day, unit="day"))
    first = bought.day == bought.day.min().over(ibis.window(group_by=["user_id", "item_id"]))
    of_items = bought.mutate(is_first=first).filter(ibis._.is_first).select("category", "user_id", "item_id", "gap")
    facts = {
        "buyers": ibis._.user_id.nunique(),
        "bought": ibis._.count(),
        "returned": ibis._.gap.count(),
        "days": ibis._.gap.quantile(FIRST_TO_RETURN),
    }
    by_category = of_items.group_by("category").aggregate(**facts).order_by("category").to_pyarrow().to_pylist()
    of_shop = _days_until_return(of_items.aggregate(**facts).to_pyarrow().to_pylist()[0], np.inf)
    named = {row["category"]: row for row in by_category if row["category"] is not None}
    own = {name: _days_until_return(row, of_shop) for name, row in named.items()}
    return {"return_days": own, "return_days_otherwise": of_shop}


def _days_until_return(facts: Mapping[str, Any], otherwise: float) -> float:
    if facts["buyers"] < ENOUGH_BUYERS:
        return otherwise
    return float(facts["days"]) if facts["returned"] >= RETURNING_RATIO * facts["bought"] else np.inf


def _queries(events: ibis.Table) -> list[str]:
    """Different searches, the same ones whenever they are asked for."""
    searched = events.filter(events.query_text.notnull()).select("query_text").distinct()
    chosen = searched.order_by(searched.query_text.hash(), "query_text").limit(SAMPLED)
    keys = (text_key(text) for text in chosen.to_pyarrow()["query_text"].to_pylist())
    return sorted({key for key in keys if key})
