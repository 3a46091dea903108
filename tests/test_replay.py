"""Quarantined rows come in exactly once when they are good, and a rerun of their day keeps them."""

import json
from datetime import date

import pytest
import sqlalchemy as sa

from intent_platform import daily, db
from intent_platform.errors import NotEnoughData
from intent_platform.keys import create_missing_keys

DAY = date(2026, 8, 21)
MAPPING = """
kind = "events"
[columns]
event_type = "what"
occurred_at = "at"
user_id = "who"
item_id = "item"
price = "price"
[event_types]
view = "view"
"""


@pytest.fixture
def day_file(settings, tmp_path):
    """Two good rows, one of an unknown kind, one with an absurd price, and a repeat of the first row."""
    create_missing_keys(settings)
    mapping, file = tmp_path / "shop.toml", tmp_path / "events.csv"
    mapping.write_text(MAPPING)
    rows = ["view,2026-08-21T10:00:00Z,ann,i1,5", "view,2026-08-21T11:00:00Z,bob,i2,5"]
    rows += ["hover,2026-08-21T12:00:00Z,ann,i1,5", "view,2026-08-21T13:00:00Z,bob,i3,-7", rows[0]]
    file.write_text("what,at,who,item,price\n" + "\n".join(rows) + "\n")
    validate = {"source": str(mapping), "path": str(file), "max_rejected_ratio": 0.5}
    daily.validate_events(DAY, settings, **validate)
    return settings, mapping, validate


def account(settings) -> tuple:
    with db.connect(settings) as connection:
        columns = "rows_read, accepted, quarantined, duplicate"
        (row,) = connection.execute(sa.text(f"SELECT {columns} FROM quality.file_account")).all()
        days = connection.execute(sa.text("SELECT rows, content_digest FROM quality.clean_day")).all()
    return tuple(row), [tuple(each) for each in days]


def test_a_mended_mapping_lets_its_rows_in_once(day_file):
    settings, mapping, validate = day_file
    assert account(settings)[0] == (5, 2, 2, 1)
    mapping.write_text(MAPPING + 'hover = "click"\n')
    report = daily.replay_quarantine(DAY, settings, source=str(mapping))
    assert report.days_published == (DAY,)
    after = account(settings)
    assert after[0] == (5, 3, 1, 1)
    assert daily.replay_quarantine(DAY, settings, source=str(mapping)).accounts == ()
    daily.validate_events(DAY, settings, **validate)
    assert account(settings) == after


def test_rows_mended_by_hand_come_in_once_and_survive_a_rerun(day_file, tmp_path):
    settings, mapping, validate = day_file
    held = list(daily.quarantined(DAY, settings))
    assert [(each.line, each.broken_rule) for each in held] == [(4, "event_type_unknown"), (5, "price_absurd")]
    mended = tmp_path / "mended.jsonl"
    mended.write_text(json.dumps({"file": held[1].file, "line": 5, "raw": held[1].raw.replace("-7", "7")}) + "\n")
    daily.replay_quarantine(DAY, settings, source=str(mapping), fixed=mended)
    after = account(settings)
    assert after[0] == (5, 3, 1, 1)
    daily.validate_events(DAY, settings, **validate)
    assert account(settings) == after
    with pytest.raises(NotEnoughData, match="not in quarantine"):
        daily.replay_quarantine(DAY, settings, source=str(mapping), fixed=mended)
    assert account(settings) == after
