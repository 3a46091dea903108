"""Fixtures: a real Postgres for the run, a migrated database and an empty lake for each test."""

import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from intent_platform import db
from intent_platform.db.connection import _engine
from intent_platform.paths import resource_folder
from intent_platform.settings import Settings

AIRFLOW = {
    "AIRFLOW_HOME": tempfile.mkdtemp(prefix="intent-airflow-"),
    "AIRFLOW__CORE__DAGS_FOLDER": str(resource_folder("dags")),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(resource_folder("plugins")),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
}
os.environ["INTENT_NICENESS"] = "0"  # commands run within pytest's own process
os.environ.update(AIRFLOW)  # here, because Airflow reads its configuration when a test first imports it

FAST_SERVER = ("-c fsync=off", "-c synchronous_commit=off", "-c full_page_writes=off")
"""The server lives for one test run; nobody reads its disk after a crash."""


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW["AIRFLOW_HOME"])


@pytest.fixture(scope="session")
def server() -> Iterator[Settings]:
    """Settings with the address of an embedded Postgres whose database `intent` is migrated: the template."""
    home = Path(tempfile.gettempdir()) / f"intent-test-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    settings = Settings(home=home / "home", postgres_home=str(home / "postgres"))
    try:
        with db.serve(settings, options=FAST_SERVER) as served:
            db.migrate(served)
            _engine(served.database_url).dispose()  # a database that someone is connected to cannot be a template
            yield served
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def settings(server: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A database of its own, copied from the template, and an empty home and lake."""
    with own_database(server, tmp_path) as mine:
        yield mine


@pytest.fixture(scope="module")
def module_settings(server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The same for all tests of a file: where filling it takes long and the tests only look."""
    with own_database(server, tmp_path_factory.mktemp("module")) as mine:
        yield mine


@contextmanager
def own_database(server: Settings, folder: Path) -> Iterator[Settings]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    _as_superuser(server, f"CREATE DATABASE {name} TEMPLATE intent OWNER intent STRATEGY file_copy")
    url = sa.make_url(server.database_url).set(database=name).render_as_string(hide_password=False)
    try:
        yield replace(server, home=folder / "home", lake="", database_url=url)
    finally:
        _as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory):
    """A bootstrap release over the small catalogue of model_shop; pure, so one serves the whole run."""
    from model_release import bootstrap_release

    return bootstrap_release(tmp_path_factory.mktemp("release"))


def _as_superuser(server: Settings, statement: str) -> None:
    import json

    password = json.loads((Path(server.postgres_home) / "passwords.json").read_text())["postgres"]
    host = sa.make_url(server.database_url).query["host"]
    connection = psycopg2.connect(host=host, user="postgres", password=password, dbname="postgres")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
