"""Owners, sessions, labels and the split, on logs small enough to read."""

from datetime import UTC, date, datetime, timedelta

import ibis
import pyarrow as pa
import pytest

from intent_platform.events.engine import open_engine
from intent_platform.lake import Lake
from intent_platform.sequences import label, offsets, split_by_time
from intent_platform.sequences.account import figures_of
from intent_platform.sequences.build import link_changes, with_owner, with_sessions

START = datetime(2026, 8, 1, tzinfo=UTC)
UTC_TIME = pa.timestamp("us", "UTC")


def events(*rows: tuple) -> pa.Table:
    """Rows of (user_id, anonymous_id, hours after START, event_type, order_id)."""
    return pa.table(
        {
            "event_id": [f"e{position:03}" for position in range(len(rows))],
            "user_id": pa.array([row[0] for row in rows], pa.string()),
            "anonymous_id": pa.array([row[1] for row in rows], pa.string()),
            "occurred_at": pa.array([START + timedelta(hours=row[2]) for row in rows], UTC_TIME),
            "event_type": [row[3] if len(row) > 3 else "view" for row in rows],
            "order_id": pa.array([row[4] if len(row) > 4 else None for row in rows], pa.string()),
        }
    )


def marked_rows(*rows: tuple) -> pa.Table:
    """Rows of (user_id, hours after START, event_type, item_id), their sessions marked."""
    table = events(*((user, None, hours, kind) for user, hours, kind, _ in rows))
    table = table.append_column("item_id", pa.array([row[3] for row in rows], pa.string()))
    return with_sessions(ibis.memtable(table), gap_minutes=30).to_pyarrow()


def owners(table: pa.Table) -> list[str]:
    rows = ibis.memtable(table)
    owned = with_owner(rows, link_changes(rows))
    return owned.order_by("event_id").to_pyarrow()["user_id"].to_pylist()


def test_anonymous_events_join_the_user_forward_never_backwards():
    table = events((None, "phone", 0), ("ann", "phone", 1), (None, "phone", 2))
    assert owners(table) == ["phone", "ann", "ann"]


def test_a_shared_device_follows_its_newest_login():
    table = events(
        ("ann", "pad", 0), (None, "pad", 1), ("bob", "pad", 2), (None, "pad", 3), ("ann", "pad", 4), (None, "pad", 5)
    )
    assert owners(table) == ["ann", "ann", "bob", "bob", "ann", "ann"]


def test_a_silence_longer_than_the_gap_begins_a_session():
    table = events(("ann", None, 0), ("ann", None, 0.5), ("ann", None, 1.01), ("bob", None, 1.01))
    marked = with_sessions(ibis.memtable(table), gap_minutes=30).order_by("event_id").to_pyarrow()
    begins = [(each - START) / timedelta(hours=1) for each in marked["session_started_at"].to_pylist()]
    assert begins == pytest.approx([0, 0, 1.01, 1.01])


def test_a_purchase_counts_as_following_a_view_of_its_item_in_its_session_only(settings):
    table = marked_rows(
        ("ann", 0, "view", "boot"),
        ("ann", 0.1, "purchase", "boot"),  # seen before
        ("ann", 0.2, "purchase", "sock"),  # never seen
        ("ann", 0.3, "view", "sock"),  # too late
        ("ann", 5, "purchase", "boot"),  # seen, but in another session
        ("bob", 0.1, "purchase", "boot"),  # seen by another shopper
        ("bob", 0.1, "view", None),
    )
    with open_engine(settings, Lake(settings.lake_root, settings.shop)) as engine:
        figures = figures_of(ibis.memtable(table), engine)
    assert figures == {"shoppers": "2", "sessions": "3", "purchases": "4", "purchases_after_view": "1"}


def test_a_purchase_within_the_horizon_is_a_label_and_its_own_order_is_not():
    table = events(
        ("ann", None, 0),
        ("ann", None, 1, "purchase", "o1"),
        ("ann", None, 1.1, "purchase", "o1"),
        ("ann", None, 26),
        ("ann", None, 60, "purchase", "o2"),
        ("bob", None, 0),
    )
    labelled = label(table, horizon_hours=24)
    assert labelled["will_buy"].to_pylist() == [True, False, False, False, False, False]
    assert labelled["label_matures_at"][0].as_py() == START + timedelta(hours=24)


def test_the_horizon_is_closed_at_its_end_and_open_at_its_beginning():
    table = events(("ann", None, 0), ("ann", None, 24, "purchase", None), ("bob", None, 0, "purchase", None))
    assert label(table, horizon_hours=24)["will_buy"].to_pylist() == [True, False, False]


def test_parts_of_the_split_keep_a_horizon_between_them_and_leave_fresh_days_out():
    days = [date(2026, 8, 1) + timedelta(days=count) for count in range(14)]
    split = split_by_time(days, horizon_hours=24)
    assert split.test[-1] == days[-2]  # the newest day's labels are not mature
    assert split.validation[-1] + timedelta(days=2) == split.test[0]
    assert split.train[-1] + timedelta(days=2) == split.validation[0]


def test_one_day_gives_nothing_to_train_on():
    assert split_by_time([date(2026, 8, 1)], horizon_hours=24).train == ()


def test_offsets_mark_where_each_user_begins():
    assert offsets(events(("ann", None, 0), ("ann", None, 1), ("bob", None, 0))).tolist() == [0, 2, 3]
