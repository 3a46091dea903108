"""Accepted rows as data files of one day each: parts, of which clean days are made without being written again."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import date
from typing import Any, Self

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from ibis.util import gen_name

from intent_platform.events.content import MODULUS, content_sum
from intent_platform.events.contract import ACCEPTED_SCHEMA
from intent_platform.lake import DataFile, Lake, PartitionKey

DAY, CONTENT_SUM = "day", "content_sum"  # tags of a part
SELDOM_REPEATED = ("event_id", "occurred_at", "user_id", "session_id", "order_id", "line")
BATCH_ROWS = 100_000
PLACE = ("received_on", "file", "line")  # names a row, and orders rows by arrival


class PartWriter:
    """Writes accepted rows, each into the part of its day; the parts are whole once the writer is left."""

    def __init__(self, lake: Lake, partition: PartitionKey) -> None:
        self._lake, self._partition = lake, partition
        self._open: dict[date, _OpenPart] = {}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def add(self, rows: pa.Table) -> None:
        days = pc.unique(rows["day"]).to_pylist()
        for day in days:
            of_day = rows if len(days) == 1 else rows.filter(pc.equal(rows["day"], day))
            if day not in self._open:
                self._open[day] = _OpenPart(*self._files.enter_context(self._new_file()))
            self._open[day].add(of_day)

    def parts(self, tags: Mapping[str, str]) -> tuple[DataFile, ...]:
        """What was written, by day; `tags` say where the rows came from."""
        return tuple(
            DataFile(path=each.path, rows=each.rows, tags={**tags, DAY: str(day), CONTENT_SUM: str(each.content_sum)})
            for day, each in sorted(self._open.items())
        )

    def _new_file(self) -> AbstractContextManager[tuple[str, pq.ParquetWriter]]:
        return self._lake.writing(*self._partition, ACCEPTED_SCHEMA, seldom_repeated=SELDOM_REPEATED)


@dataclass
class _OpenPart:
    path: str
    writer: pq.ParquetWriter
    rows: int = 0
    content_sum: int = 0

    def add(self, rows: pa.Table) -> None:
        self.writer.write_table(rows)
        self.rows += rows.num_rows
        self.content_sum = (self.content_sum + content_sum(rows)) % MODULUS


def day_of(part: DataFile) -> date:
    """The day on which all of its events happened, in the shop's time zone."""
    return date.fromisoformat(part.tags[DAY])


def content_sum_of(parts: Iterable[DataFile]) -> int:
    """What `content_sum` gives for the rows of all of them."""
    return sum(int(each.tags[CONTENT_SUM]) for each in parts) % MODULUS


def scan(engine: Backend, lake: Lake, parts: Sequence[DataFile]) -> ir.Table:
    """A lazy table of the rows of at least one part."""
    return engine.read_parquet([lake.path(each.path) for each in parts], hive_partitioning=False)


def later_copies(engine: Backend, lake: Lake, parts: Sequence[DataFile]) -> ir.Table | None:
    """Places of the rows whose event_id came before, by (received_on, file, line); None when there are none.

    Only ids that repeat are ranked, and they are found by a hash of 8 bytes: a window over all rows, or all ids as
    text, would hold the whole day.
    """
    rows = scan(engine, lake, parts)
    hashes = np.sort(engine.to_pyarrow(rows.select(key=rows.event_id.hash()))["key"].to_numpy())
    repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(repeated):
        return None
    keys = ibis.memtable({"key": repeated})
    ranked = rows.semi_join(keys, rows.event_id.hash() == keys.key).select("event_id", *PLACE)
    by_arrival = ibis.window(group_by="event_id", order_by=list(PLACE))
    later = ranked.mutate(place=ibis.row_number().over(by_arrival)).filter(lambda each: each.place > 0)
    return engine.create_table(gen_name("later_copies"), later.select(*PLACE), temp=True)


def without_rows(
    engine: Backend, lake: Lake, part: DataFile, partition: PartitionKey, places: ir.Table
) -> tuple[DataFile, ...]:
    """The part itself if it holds none of the rows at `places`; else a new one of its other rows, if there are any."""
    rows = scan(engine, lake, [part])
    if not rows.semi_join(places, PLACE).count().to_pyarrow().as_py():
        return (part,)
    with PartWriter(lake, partition) as writer:
        others = engine.con.sql(engine.compile(rows.anti_join(places, PLACE)))
        for batch in others.to_arrow_reader(BATCH_ROWS):
            writer.add(pa.table(batch).cast(ACCEPTED_SCHEMA))
    return writer.parts(part.tags)
