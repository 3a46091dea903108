"""The main job on a real shop's file, from raw rows to profiles, by the same functions that the DAGs call."""

import os
from datetime import date
from pathlib import Path

import pyarrow.compute as pc
import pytest
import sqlalchemy as sa

from intent_platform import daily, db
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake

DAY = date(2019, 10, 1)
REES46 = Path(os.environ.get("INTENT_BENCH_DATA", "../shared/data")) / "rees46" / "2019-10-01.csv"
needs_rees46 = pytest.mark.skipif(not REES46.exists(), reason=f"benchmark data is absent: {REES46}")


@pytest.fixture(scope="module")
def rees46_day(module_settings):
    settings = module_settings
    create_missing_keys(settings)
    return settings, daily.run_day(DAY, settings, source="rees46", path=str(REES46))


def dump(settings, table: str) -> list:
    with db.connect(settings) as connection:
        return sorted(map(repr, connection.execute(sa.text(f"SELECT * FROM {table}")).all()))


@needs_rees46
@pytest.mark.needs_bench_data
def test_rees46_rows_are_all_accounted_for(rees46_day):
    settings, (received, refreshed) = rees46_day
    (account,) = received.accounts
    assert account.rows_read == 17_435
    assert account.rows_read == account.accepted + account.quarantined + account.duplicate
    assert account.by_rule == {"row_torn": 1}
    assert account.duplicate == 5  # exact repeats, found by `sort | uniq -d` too
    with db.connect(settings) as connection:
        users = connection.execute(sa.text("SELECT count(*) FROM profiles.user_profile")).scalar_one()
    assert users == refreshed.users == 4_504


@needs_rees46
@pytest.mark.needs_bench_data
def test_rees46_purchases_follow_views_of_the_same_product_in_the_session(rees46_day):
    settings, _ = rees46_day
    rows = Lake(settings.lake_root, settings.shop).snapshot().read("sequences")
    is_view = pc.equal(rows["event_type"], "view")
    views = {
        (session, item): at
        for session, item, at in sorted(
            zip(
                *(rows.filter(is_view)[name].to_pylist() for name in ("session_id", "item_id", "occurred_at")),
                strict=True,
            ),
            key=lambda each: each[2],
            reverse=True,
        )
    }
    bought = rows.filter(pc.equal(rows["event_type"], "purchase"))
    earlier = [
        (session, item) in views and views[session, item] <= at
        for session, item, at in zip(
            *(bought[name].to_pylist() for name in ("session_id", "item_id", "occurred_at")), strict=True
        )
    ]
    assert (sum(earlier), len(earlier)) == (212, 214)


@needs_rees46
@pytest.mark.needs_bench_data
def test_a_second_run_of_a_day_changes_no_row_and_no_digest(rees46_day):
    settings, _ = rees46_day
    tables = ("quality.file_account", "quality.rule_account", "quality.clean_day", "quality.event_count")
    tables += ("quality.expectation_result", "profiles.user_profile", "profiles.user_interest")
    tables += ("profiles.user_recommendation", "profiles.user_profile_history", "profiles.item", "registry.promotion")
    before = {table: dump(settings, table) for table in tables}
    clean = Lake(settings.lake_root, settings.shop).snapshot().files("clean", f"day={DAY}")
    _, refreshed = daily.run_day(DAY, settings, source="rees46", path=str(REES46))
    assert refreshed.rows_changed == 0
    assert {table: dump(settings, table) for table in tables} == before
    assert Lake(settings.lake_root, settings.shop).snapshot().files("clean", f"day={DAY}") == clean
