"""Runs ../0017_given_numbers.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    run_sql_beside(__file__)
