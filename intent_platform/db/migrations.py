"""Migrations: sql/migrations/NNNN_name.sql, written as SQL and run in order by Alembic, each in one transaction."""

from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from alembic import command, op
from alembic.config import Config

from intent_platform.db.connection import connect
from intent_platform.errors import DatabaseUnavailable
from intent_platform.paths import resource_folder
from intent_platform.settings import Settings

OLDEST_SERVER = 18


def migrate(settings: Settings) -> str:
    """Bring the database to the newest schema; return its version. Running it again changes nothing."""
    config = Config()
    config.set_main_option("script_location", str(resource_folder("sql") / "migrations"))
    with connect(settings) as connection:
        _refuse_old_server(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()


def _refuse_old_server(connection: sa.Connection) -> None:
    major = connection.connection.dbapi_connection.server_version // 10_000  # type: ignore[union-attr]
    if major < OLDEST_SERVER:
        raise DatabaseUnavailable(
            f"Postgres at {connection.engine.url.render_as_string(hide_password=True)} is version {major}; "
            f"{OLDEST_SERVER} or newer is needed (RETURNING old). Nothing was migrated: upgrade it, or leave "
            "INTENT_DATABASE_URL unset for the embedded one."
        )


def run_sql_beside(revision_file: str) -> None:
    """Run the SQL file that has a revision's name; called by sql/migrations/versions/NNNN_name.py."""
    path = Path(revision_file)
    statements = (path.parent.parent / f"{path.stem}.sql").read_text(encoding="utf-8")
    with closing(op.get_bind().connection.cursor()) as cursor:
        cursor.execute(statements)
