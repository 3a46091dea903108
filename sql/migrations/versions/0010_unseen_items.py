"""Runs ../0010_unseen_items.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql_beside(__file__)
