"""DuckDB behind Ibis: bounded in memory, spilling to disk, reading the lake wherever it lies."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ibis
from ibis.backends.duckdb import Backend

from intent_platform.lake import Lake
from intent_platform.settings import Settings


@contextmanager
def open_engine(settings: Settings, lake: Lake, *, time_zone: str = "UTC") -> Iterator[Backend]:
    """A connection of its own; `time_zone` holds for times in text that carry no offset."""
    with tempfile.TemporaryDirectory(prefix="intent-") as spill:
        connection = ibis.duckdb.connect(
            threads=settings.threads,
            memory_limit=f"{settings.memory_limit_mib}MiB",
            temp_directory=spill,
            preserve_insertion_order=False,
        )
        connection.raw_sql(f"SET TimeZone = '{time_zone}'")  # checked to be an IANA name
        if not lake.is_local:
            connection.con.register_filesystem(lake.filesystem)
        try:
            yield connection
        finally:
            connection.disconnect()
