"""Runs ../0008_nearline.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_sql_beside(__file__)
