"""What waits in the inbox is judged as the rows of a file are."""

import json

import numpy as np
import pyarrow as pa
import pytest
from received import COLUMNS, DAY, an_event, door_of

from intent_platform.events import intake
from intent_platform.events.engine import open_engine
from intent_platform.events.framing import KEPT_OF_LONG_ROW_BYTES, MAX_ROW_BYTES
from intent_platform.events.readers import RawRows
from intent_platform.inbox.door import NAME, InboxDoor
from intent_platform.keys import create_missing_keys
from intent_platform.settings import Settings

NOTHING_GIVEN = dict.fromkeys((*COLUMNS, "unreadable"))
ODD_TEXTS = (
    *("it's", 'a "b"', "a\\b", "\\u0000", "🛒🏳️‍🌈", "e\u0301", "\ufeff", " tab\t\r\n", "null", "$1"),
    *(
        "x" * 257,
        "é" * 256,
        "1",
        "0",
        "-1",
        "4.5",
        "2.5",
        "2.0",
        "1e20",
        "1e400",
        "nan",
        "-inf",
        "0.1234567891",
        "3.4e39",
        "2147483648",
        "١",
        "0x1F",
    ),
    *(" ", "\t\n "),
    *("infinity", "-infinity", "epoch", "294247-01-10T04:00:54Z", "44-03-15 (BC)", f"{DAY}T25:00:00Z"),
    *(f"{DAY}T23:59:59.9999999Z", f"{DAY} 10:00 +05:30", f"{DAY}", "search", "rating", "hover", "", "EURO", "USD"),
)


@pytest.fixture
def offline(tmp_path):
    settings = Settings(home=tmp_path / "home", threads=1)
    create_missing_keys(settings)
    return settings


def test_the_inbox_judges_rows_as_a_file_in_the_contracts_words_would(offline):
    changes = [{name: text} for name in COLUMNS for text in ODD_TEXTS if text.strip() or name != "event_id"]
    more_than_a_vector = 3 * changes  # of DuckDB's 2,048 rows
    events = [NOTHING_GIVEN | an_event(each, **change) for each, change in enumerate(more_than_a_vector)]
    inbox = InboxDoor(DAY, offline)
    judged = inbox.judge([{"seq": 3 * place, **event} for place, event in enumerate(events)])
    inbox.close()

    door = door_of(offline)
    fields = pa.table({name: pa.array([each[name] for each in events], pa.string()) for name in COLUMNS})
    rows = RawRows(
        lines=3 * np.arange(len(events)),
        unreadable=pa.nulls(len(events), pa.string()),
        fields=door.pseudonymiser.replace_ids(fields),
        raw=lambda _: b"",
    )
    with open_engine(offline, door.lake) as engine:
        accepted, rejected = intake.judge(rows, NAME, door, engine)
    assert judged.accepted.equals(accepted.sort_by("line"))
    assert [(each.place, each.broken_rule) for each in judged.rejected] == [
        (each.place, each.broken_rule) for each in rejected
    ]
    assert judged.accepted.num_rows > 100 < len(judged.rejected)


def test_each_batch_is_judged_by_itself(offline):
    inbox = InboxDoor(DAY, offline)
    for count in (3, 1, 5):
        events = [NOTHING_GIVEN | an_event(number) for number in range(count)]
        accepted = inbox.judge([{"seq": 7, **each} for each in events]).accepted
        assert accepted["event_id"].to_pylist() == [each["event_id"] for each in events]
    inbox.close()


def test_of_an_event_longer_than_a_row_may_be_only_the_beginning_is_kept(offline):
    inbox = InboxDoor(DAY, offline)
    longest, longer = (an_event(1, user_id="u" * length) for length in (MAX_ROW_BYTES - 200, MAX_ROW_BYTES))
    judged = inbox.judge([{"seq": seq, **NOTHING_GIVEN, **each} for seq, each in enumerate((longest, longer))])
    assert judged.accepted["line"].to_pylist() == [0]
    (rejected,) = judged.rejected
    assert rejected.broken_rule == "row_too_long"
    assert len(rejected.raw) < KEPT_OF_LONG_ROW_BYTES
    kept = json.loads(rejected.raw)
    assert kept["user_id"] in longer["user_id"]
    again = inbox.judge([{"seq": 1, **NOTHING_GIVEN, **kept}])
    assert [each.broken_rule for each in again.rejected] == ["row_too_long"]
    inbox.close()


def test_a_blank_event_id_is_none(offline):
    inbox = InboxDoor(DAY, offline)
    judged = inbox.judge([{"seq": 1, **NOTHING_GIVEN, **an_event(1, event_id=" \t")}])
    assert [each.broken_rule for each in judged.rejected] == ["event_id_missing"]
    inbox.close()
