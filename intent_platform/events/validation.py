"""A received day through the door: judged as a whole, then published by one manifest swap, or refused."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from intent_platform import db
from intent_platform.domain import FileAccount
from intent_platform.errors import DayRefused
from intent_platform.events import accounts
from intent_platform.events.engine import open_engine
from intent_platform.events.expectations import Finding, judge_day
from intent_platform.events.intake import Door, FileIntake
from intent_platform.events.mapping import shown_words
from intent_platform.events.merging import AcceptedFiles, MergedDay, merge_day, touched_days
from intent_platform.events.rules import NOT_COUNTED_AS_REJECTED
from intent_platform.lake import DataFile, Snapshot
from intent_platform.log import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class DayReport:
    """What a validation did: accounts of the files, the days whose content was published, what was found."""

    day: date  # for which the files were received
    accounts: tuple[FileAccount, ...]
    days_published: tuple[date, ...]  # the day, and earlier ones that its late events touch
    findings: tuple[Finding, ...]


def publish_day(door: Door, intakes: Sequence[FileIntake], *, max_rejected_ratio: float) -> DayReport:
    """Refuse the day (DayRefused; its rejected rows can be looked at), or publish all of it."""
    settings, lake = door.settings, door.lake
    with db.connect(settings) as connection:
        earlier_rows = accounts.rows_of_days_before(connection, settings.shop, door.received_on)
    findings = _judge(door, intakes, earlier_rows)
    refusal = _refusal(door, intakes, findings, max_rejected_ratio)
    with db.connect(settings) as connection:
        db.exclusive(connection, "lake", settings.shop)
        snapshot = lake.snapshot()
        accounts.write_findings(connection, settings.shop, door.received_on, findings)
        received = tuple(each.account for each in intakes)
        accounts.write_file_accounts(connection, received, status="refused" if refusal else "published")
        if refusal is None:
            changes, merged = _changes(door, intakes, snapshot)
            accounts.write_clean_days(connection, merged)
        else:
            changes, merged = _quarantine_changes(door, intakes, snapshot, "refused"), []
        lake.publish(changes, based_on=snapshot)
    if refusal is not None:
        raise refusal
    days = tuple(each.facts.day for each in merged)
    log.info("day_published", shop=settings.shop, received_on=door.received_on, days=",".join(map(str, days)))
    return DayReport(day=door.received_on, accounts=received, days_published=days, findings=tuple(findings))


def _judge(door: Door, intakes: Sequence[FileIntake], earlier_rows: dict[date, int]) -> list[Finding]:
    names = {each.account.file for each in intakes}
    others = [each for each in door.lake.snapshot().files("accepted", door.partition) if each.tags["file"] not in names]
    parts = [*others, *(part for each in intakes for part in each.accepted)]
    paths = [door.lake.path(each.path) for each in parts if each.rows]
    read, rejected = _read_and_rejected(intakes)
    docs = Path(door.settings.home) / "data_docs" / f"shop={door.settings.shop}" / door.partition
    with open_engine(door.settings, door.lake) as engine:
        return judge_day(
            engine.read_parquet(paths, hive_partitioning=False) if paths else None,
            received_on=door.received_on,
            earlier_rows=earlier_rows,
            rejected_ratio=rejected / max(read, 1),
            docs=docs,
        )


def _read_and_rejected(intakes: Sequence[FileIntake]) -> tuple[int, int]:
    by_rule = sum((Counter(each.account.by_rule) for each in intakes), Counter())
    rejected = sum(rows for rule, rows in by_rule.items() if rule not in NOT_COUNTED_AS_REJECTED)
    return sum(each.account.rows_read for each in intakes), rejected


def _refusal(
    door: Door, intakes: Sequence[FileIntake], findings: Sequence[Finding], max_rejected_ratio: float
) -> DayRefused | None:
    read, rejected = _read_and_rejected(intakes)
    failed = tuple(each.expectation for each in findings if each.severity == "critical" and not each.is_met)
    if rejected <= max_rejected_ratio * read and not failed:
        return None
    by_rule = sum((Counter(each.account.by_rule) for each in intakes), Counter())
    return DayRefused(
        day=door.received_on,
        rows_read=read,
        rejected=rejected,
        allowed_ratio=max_rejected_ratio,
        by_rule=dict(by_rule),
        failed_expectations=failed,
        where=f"quarantine/{door.partition}/",
        hint=f"{_unknown_words(door, intakes)}What was published before for {door.received_on} stays. Mend the files "
        f"or sources/{door.mapping.name}.toml and run the day again, or allow more with --max-rejected-ratio.",
    )


def _unknown_words(door: Door, intakes: Sequence[FileIntake]) -> str:
    words = sum((each.unknown_words for each in intakes), Counter[str]())
    known, name = ", ".join(door.mapping.event_types), door.mapping.name
    return f"Words that sources/{name}.toml does not know: {shown_words(words)}; it knows {known}.\n" if words else ""


def _changes(
    door: Door, intakes: Sequence[FileIntake], snapshot: Snapshot
) -> tuple[dict[tuple[str, str], Sequence[DataFile]], list[MergedDay]]:
    """The manifest's next state: the received files, and every day that they touch, merged anew."""
    names = {each.account.file for each in intakes}
    old = snapshot.files("accepted", door.partition)
    replaced = [each for each in old if each.tags["file"] in names]
    new = [part for each in intakes for part in each.accepted]
    received = (*(each for each in old if each not in replaced), *new)
    accepted = AcceptedFiles(
        by_received_day={**_published_by_day(snapshot), door.received_on: received}, lake=door.lake
    )
    lateness = timedelta(hours=door.settings.max_lateness_hours)
    with open_engine(door.settings, door.lake) as engine:
        days = touched_days(engine, [*new, *replaced], accepted, door.received_on, lateness)
        merged = [merge_day(engine, day, accepted, door.settings) for day in days]
    changes = _expired_quarantine(door, snapshot) | _quarantine_changes(door, intakes, snapshot, "published")
    changes["accepted", door.partition] = accepted.by_received_day[door.received_on]
    for each in merged:
        partition = f"day={each.facts.day}"
        if not _is_published(each, snapshot):
            changes["clean", partition] = each.parts
    return changes, merged


def _expired_quarantine(door: Door, snapshot: Snapshot) -> dict[tuple[str, str], Sequence[DataFile]]:
    """Days whose sealed rows were kept for quarantine_days: their raw ids go with them."""
    last_kept = f"received={door.received_on - timedelta(days=door.settings.quarantine_days)}"
    return {("quarantine", each): [] for each in snapshot.partitions("quarantine") if each < last_kept}


def _is_published(merged: MergedDay, snapshot: Snapshot) -> bool:
    """The same content is not published again: its digest, files and readers stay as they are."""
    known = snapshot.files("clean", f"day={merged.facts.day}")
    return {each.tags["content_digest"] for each in known} == {merged.facts.content_digest}


def _quarantine_changes(
    door: Door, intakes: Sequence[FileIntake], snapshot: Snapshot, status: str
) -> dict[tuple[str, str], Sequence[DataFile]]:
    """Quarantine rows of these files under `status`; a refused try never touches what was published, nor its rows."""
    names = {each.account.file for each in intakes}
    kept = [
        each
        for each in snapshot.files("quarantine", door.partition)
        if each.tags["file"] not in names or (status == "refused" and each.tags["status"] == "published")
    ]
    new = [
        DataFile(
            path=each.quarantined.path, rows=each.quarantined.rows, tags={**each.quarantined.tags, "status": status}
        )
        for each in intakes
        if each.quarantined
    ]
    return {("quarantine", door.partition): [*kept, *new]}


def _published_by_day(snapshot: Snapshot) -> dict[date, tuple[DataFile, ...]]:
    return {
        date.fromisoformat(partition.removeprefix("received=")): snapshot.files("accepted", partition)
        for partition in snapshot.partitions("accepted")
    }
