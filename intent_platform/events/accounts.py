"""The quality schema: accounts of files, rules, days and expectations. The caller owns the transaction."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta

import sqlalchemy as sa

from intent_platform import db
from intent_platform.domain import FileAccount
from intent_platform.events.expectations import TRAILING_DAYS, Finding
from intent_platform.events.merging import MergedDay


def write_file_accounts(connection: sa.Connection, accounts: Sequence[FileAccount], *, status: str) -> None:
    """Replace the files' accounts. A refused try stands beside the published account; a published one ends both.

    An account that stands there already is left alone, so that a rerun changes no row.
    """
    for account in accounts:
        if _is_known(connection, account, status):
            continue
        key = {"shop": account.shop, "received_on": account.received_on, "file": account.file}
        db.query(connection, "forget_file_account", **key, only_refused=status == "refused")
        facts = asdict(account)
        by_rule = facts.pop("by_rule")
        db.query(connection, "add_file_account", **facts, status=status)
        rules = [{**key, "status": status, "broken_rule": rule, "rows": rows} for rule, rows in by_rule.items()]
        db.execute_many(connection, "add_rule_account", rules)


def _is_known(connection: sa.Connection, account: FileAccount, status: str) -> bool:
    key = {"shop": account.shop, "received_on": account.received_on, "file": account.file}
    known = db.query(connection, "file_accounts", **key)
    same = [
        row
        for row in known
        if row["status"] == status and {**row, "status": None} == {**asdict(account), "status": None}
    ]
    return bool(same) and (status == "refused" or len(known) == 1)


def write_clean_days(connection: sa.Connection, merged: Sequence[MergedDay]) -> None:
    for each in merged:
        key = {"shop": each.facts.shop, "day": each.facts.day}
        db.query(connection, "put_clean_day", **asdict(each.facts))
        db.query(connection, "forget_event_counts", **key)
        db.execute_many(connection, "add_event_count", [{**key, **counts} for counts in each.event_counts])


def write_findings(connection: sa.Connection, shop: str, received_on: date, findings: Sequence[Finding]) -> None:
    """Replace the findings of a received day; equal ones keep their time."""
    key = {"shop": shop, "received_on": received_on}
    names = [each.expectation for each in findings]
    db.query(connection, "forget_expectation_results", **key, kept=names)
    db.execute_many(connection, "put_expectation_result", [{**key, **asdict(each)} for each in findings])


def rows_of_days_before(connection: sa.Connection, shop: str, received_on: date) -> dict[date, int]:
    earliest = received_on - timedelta(days=TRAILING_DAYS)
    rows = db.query(connection, "rows_of_days_before", shop=shop, received_on=received_on, earliest=earliest)
    return {row["received_on"]: row["rows"] for row in rows}
