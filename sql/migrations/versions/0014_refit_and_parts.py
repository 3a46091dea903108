"""Runs ../0014_refit_and_parts.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql_beside(__file__)
