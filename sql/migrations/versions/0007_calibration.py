"""Runs ../0007_calibration.sql."""

from intent_platform.db.migrations import run_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql_beside(__file__)
