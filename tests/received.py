"""Received files for tests: builders that show only what matters, and what the door made of them."""

import gzip
import io
import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import sqlalchemy as sa
import zstandard

from intent_platform import db
from intent_platform.events import contract, quarantine
from intent_platform.events.intake import Door, FileIntake, take_in
from intent_platform.events.mapping import load_mapping
from intent_platform.events.readers import list_files
from intent_platform.lake import Lake
from intent_platform.paths import resource_folder
from intent_platform.settings import Settings

DAY = date(2026, 8, 21)
COLUMNS = tuple(each.name for each in contract.EVENT_FIELDS)
HEADER = ",".join(COLUMNS)

RAW_USER = "shopper.000042@example.com"
RAW_DEVICE = "device-5f3a9c0011"

TABLES = (
    *("quality.file_account", "quality.rule_account", "quality.clean_day", "quality.event_count"),
    *("quality.sequence_day", "quality.expectation_result", "profiles.user_profile", "profiles.user_interest"),
    *("profiles.user_recommendation", "profiles.user_profile_history", "profiles.item", "profiles.refreshed_day"),
    "registry.promotion",
)


def an_event(number: int = 1, **changes: str) -> dict[str, str]:
    """A view of item i<number> that keeps the contract; "" leaves a field out."""
    event = {
        "event_id": f"e{number:05d}",
        "event_type": "view",
        "occurred_at": f"{DAY}T{number % 24:02d}:{number % 60:02d}:00Z",
        "user_id": RAW_USER,
        "item_id": f"i{number % 7}",
        "category": "shoes.running",
        "price": "19.5",
        "currency": "EUR",
    }
    return {name: value for name, value in (event | changes).items() if value}


def csv_line(event: Mapping[str, str]) -> str:
    """One line of a native CSV; fields with commas, quotes or newlines are quoted."""
    return ",".join(_quoted(event.get(name, "")) for name in COLUMNS)


def csv_text(events: Iterable[Mapping[str, str]]) -> str:
    return "\n".join([HEADER, *map(csv_line, events)]) + "\n"


def write_file(folder: Path, name: str, events: Iterable[Mapping[str, str]] | bytes) -> Path:
    """Write events as the name's endings say (.csv, .jsonl, .parquet, then .gz or .zst); bytes as they are."""
    content = events if isinstance(events, bytes) else _content(name, list(events))
    packers = {".gz": gzip.compress, ".zst": zstandard.compress}
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = packers[path.suffix](content) if path.suffix in packers and not isinstance(events, bytes) else content
    path.write_bytes(packed)
    return path


def mapping_with(folder: Path, source: str = "native", name: str = "", **replaced: str) -> str:
    """A copy of a shipped mapping with some of its values replaced; returns its path."""
    text = (resource_folder("sources") / f"{source}.toml").read_text(encoding="utf-8")
    for knob, value in replaced.items():
        found, put = _KNOBS[knob]
        text = text.replace(found, put.format(value))
    path = folder / f"{name or source}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


_KNOBS = {
    "format": ('format = "csv"', 'format = "{}"'),
    "encoding": ('format = "csv"', 'format = "csv"\nencoding = "{}"'),
    "time_format": ('format = "iso8601"', 'format = "{}"'),
    "time_zone": ('format = "iso8601"', 'format = "iso8601"\ntime_zone = "{}"'),
}


def door_of(settings: Settings, *, source: str = "native", day: date = DAY) -> Door:
    lake = Lake(settings.lake_root, settings.shop)
    return Door(received_on=day, mapping=load_mapping(source), settings=settings, lake=lake)


def taken_in(path: Path | str, door: Door) -> FileIntake:
    (file,) = list_files(str(path), door.mapping)
    return take_in(file, door)


def accepted_rows(intake: FileIntake, door: Door) -> list[dict]:
    """The accepted rows in event_id order, without where they came from."""
    paths = [door.lake.path(each.path) for each in intake.accepted]
    rows = [
        row
        for path in paths
        for row in pq.read_table(path, partitioning=None).drop_columns(["file", "line"]).to_pylist()
    ]
    return sorted(rows, key=lambda row: row["event_id"])


def broken_rules(intake: FileIntake, door: Door) -> dict[int, str]:
    """Line → rule of the quarantined rows."""
    if intake.quarantined is None:
        return {}
    rows = pq.read_table(door.lake.path(intake.quarantined.path), partitioning=None).to_pylist()
    return {row["line"]: row["broken_rule"] for row in rows}


def unsealed_rows(intake: FileIntake, door: Door) -> dict[int, bytes]:
    """Line → raw text of the quarantined rows, opened with the private key."""
    if intake.quarantined is None:
        return {}
    unsealer = quarantine.Unsealer(door.settings)
    rows = pq.read_table(door.lake.path(intake.quarantined.path), partitioning=None).to_pylist()
    place = {"shop": door.settings.shop, "received_on": door.received_on}
    return {
        row["line"]: unsealer.unseal(row["sealed_row"], quarantine.Place(**place, file=row["file"], line=row["line"]))
        for row in rows
    }


def dump(settings: Settings) -> dict[str, list[str]]:
    """Every row of every table that a day writes, times of writing included."""
    with db.connect(settings) as connection:
        return {
            table: sorted(map(repr, connection.execute(sa.text(f"SELECT * FROM {table}")).all())) for table in TABLES
        }


def manifest(settings: Settings) -> bytes:
    path = Path(settings.lake_root) / f"shop={settings.shop}" / "manifest.json"
    return path.read_bytes() if path.exists() else b""


def _content(name: str, events: list[Mapping[str, str]]) -> bytes:
    if ".jsonl" in name:
        return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events).encode()
    if ".parquet" in name:
        # Plain Parquet with the columns that the mapping needs; prices and times typed, as a shop would write them.
        table = pa_csv.read_csv(
            io.BytesIO(csv_text(events).encode()),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in COLUMNS if name not in ("price", "occurred_at")},
                strings_can_be_null=True,
            ),
        )
        stream = io.BytesIO()
        pq.write_table(table, stream)
        return stream.getvalue()
    return csv_text(events).encode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
