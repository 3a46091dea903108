"""The bulk refresh: chunks, each whole, the day's marker last; only rows that differ are written."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sqlalchemy as sa
from model_shop import publish
from received import an_event, write_file

from intent_platform import daily, db
from intent_platform.keys import create_missing_keys
from intent_platform.profiles import ProfileRows, upsert
from intent_platform.profiles.upsert import _content, _digests

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
    late = events[0] | {"event_id": "late"}  # came today, so that today was received, and says nothing of today
    daily.validate_events(TODAY, settings, path=str(write_file(tmp_path, "today.csv", [late])))
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

    def write_and_die(*given, **more):
        assert next(calls) < 2, "power is gone"
        return write(*given, **more)

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


def test_of_interests_and_recommendations_only_the_set_whose_digest_differs_is_touched(shop):
    daily.refresh_profiles(YESTERDAY, shop)
    expected, before = content(shop), versions(shop)
    emptied = "overlay(content_digest PLACING '0000000000000000' FROM 18)"
    rows_of(shop, f"UPDATE profiles.user_profile SET content_digest = {emptied} RETURNING 1")
    assert rows_of(shop, "UPDATE profiles.user_interest SET weight = 0.5 WHERE rank = 1 RETURNING 1")
    assert daily.refresh_profiles(YESTERDAY, shop).rows_changed == 5
    assert content(shop) == expected
    assert versions(shop)[2] == before[2]


def test_satellites_that_another_writer_changed_before_the_lock_was_had_are_put_right(shop, monkeypatch):
    daily.refresh_profiles(YESTERDAY, shop)
    daily.refresh_profiles(TODAY, shop)
    expected = content(shop)
    rows_of(shop, "TRUNCATE profiles.user_profile, profiles.user_profile_history CASCADE; SELECT 1")
    daily.refresh_profiles(YESTERDAY, shop)
    overtaken = []

    def be_overtaken_and_upsert(connection, rows):
        with db.connect(shop) as other:
            overtaken.append(upsert(other, an_hour_before(rows)))
        return upsert(connection, rows)

    monkeypatch.setattr(daily, "upsert", be_overtaken_and_upsert)
    daily.refresh_profiles(TODAY, shop)
    assert sum(overtaken) == 5
    assert {name: rows for name, rows in content(shop).items() if name != "history"} == {
        name: rows for name, rows in expected.items() if name != "history"
    }


def an_hour_before(rows: ProfileRows) -> ProfileRows:
    """What a scorer may have told of these shoppers: another profile, half the interest, one recommendation."""
    profiles = rows.profiles
    earlier = pc.subtract(profiles["valid_at"], pa.scalar(timedelta(hours=1)))
    other = pa.array([f"{'1' * 16}-{'2' * 16}-{'3' * 16}"] * profiles.num_rows)
    for name, values in {"valid_at": earlier, "content_digest": other}.items():
        profiles = profiles.set_column(profiles.column_names.index(name), name, values)
    halved = pc.multiply(rows.interests["weight"], 0.5)
    interests = rows.interests.set_column(rows.interests.column_names.index("weight"), "weight", halved)
    best = rows.recommendations.filter(pc.equal(rows.recommendations["rank"], 1))
    stamp = replace(rows.stamp, source="nearline")
    return replace(rows, profiles=profiles, interests=interests, recommendations=best, stamp=stamp)


def test_only_the_days_marker_waits_for_the_disk(shop, monkeypatch):
    setting = "SELECT setting, source FROM pg_settings WHERE name = 'synchronous_commit'"
    ours, found = rows_of(shop, setting), []

    def upsert_and_tell(connection, rows):
        found.append(tuple(connection.execute(sa.text(setting)).one()))
        return upsert(connection, rows)

    monkeypatch.setattr(daily, "upsert", upsert_and_tell)
    daily.refresh_profiles(YESTERDAY, shop)
    assert found == [("off", "session")] * 3
    assert rows_of(shop, setting) == ours != [("off", "session")]


@pytest.mark.parametrize("some", [["b", None, "çé"], [None, None], [""], []])
def test_a_chunk_of_a_table_brings_its_own_texts_alone(some):
    table = pa.table({"text": pa.array(["aa", *some, "far more than a chunk"], pa.string())})
    content, bounds = _content(table["text"].chunk(0).slice(1, len(some)))
    assert [content[start:end].decode() for start, end in pairwise(bounds.tolist())] == [each or "" for each in some]
    assert len(content) == bounds[-1]


def test_a_digest_covers_every_value_and_no_neighbour():
    rows = pa.table(
        {"text": ["ab", "a", "a", None, ""], "more": ["c", "bc", "bc", "", None], "number": [1.0, 1, 2, 2, 2]}
    )
    each_alone = np.arange(6)
    digests = _digests(rows, each_alone)
    assert len(set(digests)) == 5
    assert _digests(rows.slice(2, 2), each_alone[:3]) == digests[2:4]
    assert _digests(rows, np.array([0, 2, 2, 5]))[1] == _digests(rows.slice(0, 0), np.array([0, 0]))[0]


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
