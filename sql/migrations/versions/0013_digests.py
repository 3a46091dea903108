"""Runs ../0013_digests.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_sql_beside(__file__)
