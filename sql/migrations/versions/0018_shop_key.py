"""Runs ../0018_shop_key.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    run_sql_beside(__file__)
