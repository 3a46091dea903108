"""What a received day should look like as a whole, judged by Great Expectations on aggregates and a sample.

The suite is made from the contract (events/contract.py): its words, limits and required fields. Memory is flat: one
row of aggregates and about SAMPLE_ROWS events reach Great Expectations, and no id of a person among them.
Critical expectations refuse the day; comparisons with the days before only warn.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pandas as pd

from intent_platform.domain import EVENT_TYPES
from intent_platform.events.contract import EVENT_FIELDS

SAMPLE_ROWS = 10_000
TRAILING_DAYS = 7
VOLUME_FACTOR = 3.0  # a day has between a third and three times the events of the days before
MICROSECONDS_PER_HOUR = 3_600_000_000
JUDGED_FIELDS = ("event_type", "occurred_at", "price", "quantity", "rating", "currency")


@ibis.udf.scalar.builtin(signature=((dt.Timestamp(timezone="UTC"),), dt.int64))
def epoch_us(instant):
    """DuckDB: microseconds since 1970; an hour by the calendar takes three times as long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One row of quality.expectation_result."""

    expectation: str
    severity: str  # critical or warning
    is_met: bool
    observed: str


def judge_day(
    events: ir.Table | None, *, received_on: date, earlier_rows: Mapping[date, int], rejected_ratio: float, docs: Path
) -> list[Finding]:
    """Judge the accepted events of a received day; also writes Data Docs as HTML below `docs`."""
    aggregates = _aggregates(events, received_on, rejected_ratio)
    sample = _sample(events, int(aggregates["rows"].iloc[0]))
    expected = [*_of_aggregates(received_on, earlier_rows), *_of_sample()]
    return _run({"day": aggregates, "sample": sample}, expected, docs)


@dataclass(frozen=True, kw_only=True)
class _Expected:
    table: str  # day or sample
    name: str
    severity: str
    kind: str  # class name in great_expectations.expectations
    arguments: dict


def _aggregates(events: ir.Table | None, received_on: date, rejected_ratio: float) -> pd.DataFrame:
    """One row: volume, shares of event types, share of NULLs per required field, freshness."""
    if events is None:
        return pd.DataFrame([{"rows": 0, "rejected_ratio": rejected_ratio}])
    share = {f"share_of_{name}": (events.event_type == name).mean() for name in ("view", "purchase")}
    nulls = {
        f"null_share_of_{each.name}": events[each.name].isnull().mean() for each in EVENT_FIELDS if each.is_required
    }
    hours = (epoch_us(events.occurred_at) // MICROSECONDS_PER_HOUR).nunique()
    row = events.aggregate(rows=events.count(), newest_day=events.day.max(), **share, **nulls, hours=hours).to_pandas()
    row["rejected_ratio"] = rejected_ratio
    row["days_behind"] = (pd.Timestamp(received_on) - pd.to_datetime(row["newest_day"])).dt.days
    return row.drop(columns="newest_day")


def _sample(events: ir.Table | None, rows: int) -> pd.DataFrame:
    """The events whose ids' hashes divide: SAMPLE_ROWS to twice as many, whatever their order, and never by chance."""
    if events is None:
        return pd.DataFrame({name: pd.Series(dtype="object") for name in JUDGED_FIELDS})
    chosen = events.filter(events.event_id.hash() % max(rows // SAMPLE_ROWS, 1) == 0)
    return chosen.select(*JUDGED_FIELDS).to_pandas()


def _of_aggregates(received_on: date, earlier_rows: Mapping[date, int]) -> list[_Expected]:
    expected = [
        _between("day", "the day has events", "critical", "rows", low=1),
        _between("day", "the newest event is of the day itself", "warning", "days_behind", high=0),
        _between("day", "some events are views", "warning", "share_of_view", low=0.01),
        _between("day", "purchases are fewer than half of the events", "warning", "share_of_purchase", high=0.5),
        _between("day", "events happen in several hours", "warning", "hours", low=2),
    ]
    expected += [
        _between("day", f"{each.name} is never missing", "critical", f"null_share_of_{each.name}", high=0.0)
        for each in EVENT_FIELDS
        if each.is_required
    ]
    before = [earlier_rows[day] for day in _days_before(received_on) if day in earlier_rows]
    if before:
        usual = sorted(before)[len(before) // 2]
        name = f"the volume is near the median of the {len(before)} days before"
        expected.append(
            _between("day", name, "warning", "rows", low=int(usual / VOLUME_FACTOR), high=int(usual * VOLUME_FACTOR))
        )
    return expected


def _of_sample() -> list[_Expected]:
    words = {"column": "event_type", "value_set": list(EVENT_TYPES)}
    expected = [
        _Expected(
            table="sample",
            name="event types are the contract's words",
            severity="critical",
            kind="ExpectColumnValuesToBeInSet",
            arguments=words,
        )
    ]
    for each in EVENT_FIELDS:
        if each.name in JUDGED_FIELDS and each.low is not None:
            arguments = {"column": each.name, "min_value": each.low, "max_value": each.high}
            expected.append(
                _Expected(
                    table="sample",
                    name=f"{each.name} is within {each.low:g} and {each.high:g}",
                    severity="critical",
                    kind="ExpectColumnValuesToBeBetween",
                    arguments=arguments,
                )
            )
    return expected


def _between(
    table: str, name: str, severity: str, column: str, *, low: float | None = None, high: float | None = None
) -> _Expected:
    arguments = {"column": column, "min_value": low, "max_value": high}
    return _Expected(
        table=table, name=name, severity=severity, kind="ExpectColumnValuesToBeBetween", arguments=arguments
    )


def _days_before(day: date) -> list[date]:
    return [day - timedelta(days=distance) for distance in range(1, TRAILING_DAYS + 1)]


def _run(tables: Mapping[str, pd.DataFrame], expected: Sequence[_Expected], docs: Path) -> list[Finding]:
    context, gx = _context(docs)
    source = context.data_sources.add_or_update_pandas("received")
    findings = []
    for table, frame in tables.items():
        present = [each for each in expected if each.table == table and each.arguments["column"] in frame.columns]
        if frame.empty or not present:
            continue
        suite = context.suites.add_or_update(
            gx.ExpectationSuite(
                name=table,
                expectations=[
                    getattr(gx.expectations, each.kind)(
                        **each.arguments, severity=each.severity, meta={"name": each.name}
                    )
                    for each in present
                ],
            )
        )
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("whole")
        validation = context.validation_definitions.add_or_update(
            gx.ValidationDefinition(name=table, data=batch, suite=suite)
        )
        result = validation.run(batch_parameters={"dataframe": frame}, result_format="SUMMARY")
        findings += [_finding(each, frame) for each in result.results]
    context.build_data_docs()
    return findings


def _context(docs: Path):
    """A file context of its own per received day, for the Data Docs; no telemetry, no progress bars.

    It begins empty: docs show the last judgement, as quality.expectation_result does, and do not grow with each run.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx  # 3 seconds: only when a day is judged

    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    context = gx.get_context(mode="file", project_root_dir=docs)
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    return context, gx


def _finding(result, frame: pd.DataFrame) -> Finding:
    configuration, column = result.expectation_config, result.expectation_config.kwargs["column"]
    if len(frame) == 1:
        observed = f"{column} is {frame[column].iloc[0]}"
    else:
        observed = f"{result.result.get('unexpected_count')} of {result.result.get('element_count')} unexpected"
    return Finding(
        expectation=configuration.meta["name"],
        severity=configuration.severity.value,
        is_met=bool(result.success),
        observed=observed,
    )
