"""Runs ../0015_reordered.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_sql_beside(__file__)
