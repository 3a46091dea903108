"""What db adds to a driver's connection: statements prepared once, a connection that is kept, errors that say more."""

import pytest
import sqlalchemy as sa

from intent_platform import db
from intent_platform.db import connection
from intent_platform.errors import DatabaseUnavailable

PREPARED = sa.text("SELECT name, generic_plans + custom_plans, prepare_time FROM pg_prepared_statements ORDER BY name")


def test_a_statement_is_prepared_once_per_connection_and_again_on_a_new_one(settings):
    for _ in range(2):
        kept = db.keep_connection(settings)
        for user_ids in (["b", "a"], ["c"], []):
            with db.transaction(kept, settings):
                rows = db.prepared(kept, "add_missing_states", "lock_states", shop="main", user_ids=user_ids)
                assert [row["user_id"] for row in rows] == sorted(user_ids)
        with db.transaction(kept, settings):
            runs = {row.name: row[1] for row in kept.execute(PREPARED)}
        assert runs == {"add_missing_states": 3, "lock_states": 3}
        kept.invalidate()
        kept.close()


def test_a_plan_is_made_anew_after_a_while(settings, monkeypatch):
    kept = db.keep_connection(settings)
    found = []
    for lasts_s in (10.0, 10.0, 0.0):
        monkeypatch.setattr(connection, "PLANS_LAST_S", lasts_s)
        with db.transaction(kept, settings):
            db.prepared(kept, "lock_states", shop="main", user_ids=["a"])
            found += [row.prepare_time for row in kept.execute(PREPARED)]
    kept.close()
    assert found[0] == found[1] < found[2]


def test_a_pooler_that_changes_servers_is_told_and_the_next_connection_begins_anew(settings):
    kept = db.keep_connection(settings)
    with db.transaction(kept, settings):
        db.prepared(kept, "lock_states", shop="main", user_ids=["a"])
        kept.exec_driver_sql("DEALLOCATE ALL")
    with pytest.raises(DatabaseUnavailable, match="pool by session"), db.transaction(kept, settings):
        db.prepared(kept, "lock_states", shop="main", user_ids=["a"])
    with db.transaction(kept, settings):
        assert db.prepared(kept, "lock_states", shop="main", user_ids=["a"]) == []
    kept.close()


def test_a_kept_connection_rolls_back_what_failed_and_says_when_it_is_lost(settings):
    kept = db.keep_connection(settings)

    def fail() -> None:
        with db.transaction(kept, settings):
            db.prepared(kept, "add_missing_states", shop="main", user_ids=["a"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with db.transaction(kept, settings):
        assert kept.execute(sa.text("SELECT count(*) FROM nearline.user_state")).scalar_one() == 0
        pid = kept.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    with db.connect(settings) as other:
        other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with (
        pytest.raises(DatabaseUnavailable, match="Nothing of this transaction was kept"),
        db.transaction(kept, settings),
    ):
        db.prepared(kept, "lock_states", shop="main", user_ids=["a"])
    kept.close()
