"""One received file → accepted rows, quarantined rows, and an account in which every row appears once."""

import json
import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from intent_platform.domain import FileAccount
from intent_platform.events.ahead import ahead
from intent_platform.events.contract import ACCEPTED_SCHEMA, EVENT_SCHEMA, QUARANTINE_SCHEMA
from intent_platform.events.engine import open_engine
from intent_platform.events.mapping import Mapping
from intent_platform.events.parts import PartWriter, later_copies, without_rows
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.events.quarantine import Place, Rejected, Sealer, quarantine_table
from intent_platform.events.readers import RawRows, ReceivedFile
from intent_platform.events.rules import Window, first_broken_rule
from intent_platform.events.typing import mapped_rows
from intent_platform.lake import DataFile, Lake
from intent_platform.settings import Settings

pa.set_memory_pool(pa.system_memory_pool())
# mimalloc, the default, gives a batch's pages back to be taken again for the next: a tenth of the door's processor time


@dataclass(frozen=True, kw_only=True)
class FileIntake:
    """What a file became; its data files are written, but nobody sees them before they are published."""

    account: FileAccount
    accepted: tuple[DataFile, ...]  # one per day on which its events happened; and those of replayed rows
    quarantined: DataFile | None
    unknown_words: Counter[str] = field(default_factory=Counter)  # for event types, with their rows


@dataclass(frozen=True, kw_only=True)
class Door:
    """All that the files of one received day have in common."""

    received_on: date
    mapping: Mapping
    settings: Settings
    lake: Lake

    @cached_property
    def pseudonymiser(self) -> Pseudonymiser:
        return Pseudonymiser.of(self.settings)

    @property
    def partition(self) -> str:
        return f"received={self.received_on}"

    @cached_property
    def judging_sql(self) -> str:
        """The mapping and all rules as one statement over `received_rows`, whose `line` is a row's place there."""
        names = {"line": "int64", "unreadable": "string", **dict.fromkeys(self.mapping.fields, "string")}
        rows = mapped_rows(ibis.table(names, name="received_rows"), self.mapping, self.midnights)
        judged = rows.mutate(broken_rule=first_broken_rule(rows, self.window))
        return ibis.to_sql(judged.select(*EVENT_SCHEMA.names, "day", "line", "broken_rule"), dialect="duckdb")

    @property
    def window(self) -> Window:
        lateness = timedelta(hours=self.settings.max_lateness_hours)
        return Window(
            earliest=self._midnight(self.received_on) - lateness,
            end=self._midnight(self.received_on + timedelta(days=1)),
        )

    @property
    def midnights(self) -> dict[date, datetime]:
        """When the days of the window begin, the received day first."""
        oldest = self.window.earliest.astimezone(self.settings.zone).date()
        days = (self.received_on - timedelta(days=age) for age in range((self.received_on - oldest).days + 1))
        return {day: self._midnight(day) for day in days}

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self.settings.zone)


def take_in(file: ReceivedFile, door: Door) -> FileIntake:
    """Read, pseudonymise, type, judge and write one file; memory stays flat as it grows."""
    settings = door.settings
    with (
        open_engine(settings, door.lake, time_zone=door.mapping.time_zone) as engine,
        tempfile.TemporaryDirectory(prefix="intent-") as folder,
    ):
        by_rule, unknown_words = Counter[str](), Counter[str]()
        quarantined = _QuarantineWriter(door, Sealer(settings), Path(folder) / "quarantine.parquet")
        with (
            PartWriter(door.lake, ("accepted", door.partition)) as writer,
            ahead(_judged_batches(file, door, engine)) as judged,
        ):
            for accepted, rejected, words in judged:
                writer.add(accepted)
                quarantined.add(rejected)
                by_rule.update(each.broken_rule for each in rejected)
                unknown_words.update(words)
        written = writer.parts(_tags(file, door))
        parts = _without_repeats(engine, written, door)
        quarantine_file = quarantined.finish(file)
    accepted_rows = sum(each.rows for each in parts)
    account = FileAccount(
        shop=settings.shop,
        received_on=door.received_on,
        file=file.name,
        source=door.mapping.name,
        file_digest=file.digest,
        rows_read=file.rows_seen,
        accepted=accepted_rows,
        quarantined=by_rule.total(),
        duplicate=sum(each.rows for each in written) - accepted_rows,
        by_rule=dict(by_rule),
    )
    return FileIntake(account=account, accepted=parts, quarantined=quarantine_file, unknown_words=unknown_words)


def judge(rows: RawRows, file_name: str, door: Door, engine: Backend) -> tuple[pa.Table, list[Rejected]]:
    """Split a batch by the rules: rows of the accepted schema, and the rejected with their raw text.

    Its ids are pseudonyms already.
    """
    places = pa.array(np.arange(len(rows.lines)))
    given = rows.fields.append_column("line", places).append_column("unreadable", rows.unreadable)
    engine.con.register("received_rows", given)
    judged = engine.con.sql(door.judging_sql).to_arrow_table()
    is_fine = pc.is_null(judged["broken_rule"])
    broken = judged.select(["line", "broken_rule"]).filter(pc.invert(is_fine)).to_pydict()
    rejected = [
        Rejected(
            place=Place(
                shop=door.settings.shop, received_on=door.received_on, file=file_name, line=int(rows.lines[position])
            ),
            broken_rule=rule,
            raw=rows.raw(position),
        )
        for position, rule in zip(broken["line"], broken["broken_rule"], strict=True)
    ]
    rejected.sort(key=lambda each: each.place.line)
    return _with_provenance(judged.filter(is_fine), rows, file_name, door), rejected


def _judged_batches(
    file: ReceivedFile, door: Door, engine: Backend
) -> Generator[tuple[pa.Table, list[Rejected], dict[str, int]], None, None]:
    """(accepted, rejected, unknown event words with their rows) of each batch; the next one is read meanwhile."""
    with ahead(_pseudonymised_batches(file, door)) as batches:
        for rows in batches:
            yield *judge(rows, file.name, door, engine), _unknown_words(rows, door.mapping)


def _pseudonymised_batches(file: ReceivedFile, door: Door) -> Generator[RawRows, None, None]:
    for rows in file.batches():
        yield replace(rows, fields=door.pseudonymiser.replace_ids(rows.fields))


def _unknown_words(rows: RawRows, mapping: Mapping) -> dict[str, int]:
    if "event_type" not in rows.fields.column_names:
        return {}
    known = {*mapping.event_types, *mapping.ignored_event_types, None}
    counts = pc.value_counts(rows.fields["event_type"])
    words = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return {word: count for word, count in words if word not in known}


def _with_provenance(accepted: pa.Table, rows: RawRows, file_name: str, door: Door) -> pa.Table:
    length = accepted.num_rows
    lines = pa.array(rows.lines[accepted["line"].to_numpy()])
    provenance = {
        "received_on": pa.repeat(pa.scalar(door.received_on, pa.date32()), length),
        "file": pa.repeat(pa.scalar(file_name), length),
        "line": lines,
    }
    columns = [provenance.get(field.name) for field in ACCEPTED_SCHEMA]
    return pa.table(
        [
            accepted[field.name].cast(field.type) if column is None else column
            for field, column in zip(ACCEPTED_SCHEMA, columns, strict=True)
        ],
        schema=ACCEPTED_SCHEMA,
    )


def _without_repeats(engine: Backend, written: Sequence[DataFile], door: Door) -> tuple[DataFile, ...]:
    """The parts just written, with the first row of each event_id, by line."""
    repeats = later_copies(engine, door.lake, written) if written else None
    if repeats is None:
        return tuple(written)
    kept = (without_rows(engine, door.lake, each, ("accepted", door.partition), repeats) for each in written)
    return tuple(chain.from_iterable(kept))


class _QuarantineWriter:
    """Seals rejected rows batch by batch; publishes nothing, and makes no file when there are none."""

    def __init__(self, door: Door, sealer: Sealer, staged: Path) -> None:
        self._door, self._sealer, self._staged = door, sealer, staged
        self._writer: pq.ParquetWriter | None = None

    def add(self, rejected: list[Rejected]) -> None:
        if rejected:
            self._writer = self._writer or pq.ParquetWriter(self._staged, QUARANTINE_SCHEMA, compression="none")
            self._writer.write_table(quarantine_table(rejected, self._sealer))

    def finish(self, file: ReceivedFile) -> DataFile | None:
        if self._writer is None:
            return None
        self._writer.close()
        batches = pq.ParquetFile(self._staged).iter_batches()
        rows = pa.RecordBatchReader.from_batches(QUARANTINE_SCHEMA, batches)
        return self._door.lake.write("quarantine", self._door.partition, rows, _tags(file, self._door))


def _tags(file: ReceivedFile, door: Door) -> dict[str, str]:
    header = json.dumps(file.header, ensure_ascii=False)
    return {"file": file.name, "file_digest": file.digest, "mapping": door.mapping.digest, "header": header}
