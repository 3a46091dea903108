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

from intent_platform.events.contract import ACCEPTED_SCHEMA
from intent_platform.events.engine import open_engine
from intent_platform.events.intake import Door, sort_out, to_judge
from intent_platform.events.mapping import load_mapping
from intent_platform.events.quarantine import Place, Rejected, Unsealer
from intent_platform.events.readers import RawRows
from intent_platform.lake import Lake
from intent_platform.settings import Settings

NAME = "inbox"
"""Of the inbox as a source among the files of a received day."""

MAPPING = "native"  # the inbox speaks the contract's own words
_PREPARE = """
PREPARE judged AS
WITH received_rows AS (SELECT unnest(from_json($1::VARCHAR::JSON, '{shape}'), recursive := true))
SELECT * FROM ({judging})
"""
NOTHING = ACCEPTED_SCHEMA.empty_table()

EVENT_ID_MISSING = "event_id_missing"
"""The one rule that only the inbox has: without an id, an event that is put again would count twice."""

NOT_SCORABLE = "not_scorable"
"""No rule it breaks, but scoring it alone fails; the scorer's log says how."""


Claimed = Mapping[Any, Any]
"""seq and the contract's fields as text, as in a row of inbox.event."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A batch after the rules. Each claimed row is in one of the two."""

    accepted: pa.Table  # ACCEPTED_SCHEMA; line is the row's seq
    rejected: Sequence[Rejected]


class InboxDoor:
    """The door of one received day. Its statement is planned once: planning takes ten times as long as judging one."""

    def __init__(self, received_on: date, settings: Settings) -> None:
        self.received_on = received_on
        lake = Lake(settings.lake_root, settings.shop)
        self.door = Door(received_on=received_on, mapping=load_mapping(MAPPING), settings=settings, lake=lake)
        self._open = ExitStack()
        self._engine = self._open.enter_context(open_engine(settings, lake, time_zone=self.door.mapping.time_zone))
        self._engine.con.execute("SET threads = 1")
        names = {"line": "BIGINT", "unreadable": "VARCHAR", **dict.fromkeys(self.door.mapping.fields, "VARCHAR")}
        self._engine.con.execute(_PREPARE.format(shape=json.dumps([names]), judging=self.door.judging_sql))

    def close(self) -> None:
        self._open.close()

    def judge(self, claimed: Sequence[Claimed]) -> Judged:
        """claimed: rows of inbox.event, in order of seq."""
        without_id = [row for row in claimed if not row["event_id"]]
        others = [row for row in claimed if row["event_id"]]
        unnamed = self.reject(without_id, EVENT_ID_MISSING)
        if not others:
            return Judged(accepted=NOTHING, rejected=unnamed)
        rows = self._as_raw_rows(others)
        text = json.dumps(to_judge(rows).to_pylist(), ensure_ascii=False)
        judged = self._engine.con.sql(f"EXECUTE judged({_quoted(text)})").to_arrow_table()
        accepted, rejected = sort_out(judged, rows, NAME, self.door)
        return Judged(accepted=_in_order(accepted), rejected=[*unnamed, *rejected])

    def _as_raw_rows(self, claimed: Sequence[Claimed]) -> RawRows:
        columns = {
            name: pa.array([row[name] or None for row in claimed], pa.string()) for name in self.door.mapping.fields
        }
        return RawRows(
            lines=np.array([row["seq"] for row in claimed], np.int64),
            unreadable=pa.nulls(len(claimed), pa.string()),
            fields=self.door.pseudonymiser.replace_ids(pa.table(columns)),
            raw=lambda place: self._raw(claimed[place]),
        )

    def reject(self, claimed: Sequence[Claimed], rule: str) -> list[Rejected]:
        shop = self.door.settings.shop
        places = (Place(shop=shop, received_on=self.received_on, file=NAME, line=row["seq"]) for row in claimed)
        return [
            Rejected(place=place, broken_rule=rule, raw=self._raw(row))
            for place, row in zip(places, claimed, strict=True)
        ]

    def opened(self, row: sa.RowMapping, unsealer: Unsealer) -> dict[str, Any]:
        """A row of inbox.rejected as it was claimed."""
        place = Place(shop=self.door.settings.shop, received_on=self.received_on, file=NAME, line=row["seq"])
        given = json.loads(unsealer.unseal(bytes(row["sealed_row"]), place))
        return {"seq": row["seq"], **dict.fromkeys(self.door.mapping.fields), **given}

    def _raw(self, row: Claimed) -> bytes:
        given = {name: row[name] for name in self.door.mapping.fields if row[name] is not None}
        return json.dumps(given, ensure_ascii=False).encode()


def _in_order(accepted: pa.Table) -> pa.Table:
    """By line. One thread of DuckDB keeps the order, though it promises none; to sort takes longer than to look."""
    line = accepted["line"].to_numpy()
    return accepted if (line[1:] > line[:-1]).all() else accepted.sort_by("line")


def _quoted(text: str) -> str:
    """A literal for DuckDB, whose EXECUTE takes no parameters; within quotes only the quote itself means anything."""
    return "'" + text.replace("'", "''") + "'"
