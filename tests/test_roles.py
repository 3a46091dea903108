"""sql/roles.sql: who may only read."""

import json
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from intent_platform import cli
from intent_platform.paths import resource_folder

READABLE = ("profiles.user_profile", "profiles.hot_shopper", "profiles.funnel_by_day", "quality.file_account")


@pytest.fixture
def superuser(settings):
    """A cursor, after roles.sql has run twice."""
    password = json.loads((Path(settings.postgres_home) / "passwords.json").read_text())["postgres"]
    url = sa.make_url(settings.database_url)
    connection = psycopg2.connect(host=url.query["host"], user="postgres", password=password, dbname=url.database)
    connection.autocommit = True
    statements = (resource_folder("sql") / "roles.sql").read_text(encoding="utf-8")
    try:
        with connection.cursor() as cursor:
            cursor.execute(statements)
            cursor.execute(statements)
            yield cursor
    finally:
        connection.close()


@pytest.fixture
def reader(superuser):
    superuser.execute("SET ROLE intent_reader")
    return superuser


@pytest.fixture
def producer(superuser):
    superuser.execute("SET ROLE intent_producer")
    return superuser


def test_a_reader_reads_what_analysts_need(reader):
    for table in (*READABLE, "registry.promotion"):
        reader.execute(f"SELECT * FROM {table}")
    reader.execute("SELECT * FROM profiles.profile_as_of('u1_0', now())")


def test_a_reader_writes_nothing(reader):
    for statement in ("DELETE FROM profiles.user_profile", "INSERT INTO registry.promotion DEFAULT VALUES"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            reader.execute(statement)


def test_a_producer_puts_events_and_sees_nothing(producer):
    producer.execute("INSERT INTO inbox.event (event_id, event_type) VALUES ('e1', 'view')")
    producer.execute("""SELECT inbox.put('{"event_id": "e2"}')""")
    for statement in (
        "SELECT * FROM inbox.event",
        "SELECT * FROM profiles.user_profile",
        "DELETE FROM inbox.event",
        "INSERT INTO inbox.event (seq, event_id) VALUES (1, 'e3')",  # another's number
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            producer.execute(statement)


def test_a_reader_does_not_see_raw_behaviour(reader):
    for table in ("inbox.event", "inbox.accepted", "nearline.user_state"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            reader.execute(f"SELECT * FROM {table}")


def test_a_producer_may_use_the_command_too(settings, superuser, monkeypatch):
    superuser.execute("GRANT intent_producer TO intent")
    monkeypatch.setenv("INTENT_DATABASE_URL", f"{settings.database_url}&options=-c%20role%3Dintent_producer")
    done = CliRunner().invoke(cli.app, ["put", '{"event_id": "e4"}'])
    superuser.execute("REVOKE intent_producer FROM intent")
    assert done.stdout.startswith("1 events wait")
    assert done.stderr == ""
