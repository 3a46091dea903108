"""Runs ../0002_profiles.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql_beside(__file__)
