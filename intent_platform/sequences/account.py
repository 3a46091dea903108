"""What a day's sequences look like in four numbers; they travel as tags of the day's file and end as table rows."""

from collections.abc import Iterator
from datetime import date

import ibis.expr.types as ir
from ibis import _
from ibis.backends.duckdb import Backend

from intent_platform.lake import Snapshot

FIGURES = ("shoppers", "sessions", "purchases", "purchases_after_view")
"""Columns of quality.sequence_day, where each is explained."""

SESSION = ("user_id", "session_started_at")


def figures_of(rows: ir.Table, engine: Backend) -> dict[str, str]:
    """FIGURES of one day's sequence rows, as tags. A view at the very moment of the purchase is an earlier one."""
    views = rows.filter(_.event_type == "view").group_by(*SESSION, "item_id").agg(viewed_at=_.occurred_at.min())
    bought = rows.filter(_.event_type == "purchase").left_join(views, [*SESSION, "item_id"])
    counts = {
        "shoppers": rows.user_id.nunique(),
        "sessions": rows.select(*SESSION).distinct().count(),
        "purchases": bought.count(),
        "purchases_after_view": bought.filter(_.viewed_at <= _.occurred_at).count(),
    }
    return {name: str(engine.to_pyarrow(count).as_py()) for name, count in counts.items()}


def account_of_days(snapshot: Snapshot) -> Iterator[dict[str, object]]:
    """A row of quality.sequence_day, without its shop, for each published day."""
    for partition in snapshot.partitions("sequences"):
        (file,) = snapshot.files("sequences", partition)
        counts = {name: int(file.tags[name]) for name in FIGURES}
        yield {"day": date.fromisoformat(partition.removeprefix("day=")), **counts}
