"""Runs ../0004_sequence_days.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql_beside(__file__)
