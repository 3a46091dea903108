"""The schema as the machine has it: every table and column explained, migrations repeatable."""

import pytest
import sqlalchemy as sa

from intent_platform import db
from intent_platform.db import migrations
from intent_platform.errors import DatabaseUnavailable

SCHEMAS = ("inbox", "nearline", "profiles", "quality", "registry")


def test_every_table_view_and_column_has_a_comment(settings):
    with db.connect(settings) as connection:
        uncommented = connection.execute(
            sa.text("""
                SELECT class.oid::regclass::text AS relation, attribute.attname
                FROM pg_class AS class
                JOIN pg_namespace AS space ON space.oid = class.relnamespace
                LEFT JOIN pg_attribute AS attribute
                    ON attribute.attrelid = class.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
                    AND class.relkind IN ('r', 'p')
                WHERE space.nspname = ANY(:schemas) AND class.relkind IN ('r', 'p', 'v') AND NOT class.relispartition
                  AND (obj_description(class.oid, 'pg_class') IS NULL
                       OR (attribute.attnum IS NOT NULL AND col_description(class.oid, attribute.attnum) IS NULL))
            """),
            {"schemas": list(SCHEMAS)},
        ).all()
    assert uncommented == []


def test_migrating_twice_changes_nothing(settings):
    assert db.migrate(settings) == db.migrate(settings)


def test_a_server_that_lacks_what_the_statements_need_is_refused(settings, monkeypatch):
    monkeypatch.setattr(migrations, "OLDEST_SERVER", 99)
    with pytest.raises(DatabaseUnavailable, match="99 or newer is needed"):
        db.migrate(settings)
