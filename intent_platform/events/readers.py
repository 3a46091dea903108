"""Received files as batches of text fields; every data row comes out once, readable or not, with its line number.

CSV, JSON Lines and Parquet, plain or .gz/.zst, from any fsspec address. Nothing is typed here, so nothing a stranger
wrote can fail to convert; a row that cannot be taken apart carries the name of the rule it broke instead of fields.
Memory holds one block, whatever the file's size: a line longer than MAX_ROW_BYTES is cut and set aside.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent_platform.errors import FileUnreadable
from intent_platform.events import framing
from intent_platform.events.framing import ENCODING_BROKEN, ROW_TORN, Lines
from intent_platform.events.mapping import Mapping

PARQUET_BATCH_ROWS = 100_000
IS_OBJECT = "CASE WHEN json_valid(text) THEN json_type(text) = 'OBJECT' ELSE false END"
"""SQL about a line's text. CASE, since the parts of an AND come in any order, and json_type raises what is no JSON."""
HAS_NESTED = rf"""
CASE WHEN {IS_OBJECT} AND regexp_matches(text, ':\s*[{{\[]')
    THEN coalesce(list_has_any(json_type(text, $paths), ['OBJECT', 'ARRAY']), false) ELSE false END
"""
"""SQL: whether a mapped field holds an object or a list. Few lines have any, so only those are taken apart again."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRows:
    """A batch of rows as found. `fields` has a text column per mapped field, all NULL where `unreadable` is set."""

    lines: np.ndarray  # int64, 1-based line of the file (Parquet: row)
    unreadable: pa.Array  # string: the rule broken, or NULL
    fields: pa.Table
    raw: Callable[[int], bytes]  # the text of the batch's i-th row, as found


@dataclass(kw_only=True)
class ReceivedFile:
    """A file to read once; `digest` (sha256 of its bytes) is known after the last batch."""

    path: str
    name: str
    mapping: Mapping
    digest: str = ""
    header: tuple[str, ...] = ()  # of a CSV, known after the first batch
    rows_seen: int = field(default=0, init=False)

    def batches(self) -> Iterator[RawRows]:
        """All rows; FileUnreadable when the file is missing, empty, cut short or of another format."""
        readers = {"csv": _read_csv, "jsonl": _read_json_lines, "parquet": _read_parquet}
        try:
            with _open(self.path) as (stream, digest):
                for rows in readers[self.mapping.file_format](self, stream):
                    self.rows_seen += len(rows.lines)
                    yield rows
            self.digest = digest()
        except FileUnreadable as error:
            raise FileUnreadable(f"{self.name}: {error}") from error
        except (OSError, EOFError, pa.ArrowInvalid) as error:
            raise FileUnreadable(
                f"{self.name}: cannot be read as {self.mapping.file_format} after {self.rows_seen:,} rows: {error}. "
                "Nothing of it was taken; fetch the file again, or mend the mapping's file.format."
            ) from error
        if self.rows_seen == 0:
            raise FileUnreadable(f"{self.name}: the file holds no rows. Nothing was taken; fetch it again.")


def list_files(path: str, mapping: Mapping) -> list[ReceivedFile]:
    """The file at `path`, or every file below that folder in name order; hidden ones are left out."""
    try:
        filesystem, base = fsspec.core.url_to_fs(path)
        is_folder = filesystem.isdir(base)
        found = sorted(filesystem.find(base)) if is_folder else [base] * filesystem.exists(base)
    except (ValueError, OSError, ImportError) as error:
        raise FileUnreadable(f"{path}: {error}.") from error
    names = {
        each: str(PurePosixPath(each).relative_to(base)) if is_folder else PurePosixPath(each).name for each in found
    }
    visible = [each for each in found if not PurePosixPath(each).name.startswith((".", "_"))]
    if not visible:
        what = "no file in this folder" if is_folder else "no such file"
        raise FileUnreadable(f"{path}: there is {what}. Nothing was taken; fetch the day's files, or mend the path.")
    return [ReceivedFile(path=filesystem.unstrip_protocol(each), name=names[each], mapping=mapping) for each in visible]


class _Opened:
    """The file's bytes, unpacked while read; remembers the digest of the packed bytes."""

    def __init__(self, path: str) -> None:
        self._source: BinaryIO = fsspec.open(path, "rb").open()
        self._sha256 = hashlib.sha256()
        self.closed = False  # asked by pyarrow before it unpacks
        compression = COMPRESSIONS.get(PurePosixPath(path).suffix)
        self._unpacked = pa.CompressedInputStream(pa.PythonFile(self, "r"), compression) if compression else None

    def __enter__(self) -> tuple["_Opened", Callable[[], str]]:
        return self, self._sha256.hexdigest

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self.closed = True

    def read(self, size: int = -1) -> bytes:
        """Packed bytes; what the unpacking stream calls."""
        chunk = self._source.read(size)
        self._sha256.update(chunk)
        return chunk

    def read_unpacked(self, size: int) -> bytes:
        return self._unpacked.read(size) if self._unpacked else self.read(size)


_open = _Opened


def _blocks(file: ReceivedFile, stream: _Opened) -> Iterator[Lines]:
    return framing.blocks_of_lines(stream.read_unpacked, encoding=file.mapping.encoding, quote=file.mapping.quote)


def _read_csv(file: ReceivedFile, stream: _Opened) -> Iterator[RawRows]:
    mapping, header = file.mapping, file.mapping.header
    for lines in _blocks(file, stream):
        if mapping.has_header and not header:
            header, lines = framing.take_header(lines, mapping.delimiter, mapping.quote)
            mapping.check_fit(header, file.name)
        file.header = header
        if len(lines):
            yield _csv_rows(lines, header, mapping)


def _csv_rows(lines: Lines, header: Sequence[str], mapping: Mapping) -> RawRows:
    lines, columns = framing.parse_csv(
        lines,
        header=header,
        wanted=list(dict.fromkeys(mapping.columns.values())),
        delimiter=mapping.delimiter,
        quote=mapping.quote,
        null_words=mapping.null_words,
    )
    fields = pa.table({name: columns[column] for name, column in mapping.columns.items()})
    return RawRows(lines=lines.numbers, unreadable=lines.broken_rules(), fields=fields, raw=lines.text)


def rows_of_texts(texts: Sequence[bytes], numbers: Sequence[int], header: Sequence[str], mapping: Mapping) -> RawRows:
    """Rows given one by one, as the quarantine holds them; those of a Parquet file are JSON objects there."""
    lines = framing.lines_of_texts(texts, numbers)
    if mapping.file_format == "csv":
        return _csv_rows(lines, header, mapping)
    return _json_rows(duckdb.connect(), lines, mapping)


def _read_json_lines(file: ReceivedFile, stream: _Opened) -> Iterator[RawRows]:
    connection = duckdb.connect()
    is_first = True
    for lines in _blocks(file, stream):
        if is_first:
            _check_json_fit(connection, lines, file)
            is_first = False
        yield _json_rows(connection, lines, file.mapping)


def _check_json_fit(connection: duckdb.DuckDBPyConnection, lines: Lines, file: ReceivedFile) -> None:
    """A mapped column may be absent from some rows, but the required ones not from a whole block."""
    connection.register("lines", pa.table({"text": lines.readable_texts()}))
    keys = connection.sql(
        f"SELECT DISTINCT unnest(CASE WHEN {IS_OBJECT} THEN json_keys(text) END) FROM lines"
    ).fetchall()
    present = sorted(key for (key,) in keys)
    required = [file.mapping.columns[name] for name in ("event_type", "occurred_at") if name in file.mapping.columns]
    if present and not all(_top_key(column) in present for column in required):
        file.mapping.check_fit(present, file.name)


def _json_rows(connection: duckdb.DuckDBPyConnection, lines: Lines, mapping: Mapping) -> RawRows:
    connection.register("lines", pa.table({"text": lines.readable_texts()}))
    paths = [_json_path(column) for column in mapping.columns.values()]
    result: pa.Table = connection.sql(
        f"SELECT {IS_OBJECT} AND NOT {HAS_NESTED} AS is_row, "
        f"CASE WHEN is_row THEN json_extract_string(text, $paths) END AS found FROM lines",
        params={"paths": paths},
    ).to_arrow_table()
    found = result["found"].combine_chunks()
    columns = {
        name: _null_words(pc.list_element(_filled(found, len(paths)), position), mapping)
        for position, name in enumerate(mapping.columns)
    }
    lines = lines.mark(~np.asarray(result["is_row"]).astype(bool), ROW_TORN)
    with_nul = np.logical_or.reduce([_has_nul(column) for column in columns.values()])
    lines = lines.mark(with_nul, ENCODING_BROKEN)
    return RawRows(lines=lines.numbers, unreadable=lines.broken_rules(), fields=pa.table(columns), raw=lines.text)


def _filled(lists: pa.Array, length: int) -> pa.Array:
    """NULL lists become lists of NULLs, so that element access keeps every row."""
    return pc.fill_null(lists, pa.scalar([None] * length, lists.type))


def _top_key(column: str) -> str:
    return column.split(".", 1)[0]


def _json_path(column: str) -> str:
    """`user.id` reaches into an object; a key that holds a dot itself is not supported."""
    return "$." + ".".join(f'"{part}"' for part in column.split("."))


def _null_words(column: pa.Array, mapping: Mapping) -> pa.Array:
    is_null = pc.is_in(column, value_set=pa.array(list(mapping.null_words), pa.string()))
    return pc.if_else(is_null, pa.scalar(None, pa.string()), column)


def _has_nul(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.match_substring(column, "\x00"), False), dtype=bool)


def _read_parquet(file: ReceivedFile, stream: _Opened) -> Iterator[RawRows]:
    """Parquet is read by seeking, so the digest is taken of the whole file first."""
    while stream.read(1 << 22):
        pass
    with fsspec.open(file.path, "rb") as source:
        parquet = pq.ParquetFile(source)
        file.mapping.check_fit(parquet.schema_arrow.names, file.name)
        wanted = list(dict.fromkeys(file.mapping.columns.values()))
        first = 1
        for batch in parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            yield _parquet_rows(pa.table(batch), batch.select(wanted), first, file.mapping)
            first += batch.num_rows


def _parquet_rows(whole: pa.Table, wanted: pa.RecordBatch, first: int, mapping: Mapping) -> RawRows:
    texts = {name: _as_text(wanted.column(name), name) for name in wanted.schema.names}
    columns = {name: _null_words(texts[column], mapping) for name, column in mapping.columns.items()}
    broken = np.logical_or.reduce([_has_nul(column) for column in columns.values()])
    unreadable = pa.array([ENCODING_BROKEN if each else None for each in broken], pa.string())
    return RawRows(
        lines=np.arange(first, first + whole.num_rows, dtype=np.int64),
        unreadable=unreadable,
        fields=pa.table(columns),
        raw=lambda position: json.dumps(whole.slice(position, 1).to_pylist()[0], default=str).encode(),
    )


def _as_text(column: pa.Array, name: str) -> pa.Array:
    """Typed Parquet values as the text that a CSV would hold; times as ISO 8601."""
    kind: Any = column.type
    if pa.types.is_timestamp(kind):
        text = pc.strftime(column, format="%Y-%m-%dT%H:%M:%S")
        return pc.binary_join_element_wise(text, "Z", "") if kind.tz in ("UTC", "Etc/UTC", "+00:00") else text
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FileUnreadable(f"Parquet column {name!r} has type {kind}, which is no plain value.") from error
