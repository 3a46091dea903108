"""Runs ../0019_odd_values.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    run_sql_beside(__file__)
