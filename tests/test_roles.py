"""sql/roles.sql: who may only read."""

import json
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from intent_platform.paths import resource_folder

READABLE = ("profiles.user_profile", "profiles.hot_shopper", "profiles.funnel_by_day", "quality.file_account")


@pytest.fixture
def reader(settings):
    """A cursor of role intent_reader, after roles.sql has run twice."""
    password = json.loads((Path(settings.postgres_home) / "passwords.json").read_text())["postgres"]
    url = sa.make_url(settings.database_url)
    connection = psycopg2.connect(host=url.query["host"], user="postgres", password=password, dbname=url.database)
    connection.autocommit = True
    statements = (resource_folder("sql") / "roles.sql").read_text(encoding="utf-8")
    try:
        with connection.cursor() as cursor:
            cursor.execute(statements)
            cursor.execute(statements)
            cursor.execute("SET ROLE intent_reader")
            yield cursor
    finally:
        connection.close()


def test_a_reader_reads_what_analysts_need(reader):
    for table in (*READABLE, "registry.promotion"):
        reader.execute(f"SELECT * FROM {table}")
    reader.execute("SELECT * FROM profiles.profile_as_of('u1_0', now())")


def test_a_reader_writes_nothing(reader):
    for statement in ("DELETE FROM profiles.user_profile", "INSERT INTO registry.promotion DEFAULT VALUES"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            reader.execute(statement)
