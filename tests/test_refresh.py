"""The bulk refresh: chunks, each whole, the day's marker last; only rows that differ are written."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
import sqlalchemy as sa
from model_shop import publish
from received import an_event, write_file

from intent_platform import daily, db
from intent_platform.keys import create_missing_keys

TODAY = date(2026, 8, 21)
YESTERDAY = TODAY - timedelta(days=1)
SATELLITES = ("profiles.user_interest", "profiles.user_recommendation")


@pytest.fixture
def shop(settings, tmp_path, monkeypatch):
    """Five shoppers of one day in the lake, none of them scored yet; two to a transaction."""
    settings = replace(settings, threads=1)
    create_missing_keys(settings)
    publish(settings)
    events = [
        an_event(number, event_id=f"e{number}", item_id=f"i{number:02}", user_id=f"user-{number % 5}")
        | {"occurred_at": f"{YESTERDAY}T{number:02}:00:00Z"}
        for number in range(10)
    ]
    daily.validate_events(YESTERDAY, settings, path=str(write_file(tmp_path, "events.csv", events)))
    daily.build_sequences(YESTERDAY, settings)
    monkeypatch.setattr(daily, "USERS_PER_TRANSACTION", 2)
    return settings


def rows_of(settings, statement: str) -> list:
    with db.connect(settings) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def content(settings) -> dict[str, list]:
    """All that people read of the profiles."""
    history = "SELECT shop, user_id, as_of, content_digest FROM profiles.user_profile_history ORDER BY 2, 3"
    tables = {name: rows_of(settings, f"TABLE {name} ORDER BY 1, 2, 3") for name in SATELLITES}
    profiles = rows_of(settings, "TABLE profiles.user_profile ORDER BY 2")
    return {"profiles": profiles, **tables, "history": rows_of(settings, history)}


def versions(settings) -> list:
    """Which transaction wrote each row: changes with every write, be it of equal values."""
    return [
        rows_of(settings, f"SELECT user_id, xmin::text, ctid::text FROM {table} ORDER BY 1, 3")
        for table in ("profiles.user_profile", *SATELLITES)
    ]


def test_a_refresh_that_dies_leaves_its_day_unmarked_and_a_rerun_completes_it(shop, monkeypatch):
    write = daily._write
    calls = iter(range(5))

    def write_and_die(*given):
        assert next(calls) < 2, "power is gone"
        return write(*given)

    monkeypatch.setattr(daily, "_write", write_and_die)
    with pytest.raises(AssertionError, match="power is gone"):
        daily.refresh_profiles(YESTERDAY, shop)
    assert rows_of(shop, "SELECT count(*) FROM profiles.user_profile") == [(4,)]
    assert rows_of(shop, "SELECT count(*) FROM profiles.refreshed_day") == [(0,)]
    monkeypatch.setattr(daily, "_write", write)
    report = daily.refresh_profiles(YESTERDAY, shop)
    assert (report.users, report.rows_changed) == (5, 1)
    assert rows_of(shop, "SELECT day, users FROM profiles.refreshed_day") == [(YESTERDAY, 5)]
    completed = content(shop)
    rows_of(shop, "TRUNCATE profiles.user_profile, profiles.user_profile_history CASCADE; SELECT 1")
    daily.refresh_profiles(YESTERDAY, shop)
    assert content(shop) == completed


def test_a_rerun_writes_no_row(shop):
    daily.refresh_profiles(YESTERDAY, shop)
    before = versions(shop)
    assert daily.refresh_profiles(YESTERDAY, shop).rows_changed == 0
    assert versions(shop) == before


def test_the_next_day_moves_every_profile_and_leaves_satellites_that_say_the_same(shop):
    daily.refresh_profiles(YESTERDAY, shop)
    before = versions(shop)
    assert daily.refresh_profiles(TODAY, shop).rows_changed == 5
    after = versions(shop)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_satellites_that_are_too_many_too_few_or_wrong_are_mended_with_their_profile(shop):
    daily.refresh_profiles(YESTERDAY, shop)
    expected = content(shop)
    for damage in (
        "UPDATE profiles.user_profile SET content_digest = 'another'",
        "UPDATE profiles.user_interest SET weight = 0.5 WHERE rank = 1",
        "INSERT INTO profiles.user_interest SELECT shop, user_id, 9, 'gone', 0.1, now() FROM profiles.user_profile",
        "DELETE FROM profiles.user_recommendation WHERE rank > 3",
        "UPDATE profiles.user_recommendation SET item_id = 'i99' WHERE rank = 2",
    ):
        assert rows_of(shop, f"{damage} RETURNING 1")
    assert daily.refresh_profiles(YESTERDAY, shop).rows_changed == 5
    assert content(shop) == expected


def test_columns_arrive_in_postgres_as_they_were(settings):
    texts = ["plain", "", None, "NULL", 'say "hi"', "back\\slash", "{a,b}", "two\nlines", "it's", "%s :name", "运动鞋"]
    moments = [datetime(2026, 8, 21, 10, 7, 3, 141592, tzinfo=UTC), None] + [datetime(1970, 1, 1, tzinfo=UTC)] * 9
    numbers = [1 / 3, None, -1e-300, 1e300, 0.1 + 0.2, *map(float, range(6))]
    days = [TODAY, None] * 5 + [YESTERDAY]
    rows = pa.table(
        {
            "text": pa.array(texts),
            "moment": pa.array(moments, pa.timestamp("us", "UTC")),
            "number": pa.array(numbers, pa.float64()),
            "day": pa.array(days, pa.date32()),
        }
    )
    statement = """
    SELECT * FROM unnest(
        CAST(:x_text AS text []), CAST(:x_moment AS timestamptz []),
        CAST(:x_number AS float8 []), CAST(:x_day AS date [])
    )
    """
    with db.connect(settings) as connection:
        found = connection.execute(sa.text(statement), db.array_columns(rows, "x_")).all()
    assert [tuple(row) for row in found] == list(zip(texts, moments, numbers, days, strict=True))
