"""Labels from purchases, the day they may be trusted, and the split by time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

DAYS_FOR_TEST = 2
DAYS_FOR_VALIDATION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Days whose events are examples; between two parts lies a gap of a horizon, so that no label reaches over."""

    train: tuple[date, ...]
    validation: tuple[date, ...]
    test: tuple[date, ...]


def label(rows: pa.Table, horizon_hours: int) -> pa.Table:
    """Add will_buy and label_matures_at to sequence rows, in the same order.

    will_buy: the user purchases strictly later than the row and at most horizon_hours later, in another order than
    the row's own (so a purchase never predicts itself). Before label_matures_at a "no" may still become a "yes".
    """
    numbered = rows.append_column("row", pa.array(range(rows.num_rows)))
    labelled = _labelled(ibis.memtable(numbered), horizon_hours)
    engine = ibis.duckdb.connect()  # Ibis' own would stay open, and at the end of a process complain of it at length
    try:
        result = engine.to_pyarrow(labelled.order_by("row").select("will_buy"))
    finally:
        engine.disconnect()
    matures = pc.add(rows["occurred_at"], pa.scalar(timedelta(hours=horizon_hours), pa.duration("us")))
    return rows.append_column("will_buy", result["will_buy"]).append_column("label_matures_at", matures)


def _labelled(rows: ir.Table, horizon_hours: int) -> ir.Table:
    ahead = {"following": (ibis.interval(microseconds=1), ibis.interval(hours=horizon_hours))}
    is_purchase = (rows.event_type == "purchase").cast("int64")
    any_order = ibis.range_window(group_by="user_id", order_by="occurred_at", **ahead)
    same_order = ibis.range_window(group_by=["user_id", "order_id"], order_by="occurred_at", **ahead)
    bought = is_purchase.sum().over(any_order).fill_null(0)
    bought_in_own_order = rows.order_id.notnull().ifelse(is_purchase.sum().over(same_order).fill_null(0), 0)
    return rows.select("row", will_buy=bought > bought_in_own_order)


def split_by_time(days: Sequence[date], horizon_hours: int) -> Split:
    """Newest mature days for testing, a gap, days for validation, a gap, the rest for training; parts may be empty.

    A day is mature when a whole horizon of later days is there.
    """
    gap = timedelta(days=-(-horizon_hours // 24))
    ordered = sorted(days)
    if not ordered:
        return Split(train=(), validation=(), test=())
    mature = [day for day in ordered if day + gap <= ordered[-1]]
    test = mature[-DAYS_FOR_TEST:]
    before_test = [day for day in mature if test and day + gap < test[0]]
    validation = before_test[-DAYS_FOR_VALIDATION:]
    train = [day for day in before_test if validation and day + gap < validation[0]]
    return Split(train=tuple(train), validation=tuple(validation), test=tuple(test))
