"""What db adds to a driver's connection: statements planned once, a connection that is kept, errors that say more."""

import pytest
import sqlalchemy as sa

from intent_platform import db
from intent_platform.errors import DatabaseUnavailable


def test_a_statement_is_planned_once_per_connection_and_again_on_a_new_one(settings):
    for _ in range(2):
        kept = db.keep_connection(settings)
        for user_ids in (["b", "a"], ["c"], []):
            with db.transaction(kept, settings):
                rows = db.prepared(kept, "add_missing_states", "lock_states", shop="main", user_ids=user_ids)
                assert [row["user_id"] for row in rows] == sorted(user_ids)
        planned = sa.text("SELECT name, generic_plans + custom_plans FROM pg_prepared_statements ORDER BY name")
        with db.transaction(kept, settings):
            assert list(map(tuple, kept.execute(planned))) == [("add_missing_states", 3), ("lock_states", 3)]
        kept.invalidate()
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
