"""The synthetic shop through the whole day: every row of dirt that was written is found, under its own rule."""

import json
from datetime import date, timedelta

import pytest
import sqlalchemy as sa

from intent_platform import daily, db
from intent_platform.keys import create_missing_keys
from intent_platform.synthetic import write_shop

FIRST_DAY = date(2026, 8, 1)
DAYS = [FIRST_DAY + timedelta(days=count) for count in range(4)]
RULE_OF_DIRT = {
    "torn": "row_torn",
    "impossible_price": "price_absurd",
    "unknown_event_type": "event_type_unknown",
    "broken_encoding": "encoding_broken",
    "user_missing": "user_missing",
}


@pytest.fixture(scope="module")
def shop(module_settings, tmp_path_factory):
    """Four days of a small shop, validated in order; the dirt as its maker counted it."""
    folder = tmp_path_factory.mktemp("shop") / "out"
    write_shop(folder, first_day=FIRST_DAY, days=len(DAYS), users=400, seed=11)
    create_missing_keys(module_settings)
    reports = {
        day: daily.validate_events(day, module_settings, path=str(folder / "events" / f"{day}.csv")) for day in DAYS
    }
    return module_settings, reports, json.loads((folder / "dirt.json").read_text())


def test_each_kind_of_dirt_is_found_in_its_exact_amount(shop):
    _, reports, dirt = shop
    for day, report in reports.items():
        (account,), made = report.accounts, dirt[str(day)]
        assert account.rows_read == made["rows_written"]
        assert account.duplicate == made["duplicate_in_file"]
        expected = {rule: made[kind] for kind, rule in RULE_OF_DIRT.items() if made[kind]}
        outside = made["too_late"] + made["future"]
        assert account.by_rule == expected | ({"occurred_outside_window": outside} if outside else {})


def test_repeats_in_a_later_file_are_counted_where_days_are_merged(shop):
    settings, _, dirt = shop
    with db.connect(settings) as connection:
        merged = connection.execute(sa.text("SELECT sum(duplicate) FROM quality.clean_day")).scalar_one()
    assert merged == sum(dirt[str(day)]["duplicate_from_earlier_file"] for day in DAYS)


def test_late_events_reach_their_own_day(shop):
    settings, reports, dirt = shop
    assert reports[DAYS[2]].days_published[-1] == DAYS[2]
    assert len(reports[DAYS[2]].days_published) > 1
    with db.connect(settings) as connection:
        rows = connection.execute(sa.text("SELECT sum(rows) FROM quality.clean_day")).scalar_one()
    assert rows == sum(dirt[str(day)]["clean"] for day in DAYS)
