"""Runs ../0016_last_hour.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_sql_beside(__file__)
