"""Runs ../0001_quality.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql_beside(__file__)
