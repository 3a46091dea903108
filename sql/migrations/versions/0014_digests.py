"""Runs ../0014_digests.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0014"
down_revision = "0011"


def upgrade() -> None:
    run_sql_beside(__file__)
