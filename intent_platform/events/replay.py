"""Quarantined rows come in again once they are good: the mapping was mended, or the rows themselves were.

A row that is replayed leaves the quarantine and enters `accepted` under its old place (received day, file, line), in
one manifest swap: so it comes in exactly once, however often replay runs. Rows mended by hand are kept as a part of
their own, which a later validation of the same file takes over.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent_platform import db
from intent_platform.domain import FileAccount
from intent_platform.errors import FileUnreadable, NotEnoughData
from intent_platform.events.contract import QUARANTINE_SCHEMA
from intent_platform.events.engine import open_engine
from intent_platform.events.intake import Door, FileIntake, judge
from intent_platform.events.parts import PartWriter
from intent_platform.events.quarantine import Place, Rejected, Sealer, Unsealer, quarantine_table
from intent_platform.events.readers import rows_of_texts
from intent_platform.lake import DataFile, Snapshot

FIXED = "fixed_by_hand"  # tag of accepted parts whose rows are not in the shop's file


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantinedRow:
    """One row as it was found; what `intent quarantine` writes and `intent replay --fixed` reads, one object a line."""

    file: str
    line: int
    broken_rule: str
    raw: str


def quarantined_rows(door: Door) -> Iterator[QuarantinedRow]:
    """Unseal what lies in the quarantine of a received day, refused tries included. Needs the private key."""
    unsealer = Unsealer(door.settings)
    for file in door.lake.snapshot().files("quarantine", door.partition):
        for row in _read(file, door).to_pylist():
            raw = unsealer.unseal(row["sealed_row"], _place(row, door))
            text = raw.decode("utf-8", errors="backslashreplace")
            yield QuarantinedRow(file=row["file"], line=row["line"], broken_rule=row["broken_rule"], raw=text)


def read_fixed_rows(path: Path) -> dict[tuple[str, int], bytes]:
    """Mended rows by (file, line), from JSON Lines with the keys file, line and raw."""
    fixed = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(text)
            fixed[row["file"], int(row["line"])] = row["raw"].encode()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileUnreadable(
                f"{path} line {number} is no JSON object with file, line and raw ({type(error).__name__}); "
                "nothing was replayed."
            ) from error
    return fixed


def replay(door: Door, fixed: Mapping[tuple[str, int], bytes]) -> list[FileIntake]:
    """Judge a received day's quarantined rows again; files of which no row is good now are left out."""
    snapshot = door.lake.snapshot()
    held = [each for each in snapshot.files("quarantine", door.partition) if each.tags["status"] == "published"]
    if not held:
        raise NotEnoughData(
            f"Nothing published for {door.received_on} is in quarantine. Rows of a refused day come in by running "
            "the day again once its files or its mapping are mended."
        )
    accounts = _accounts(door)
    unknown = set(fixed) - {(row["file"], row["line"]) for file in held for row in _read(file, door).to_pylist()}
    if unknown:
        name, line = min(unknown)
        raise NotEnoughData(f"{len(unknown)} mended rows are not in quarantine, the first is {name} line {line}.")
    intakes = (_replay_file(file, door, fixed, accounts[file.tags["file"]], snapshot) for file in held)
    return [each for each in intakes if each is not None]


def keep_fixed_rows(intake: FileIntake, door: Door) -> FileIntake:
    """A validated file, with those of its rows that were mended by hand earlier; another file's bytes end them."""
    snapshot = door.lake.snapshot()
    parts = [
        each
        for each in snapshot.files("accepted", door.partition)
        if FIXED in each.tags and each.tags["file"] == intake.account.file
        and each.tags["file_digest"] == intake.account.file_digest
    ]  # fmt: skip
    if not parts or intake.quarantined is None:
        return intake
    lines = pa.concat_tables([_read(each, door, columns=["line"]) for each in parts])["line"]
    held = _read(intake.quarantined, door)
    is_fixed = pc.is_in(held["line"], value_set=lines.combine_chunks())
    still = held.filter(pc.invert(is_fixed))
    came_in = sum(each.rows for each in parts)
    repeats = int(pc.sum(is_fixed).as_py() or 0) - came_in
    account = _account_after(intake.account, still, accepted=came_in, duplicate=max(repeats, 0))
    quarantined = _write_quarantine(still, intake.quarantined, door)
    return FileIntake(account=account, accepted=(*intake.accepted, *parts), quarantined=quarantined)


def _replay_file(
    file: DataFile,
    door: Door,
    fixed: Mapping[tuple[str, int], bytes],
    account: FileAccount,
    snapshot: Snapshot,
) -> FileIntake | None:
    held = _read(file, door)
    unsealer = Unsealer(door.settings)
    rows = held.sort_by("line").to_pylist()
    raw = [
        fixed.get((row["file"], row["line"])) or unsealer.unseal(row["sealed_row"], _place(row, door)) for row in rows
    ]
    header = json.loads(file.tags["header"])
    batch = rows_of_texts(raw, [row["line"] for row in rows], header, door.mapping)
    batch = replace(batch, fields=door.pseudonymiser.replace_ids(batch.fields))
    with open_engine(door.settings, door.lake, time_zone=door.mapping.time_zone) as engine:
        good, rejected = judge(batch, account.file, door, engine)
    if not good.num_rows:
        return None
    before = tuple(each for each in snapshot.files("accepted", door.partition) if each.tags["file"] == account.file)
    new = _first_of_each(good, before, door)
    tags = {**file.tags, FIXED: "yes"} if fixed else dict(file.tags)
    tags.pop("status")
    with PartWriter(door.lake, ("accepted", door.partition)) as writer:
        writer.add(new)
    still = quarantine_table(_as_found(rejected, rows, unsealer), Sealer(door.settings))
    after = _account_after(account, still, accepted=new.num_rows, duplicate=good.num_rows - new.num_rows)
    return FileIntake(
        account=after, accepted=(*before, *writer.parts(tags)), quarantined=_write_quarantine(still, file, door)
    )


def _as_found(rejected: Sequence[Rejected], rows: Sequence[Mapping], unsealer: Unsealer) -> list[Rejected]:
    """Rows that stay keep the text the shop sent, not a mend that did not help."""
    sealed = {row["line"]: row["sealed_row"] for row in rows}
    return [replace(each, raw=unsealer.unseal(sealed[each.place.line], each.place)) for each in rejected]


def _first_of_each(good: pa.Table, before: Sequence[DataFile], door: Door) -> pa.Table:
    """Rows whose event_id the file has not given yet, the first line of each."""
    known = {each for part in before for each in _read(part, door, columns=["event_id"])["event_id"].to_pylist()}
    chosen = []
    for position, event_id in enumerate(good.sort_by("line")["event_id"].to_pylist()):
        if event_id not in known:
            known.add(event_id)
            chosen.append(position)
    return good.sort_by("line").take(pa.array(chosen, pa.int64()))


def _account_after(account: FileAccount, still: pa.Table, *, accepted: int, duplicate: int) -> FileAccount:
    by_rule = dict(Counter(still["broken_rule"].to_pylist()))
    return replace(
        account,
        accepted=account.accepted + accepted,
        duplicate=account.duplicate + duplicate,
        quarantined=still.num_rows,
        by_rule=by_rule,
    )


def _write_quarantine(still: pa.Table, file: DataFile, door: Door) -> DataFile | None:
    tags = {name: value for name, value in file.tags.items() if name != "status"}
    return (
        door.lake.write("quarantine", door.partition, still.cast(QUARANTINE_SCHEMA), tags) if still.num_rows else None
    )


def _accounts(door: Door) -> dict[str, FileAccount]:
    found: dict[str, FileAccount] = {}
    with db.connect(door.settings) as connection:
        rows = db.query(connection, "file_accounts", shop=door.settings.shop, received_on=door.received_on, file=None)
    for row in rows:
        if row["status"] != "published":
            continue
        facts = {name: value for name, value in row.items() if name != "status"}
        found[row["file"]] = FileAccount(**facts)
    return found


def _place(row: Mapping, door: Door) -> Place:
    return Place(shop=door.settings.shop, received_on=row["received_on"], file=row["file"], line=row["line"])


def _read(file: DataFile, door: Door, columns: list[str] | None = None) -> pa.Table:
    lake = door.lake
    with lake.filesystem.open(lake.filesystem_path(lake.path(file.path)), "rb") as stream:
        return pq.read_table(stream, columns=columns)
