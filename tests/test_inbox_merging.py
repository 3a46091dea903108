"""What is remembered and what is new, as one history per owner."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from intent_platform.inbox.merging import Device, Devices, as_sequences, merge
from intent_platform.inbox.states import OWNED_SCHEMA
from intent_platform.model.rows import Rows
from intent_platform.settings import Settings

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)
NO_DEVICES = Devices(known={}, newly_linked={}, settings=Settings())


def owned(*events: tuple[str, datetime, str]) -> pa.Table:
    """Rows of OWNED_SCHEMA from (user_id, occurred_at, event_id)."""
    given = [dict(zip(("user_id", "occurred_at", "event_id"), each, strict=True)) for each in events]
    return pa.Table.from_pylist([dict.fromkeys(OWNED_SCHEMA.names) | each for each in given], schema=OWNED_SCHEMA)


def test_an_event_id_counts_once_per_owner_at_its_earliest_moment_and_what_came_first_stays():
    later = NOON + timedelta(minutes=1)
    remembered = owned(("b", later, "e1"), ("a", later, "e2"), ("a", NOON, "e1"))
    new = owned(("b", NOON, "e1"), ("a", NOON, "e1"), ("a", later, "e1"), ("a", NOON, "e3"))
    remembered = remembered.set_column(
        remembered.schema.get_field_index("item_id"), "item_id", pa.array(["old"] * 3, pa.string())
    )
    merged = merge(remembered, new, NO_DEVICES).select(["user_id", "occurred_at", "event_id", "item_id"])
    assert [tuple(each.values()) for each in merged.to_pylist()] == [
        ("a", NOON, "e1", "old"),
        ("a", NOON, "e3", None),
        ("a", later, "e2", "old"),
        ("b", NOON, "e1", None),
    ]


def test_a_session_that_goes_on_for_days_begins_no_earlier_than_the_day_before():
    times = [NOON + timedelta(minutes=20 * each) for each in range(4 * 72)]
    rows = Rows.of(owned(*(("a", at, f"e{number:03}") for number, at in enumerate(times)), ("b", NOON, "e")))
    day = timedelta(days=1)
    begins = [max(NOON, at.replace(hour=0, minute=0) - day) for at in times] + [NOON]
    expected = np.array([each.replace(tzinfo=None) for each in begins], "datetime64[us]").astype(np.int64)
    assert (as_sequences(rows, Settings()).session_at == expected).all()


def test_a_history_that_begins_within_a_session_is_the_same_by_day_and_by_state():
    midnight = NOON.replace(hour=0)
    times = [midnight + timedelta(minutes=minutes) for minutes in (5, 20, 90)]  # and one before midnight, which is cut
    known = owned(*(("a", at, f"e{at:%H%M}") for at in times), ("b", times[1], "e"))
    by_day = [midnight - timedelta(minutes=10), midnight - timedelta(minutes=10), times[2], times[1]]
    sequences = Rows.of(known.append_column("session_started_at", pa.array(by_day, pa.timestamp("us", "UTC"))))
    by_state = as_sequences(Rows.of(known), Settings())
    assert sequences.session_at.tolist() == by_state.session_at.tolist()


def test_of_two_users_whom_a_device_names_at_one_moment_the_last_by_name_owns_it_as_in_the_lake():
    for order in (["u1", "u2"], ["u2", "u1"], ["u1", "u2", "u1"]):
        device = Device()
        for each in order:
            device.link(NOON, each, Settings())
        assert device.user_at(NOON, Settings()) == "u2"
        assert device.user_id == ["u1", "u2"]
