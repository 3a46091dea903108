"""Runs ../0005_scorers.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql_beside(__file__)
