"""A shop's tables as immutable Parquet files under one manifest.

    <root>/shop=main/manifest.json                     what is published now: table → partition → files
    <root>/shop=main/clean/day=2026-08-21/<name>.parquet

Writing a file shows nothing. `publish` swaps the manifest: readers see all of a change or none of it, also when it
spans tables and days. A reader keeps the snapshot it took; replaced files stay until `remove_unpublished`.
The caller holds the shop's lake lock (db.exclusive) around read-change-publish; a version check catches who does not.
"""

import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import ibis
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from intent_platform.errors import LakeConflict, LakeUnavailable, NotEnoughData, SettingInvalid

PartitionKey = tuple[str, str]
"""(table, partition), for example ("clean", "day=2026-08-21")."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """One immutable Parquet file, as the manifest names it."""

    path: str  # relative to the shop's folder
    rows: int
    tags: Mapping[str, str]  # what its writer wants to know again: received file, digest, …


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What was published when it was taken; later publications do not change it."""

    version: int
    tables: Mapping[str, Mapping[str, tuple[DataFile, ...]]]
    lake: "Lake"

    def partitions(self, table: str) -> list[str]:
        return sorted(self.tables.get(table, {}))

    def files(self, table: str, partition: str) -> tuple[DataFile, ...]:
        return tuple(self.tables.get(table, {}).get(partition, ()))

    def paths(self, table: str, partitions: Iterable[str] | None = None) -> list[str]:
        """Absolute paths of a table's files, in partition order; partitions that are not published have none."""
        wanted = self.partitions(table) if partitions is None else sorted(set(partitions))
        return [self.lake.path(each.path) for partition in wanted for each in self.files(table, partition)]

    def rows(self, table: str, partition: str) -> int:
        return sum(each.rows for each in self.files(table, partition))

    def read(
        self, table: str, partitions: Iterable[str] | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Read into memory; NotEnoughData when nothing is published there."""
        paths = self.paths(table, partitions)
        if not paths:
            raise NotEnoughData(f"Table {table!r} has nothing published in {self.lake.path('')}; run the step before.")
        dataset = ds.dataset(
            [self.lake.filesystem_path(path) for path in paths], format="parquet", filesystem=self.lake.filesystem
        )
        return dataset.to_table(columns=list(columns) if columns else None)

    def scan(self, connection: Any, table: str, partitions: Iterable[str] | None = None) -> ibis.Table:
        """A lazy Ibis table over the files; `connection` is an Ibis backend that reads Parquet."""
        paths = self.paths(table, partitions)
        if not paths:
            raise NotEnoughData(f"Table {table!r} has nothing published in {self.lake.path('')}; run the step before.")
        return connection.read_parquet(paths, hive_partitioning=False)


class Lake:
    """One shop's part of the lake, in a folder or an object store (any fsspec address)."""

    def __init__(self, root: str, shop: str) -> None:
        try:
            self.filesystem, base = fsspec.core.url_to_fs(root)
        except (ValueError, ImportError) as error:
            raise SettingInvalid(f"INTENT_LAKE is {root!r}, which cannot be opened: {error}.") from error
        self._scheme = "" if self.is_local else root.split("://", 1)[0] + "://"
        self._base = f"{base.rstrip('/')}/shop={shop}"

    @property
    def is_local(self) -> bool:
        return "file" in _protocols(self.filesystem)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A step's reading and writing: what the disk or the store refuses becomes LakeUnavailable."""
        try:
            yield
        except (OSError, duckdb.IOException) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise LakeUnavailable(
                f"The lake {self.path('')} could not be read or written: {reason}. Nothing was published; free some "
                f"space there and in {tempfile.gettempdir()}, or mend INTENT_LAKE, then run the step again."
            ) from error

    def path(self, relative: str) -> str:
        """Absolute path or address of something in this shop's folder."""
        return f"{self._scheme}{self._base}/{relative}".rstrip("/")

    def filesystem_path(self, path: str) -> str:
        return path.removeprefix(self._scheme) if self._scheme else path

    def snapshot(self) -> Snapshot:
        manifest = self._read_manifest()
        tables = {
            table: {partition: tuple(DataFile(**each) for each in files) for partition, files in partitions.items()}
            for table, partitions in manifest["tables"].items()
        }
        return Snapshot(version=manifest["version"], tables=tables, lake=self)

    def write(
        self, table: str, partition: str, data: pa.Table | pa.RecordBatchReader, tags: Mapping[str, str] | None = None
    ) -> DataFile:
        """Write rows as one new file, flushed to disk; it is visible only once published."""
        rows = 0
        with self.writing(table, partition, data.schema) as (relative, writer):
            for batch in data.to_batches() if isinstance(data, pa.Table) else data:
                writer.write_batch(batch)
                rows += batch.num_rows
        return DataFile(path=relative, rows=rows, tags=dict(tags or {}))

    @contextmanager
    def writing(
        self, table: str, partition: str, schema: pa.Schema, *, seldom_repeated: Sequence[str] = ()
    ) -> Iterator[tuple[str, pq.ParquetWriter]]:
        """The path of a new file and its writer; flushed to disk at the end, removed when something fails before.

        `seldom_repeated` columns get no dictionary. Texts get no statistics: the smallest and largest id of a row
        group rule nothing out.
        """
        options = {
            "use_dictionary": [name for name in schema.names if name not in seldom_repeated],
            "write_statistics": [each.name for each in schema if not pa.types.is_string(each.type)],
        }
        relative = self.new_path(table, partition)
        path = self.filesystem_path(self.path(relative))
        try:
            with self.filesystem.open(path, "wb") as stream:
                with pq.ParquetWriter(stream, schema, compression="zstd", compression_level=1, **options) as writer:
                    yield relative, writer
                if self.is_local:
                    stream.flush()
                    os.fsync(stream.fileno())
        except BaseException:
            with suppress(OSError):
                self.filesystem.rm(path)
            raise

    def new_path(self, table: str, partition: str) -> str:
        """A path no file has yet, its folder made; for writers other than `write` (DuckDB's COPY)."""
        folder = self.filesystem_path(self.path(f"{table}/{partition}"))
        self.filesystem.makedirs(folder, exist_ok=True)
        return f"{table}/{partition}/{uuid.uuid4().hex}.parquet"

    def publish(self, changes: Mapping[PartitionKey, Sequence[DataFile]], *, based_on: Snapshot) -> Snapshot:
        """Swap the manifest so that each named partition holds just these files; an empty list removes it."""
        manifest = self._read_manifest()
        if manifest["version"] != based_on.version:
            raise LakeConflict(
                f"{self.path('manifest.json')} moved from version {based_on.version} to {manifest['version']} "
                "while a step was writing; nothing was published. Run the step again."
            )
        for (table, partition), files in changes.items():
            partitions = manifest["tables"].setdefault(table, {})
            if files:
                partitions[partition] = [asdict(each) for each in files]
            else:
                partitions.pop(partition, None)
        manifest["version"] += 1
        self._swap_manifest(manifest)
        return self.snapshot()

    def remove_unpublished(self, *, older_than: timedelta, now: datetime) -> int:
        """Delete data files that the manifest does not name and that are older than any reader; return how many."""
        named = {path for table in self.snapshot().tables for path in self.snapshot().paths(table)}
        removed = 0
        for path, facts in self.filesystem.find(self._base, detail=True).items():
            is_data = path.endswith(".parquet") and f"{self._scheme}{path}" not in named
            if is_data and "=" in path.removeprefix(self._base) and _modified_at(facts) < now - older_than:
                self.filesystem.rm(path)
                removed += 1
        return removed

    def _read_manifest(self) -> dict[str, Any]:
        path = self.filesystem_path(self.path("manifest.json"))
        if not self.filesystem.exists(path):
            return {"version": 0, "tables": {}}
        return json.loads(self.filesystem.cat_file(path))

    def _swap_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Old or new, never half: rename on a local disk, a single PUT in an object store."""
        path = self.filesystem_path(self.path("manifest.json"))
        content = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
        if not self.is_local:
            self.filesystem.pipe_file(path, content)
            return
        temporary = f"{path}.{uuid.uuid4().hex}"
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
        _sync_folder(Path(path).parent)


def _protocols(filesystem: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _modified_at(facts: Mapping[str, Any]) -> datetime:
    value = facts.get("mtime", facts.get("LastModified", 0.0))
    return value if isinstance(value, datetime) else datetime.fromtimestamp(value, tz=UTC)
