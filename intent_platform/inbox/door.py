"""Claimed events through the same contract and rules as a file's rows, in milliseconds."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from intent_platform.events.contract import ACCEPTED_SCHEMA, EVENT_SCHEMA
from intent_platform.events.engine import open_engine
from intent_platform.events.framing import KEPT_OF_LONG_ROW_BYTES, MAX_ROW_BYTES, ROW_TOO_LONG
from intent_platform.events.intake import Door
from intent_platform.events.mapping import load_mapping
from intent_platform.events.pseudonyms import BLANKS
from intent_platform.events.quarantine import Place, Rejected, Unsealer
from intent_platform.lake import Lake
from intent_platform.settings import Settings

NAME = "inbox"
"""Of the inbox as a source among the files of a received day."""

MAPPING = "native"  # the inbox speaks the contract's own words
_MADE = [each.name for each in EVENT_SCHEMA if each.type != pa.string()]
"""What becomes of a row's texts; those that are texts in the contract too pass as they came."""

_PREPARE = """
PREPARE judged AS
WITH received_rows AS (SELECT *, 0 AS line FROM waiting)
SELECT {made}, day, broken_rule FROM ({judging})
"""
NOTHING = ACCEPTED_SCHEMA.empty_table()

EVENT_ID_MISSING = "event_id_missing"
"""The one rule that only the inbox has: without an id, an event that is put again would count twice."""

NOT_SCORABLE = "not_scorable"
"""No rule it breaks, but scoring it alone fails; the scorer's log says how."""


Claimed = Mapping[Any, Any]
"""seq, the contract's fields as text, and `unreadable`, as in a row of inbox.event."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A batch after the rules. Each claimed row is in one of the two."""

    accepted: pa.Table  # ACCEPTED_SCHEMA; line is the row's seq
    rejected: Sequence[Rejected]


@dataclass(kw_only=True)
class _Waiting:
    """What DuckDB reads as `waiting`: at each execution of a statement anew, whatever is there by then."""

    rows: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


class InboxDoor:
    """The door of one received day. Its statement is planned once: planning takes ten times as long as judging one."""

    def __init__(self, received_on: date, settings: Settings) -> None:
        self.received_on = received_on
        lake = Lake(settings.lake_root, settings.shop)
        self.door = Door(received_on=received_on, mapping=load_mapping(MAPPING), settings=settings, lake=lake)
        self._names = (*self.door.mapping.fields, "unreadable")
        self._open = ExitStack()
        engine = self._open.enter_context(open_engine(settings, lake, time_zone=self.door.mapping.time_zone))
        self._connection = engine.con
        self._connection.execute("SET threads = 1")
        self._connection.execute("SET preserve_insertion_order = true")  # a judgement is its row's by place
        self._connection.execute("SET disabled_optimizers = 'in_clause'")  # joins a table of the words, for 0.3 ms
        self._waiting = _Waiting(rows=self._texts([]))
        self._connection.register("waiting", self._waiting)
        self._connection.execute(_PREPARE.format(made=", ".join(_MADE), judging=self.door.judging_sql))

    def close(self) -> None:
        self._open.close()

    def judge(self, claimed: Sequence[Claimed]) -> Judged:
        """claimed: rows of inbox.event, in order of seq."""
        bounded = [self._bounded(row) for row in claimed]
        unnamed = self.reject([row for row in bounded if not _is_named(row)], EVENT_ID_MISSING)
        named = [row for row in bounded if _is_named(row)]
        if not named:
            return Judged(accepted=NOTHING, rejected=unnamed)
        self._waiting.rows = texts = self._texts(named)
        judged = self._connection.execute("EXECUTE judged").fetchnumpy()
        broken = judged["broken_rule"].tolist()
        rejected = [self._rejected(row, rule) for row, rule in zip(named, broken, strict=True) if rule is not None]
        rows = self._with_provenance(named, texts, judged)
        accepted = rows.filter(pa.array([rule is None for rule in broken])) if rejected else rows
        return Judged(accepted=accepted, rejected=[*unnamed, *rejected])

    def _bounded(self, row: Claimed) -> Claimed:
        """The row; of one with more characters than a file's may have bytes, only the beginning of each text."""
        fields = self.door.mapping.fields
        if sum(len(row[name] or "") for name in fields) <= MAX_ROW_BYTES:
            return row
        kept = KEPT_OF_LONG_ROW_BYTES // len(fields)
        beginnings = {name: row[name] and row[name][:kept] for name in fields}
        return {"seq": row["seq"], "unreadable": ROW_TOO_LONG, **beginnings}

    def _texts(self, claimed: Sequence[Claimed]) -> pa.Table:
        """The mapping's fields as text, pseudonyms in place of ids; and `unreadable`."""
        columns = {name: [row[name] or None for row in claimed] for name in self._names}
        of = self.door.pseudonymiser
        for name, pseudonym_of in (("user_id", of.of_user), ("anonymous_id", of.of_anonymous)):
            pseudonym = {each: each and pseudonym_of(each) for each in set(columns[name])}
            columns[name] = [pseudonym[each] for each in columns[name]]
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def _with_provenance(
        self, claimed: Sequence[Claimed], texts: pa.Table, judged: Mapping[str, np.ndarray]
    ) -> pa.Table:
        """ACCEPTED_SCHEMA of all claimed rows, those included that broke a rule."""
        given = {
            **{name: pa.array(judged[name], EVENT_SCHEMA.field(name).type) for name in _MADE},
            "day": pa.array(judged["day"].astype("datetime64[D]")),
            "received_on": pa.repeat(pa.scalar(self.received_on), len(claimed)),
            "file": pa.repeat(NAME, len(claimed)),
            "line": pa.array([row["seq"] for row in claimed], pa.int64()),
        }
        columns = [given[name] if name in given else texts[name] for name in ACCEPTED_SCHEMA.names]
        return pa.table(columns, schema=ACCEPTED_SCHEMA)

    def reject(self, claimed: Sequence[Claimed], rule: str) -> list[Rejected]:
        return [self._rejected(row, rule) for row in claimed]

    def _rejected(self, row: Claimed, rule: str) -> Rejected:
        place = place_of(row["seq"], self.received_on, self.door.settings)
        return Rejected(place=place, broken_rule=rule, raw=self._raw(row))

    def opened(self, row: sa.RowMapping, unsealer: Unsealer) -> dict[str, Any]:
        """A row of inbox.rejected as it was claimed."""
        place = place_of(row["seq"], self.received_on, self.door.settings)
        given = json.loads(unsealer.unseal(bytes(row["sealed_row"]), place))
        return {"seq": row["seq"], **dict.fromkeys(self._names), **given}

    def _raw(self, row: Claimed) -> bytes:
        given = {name: row[name] for name in self._names if row[name] is not None}
        return json.dumps(given, ensure_ascii=False).encode()


def place_of(seq: int, received_on: date, settings: Settings) -> Place:
    return Place(shop=settings.shop, received_on=received_on, file=NAME, line=seq)


def _is_named(row: Claimed) -> bool:
    return bool((row["event_id"] or "").strip(BLANKS))
