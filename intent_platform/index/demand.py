"""What shoppers want of a shop, seen from its newest days: popular items, what is bought again, what is asked for."""

from dataclasses import dataclass, field
from datetime import date, timedelta

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

RETURNING_RATIO = 0.1
"""A category is of consumables when at least so many who bought an item of it bought the same item on a later day."""

DOUBTED_BUYERS = 50
"""Buyers who never return that are added to each category's, so that three purchases prove nothing."""

SAMPLED = 2_000
"""Shoppers, and searches, that an index is adjusted to and measured on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """Days up to and including `until`; None: no day is published."""

    until: date | None = None
    popularity: dict[str, float] = field(default_factory=dict)  # item_id → decayed attention
    return_days: dict[str, float] = field(default_factory=dict)  # category of consumables → median days
    histories: pa.Table = field(default_factory=SEQUENCE_SCHEMA.empty_table)  # of some shoppers, as IN_ORDER
    queries: list[str] = field(default_factory=list)  # of some searches, each as text_key

    def popularity_of(self, item_ids: pa.ChunkedArray) -> np.ndarray:
        """float32 (items,); 0 for what nobody touched."""
        return np.array([self.popularity.get(item_id, 0.0) for item_id in item_ids.to_pylist()], np.float32)

    def return_days_of(self, categories: pa.ChunkedArray) -> np.ndarray:
        """float32 (items,); inf for what is bought once."""
        return np.array([self.return_days.get(category, np.inf) for category in categories.to_pylist()], np.float32)


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
            return_days=_return_days(engine, snapshot, known),
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


def _return_days(engine: Backend, snapshot: Snapshot, days: list[str]) -> dict[str, float]:
    """Median days from one purchase of an item to the next by the same shopper, of the categories of consumables."""
    events = snapshot.scan(engine, "clean", days)
    items = snapshot.scan(engine, "items").select("item_id", "category")
    bought = events.filter(events.event_type == "purchase", events.item_id.notnull())
    bought = bought.select("user_id", "item_id", day=bought.occurred_at.date()).distinct().join(items, "item_id")
    in_order = ibis.window(group_by=["user_id", "item_id"], order_by="day")
    bought = bought.mutate(gap=bought.day.lead().over(in_order).delta(bought.day, unit="day"))
    by_shopper = bought.group_by("category", "user_id", "item_id").aggregate(gap=bought.gap.median())
    by_category = (
        by_shopper.filter(by_shopper.category.notnull())
        .group_by("category")
        .aggregate(buyers=ibis._.count(), returned=ibis._.gap.count(), days=ibis._.gap.median())
    )
    consumed = by_category.filter(
        by_category.returned >= RETURNING_RATIO * (by_category.buyers + DOUBTED_BUYERS)
    ).order_by("category")
    return {row["category"]: float(row["days"]) for row in consumed.to_pyarrow().to_pylist()}


def _queries(events: ibis.Table) -> list[str]:
    """Different searches, the same ones whenever they are asked for."""
    searched = events.filter(events.query_text.notnull()).select("query_text").distinct()
    chosen = searched.order_by(searched.query_text.hash(), "query_text").limit(SAMPLED)
    keys = (text_key(text) for text in chosen.to_pyarrow()["query_text"].to_pylist())
    return sorted({key for key in keys if key})
