"""The catalogue: a shop's item file, and stub rows for items that only events have shown so far."""

from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend

from intent_platform.errors import CatalogueInvalid
from intent_platform.events.contract import ITEM_FIELDS, ITEM_SCHEMA
from intent_platform.events.engine import open_engine
from intent_platform.events.mapping import Mapping, load_mapping
from intent_platform.events.readers import ReceivedFile, list_files
from intent_platform.events.typing import UTC, mapped_items
from intent_platform.lake import DataFile, Lake, Snapshot
from intent_platform.log import get_logger
from intent_platform.settings import Settings

log = get_logger(__name__)
ALL = "all"  # the only partition of `items`
MIN_TITLED_RATIO = 0.5
PRICE = next(each for each in ITEM_FIELDS if each.name == "price")


def read_catalogue(path: str, source: str, *, settings: Settings, lake: Lake) -> pa.Table:
    """Items of a catalogue file in ITEM_SCHEMA, the newest row of each item_id; CatalogueInvalid when it has none.

    updated_at is NULL where the file says nothing. A row without an id, or that cannot be read, is left out and
    counted in the log.
    """
    mapping = load_mapping(source, kind="catalogue")
    tables, read = [], 0
    with open_engine(settings, lake, time_zone=mapping.time_zone) as engine:
        for file in list_files(path, mapping):
            tables += _typed_batches(engine, file, mapping)
            read += file.rows_seen
        items = _newest(engine, pa.concat_tables(tables)) if tables else ITEM_SCHEMA.empty_table()
    titled = items.num_rows - items["title"].null_count
    if titled < max(1, MIN_TITLED_RATIO * items.num_rows):
        raise CatalogueInvalid(
            f"{path}: {titled:,} of {items.num_rows:,} items have a title ({read:,} rows read with mapping "
            f"{mapping.name!r}); at least half must. The catalogue before it stays; mend the file or the mapping."
        )
    log.info("catalogue_read", rows=read, items=items.num_rows, titled=titled)
    return items


def changed_items(
    snapshot: Snapshot, settings: Settings, given: pa.Table | None, now: datetime
) -> tuple[pa.Table, dict[tuple[str, str], list[DataFile]]]:
    """All known items, and what is to be published of them: nothing when they are what is published."""
    with open_engine(settings, snapshot.lake) as engine:
        items = merge_items(engine, snapshot, given, now)
    if snapshot.files("items", ALL) and snapshot.read("items").equals(items):
        return items, {}
    return items, {("items", ALL): [snapshot.lake.write("items", ALL, items)]}


def merge_items(engine: Backend, snapshot: Snapshot, catalogue: pa.Table | None, now: datetime) -> pa.Table:
    """All known items, sorted by item_id: the newest catalogue row of each, else a stub.

    An item that a new catalogue file leaves out stays as it was: a file may hold changes only. A row without a time
    counts as changed `now` when it says something new, so that the same file twice gives the same items.
    """
    known = snapshot.scan(engine, "items") if snapshot.partitions("items") else ibis.memtable(ITEM_SCHEMA.empty_table())
    parts = [known.mutate(precedence=1)]
    if catalogue is not None:
        parts.append(_with_time(ibis.memtable(catalogue), known, now).mutate(precedence=0))
    if snapshot.partitions("clean"):
        parts.append(_stubs(snapshot.scan(engine, "clean")).mutate(precedence=0))
    alike = (
        each.mutate(updated_at=each.updated_at.cast(UTC)).select(*ITEM_SCHEMA.names, "precedence") for each in parts
    )
    together = ibis.union(*alike)
    best_first = ibis.window(
        group_by="item_id",
        order_by=["is_stub", ibis.desc("updated_at"), "precedence", "category", "brand", "price"],
    )
    ranked = together.mutate(place=ibis.row_number().over(best_first)).filter(ibis._.place == 0)
    return engine.to_pyarrow(ranked.select(*ITEM_SCHEMA.names).order_by("item_id")).cast(ITEM_SCHEMA)


def _with_time(given: ir.Table, known: ir.Table, now: datetime) -> ir.Table:
    before = known.rename(lambda name: f"known_{name}")
    joined = given.left_join(before, given.item_id == before.known_item_id)
    said = [name for name in ITEM_SCHEMA.names if name != "updated_at"]
    is_same = ibis.and_(*(joined[name].identical_to(joined[f"known_{name}"]) for name in said))
    time_before = is_same.ifelse(joined.known_updated_at, ibis.null(joined.known_updated_at.type()))
    return joined.mutate(updated_at=ibis.coalesce(joined.updated_at, time_before, ibis.literal(now)))


def _stubs(events: ir.Table) -> ir.Table:
    """What events say about items: the newest category, brand and price of each."""
    seen = events.filter(events.item_id.notnull())
    newest = {name: seen[name].argmax(seen.occurred_at) for name in ("category", "brand", "price", "currency")}
    by_item = seen.group_by("item_id").aggregate(**newest, updated_at=seen.occurred_at.max())
    return by_item.mutate(title=ibis.null("string"), description=ibis.null("string"), is_available=True, is_stub=True)


def _typed_batches(engine: Backend, file: ReceivedFile, mapping: Mapping) -> list[pa.Table]:
    names: dict[str, Any] = {"line": "int64", "unreadable": "string", **dict.fromkeys(mapping.fields, "string")}
    sql = ibis.to_sql(mapped_items(ibis.table(names, name="received_rows"), mapping), dialect="duckdb")
    tables = []
    for rows in file.batches():
        lines = pa.array(np.asarray(rows.lines))
        engine.con.register(
            "received_rows", rows.fields.append_column("line", lines).append_column("unreadable", rows.unreadable)
        )
        tables.append(
            engine.con.sql(f"SELECT * FROM ({sql}) WHERE unreadable IS NULL AND item_id IS NOT NULL").to_arrow_table()
        )
    return tables


def _newest(engine: Backend, rows: pa.Table) -> pa.Table:
    items = ibis.memtable(rows)
    items = items.mutate(
        is_available=items.is_available.fill_null(True),
        updated_at=items.updated_at.cast(UTC),
        price=items.price.between(PRICE.low, PRICE.high).ifelse(items.price, ibis.null("float64")),
        is_stub=False,
    )
    newest = ibis.window(group_by="item_id", order_by=[ibis.desc("updated_at"), ibis.desc("line")])
    chosen = items.mutate(place=ibis.row_number().over(newest)).filter(ibis._.place == 0)
    columns = [*(each.name for each in ITEM_FIELDS), "is_stub"]
    return engine.to_pyarrow(chosen.select(*columns).order_by("item_id")).cast(ITEM_SCHEMA)
