"""From labelled days to the release that serves: examples → train → evaluate → gate → index → promotion."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from intent_platform import db, sequences
from intent_platform.errors import NotEnoughData, TrainingFailed
from intent_platform.events.catalogue import changed_items
from intent_platform.index.item_index import load_index
from intent_platform.index.registry import (
    add_decision,
    add_evaluation,
    add_model,
    current_model,
    current_promotion,
    current_release,
    ensure_release,
    make_bootstrap,
    promote,
    publish_index,
    rollback,
    utc_now,
)
from intent_platform.index.retention import remove_old_releases
from intent_platform.lake import Lake, Snapshot
from intent_platform.log import get_logger, log_to_stderr
from intent_platform.model import parts
from intent_platform.model.behaviour import Model, load_model
from intent_platform.model.examples import find_days
from intent_platform.priority import give_way
from intent_platform.settings import Settings

__all__ = [
    "current_promotion",
    "current_release",
    "ensure_release",
    "promote",
    "rebuild_index",
    "retrain",
    "rollback",
]

log = get_logger(__name__)

CHILD_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}
"""Of a training. A step makes and drops tensors of 32 MiB; given back to the system each time, they cost a page fault
per 4 KiB when they are made again: a sixth of a step. So glibc keeps up to a GiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingReport:
    """What retrain did."""

    day: date
    is_promoted: bool
    reason: str  # a sentence: why it was promoted, refused, or not trained at all
    awaits_approval: bool = False  # the gate let it pass; release_id can be promoted by a person
    release_id: str | None = None
    model_digest: str | None = None
    report: str | None = None  # path of the HTML report


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What rebuild_index did."""

    release_id: str
    promotion_number: int
    items: int
    recall_at_20: float
    is_new: bool  # False: the same items gave the same index, which serves already


def retrain(day: date, settings: Settings, *, is_forced: bool = False, now: datetime | None = None) -> TrainingReport:
    """Train on the days up to and including `day` when that is due; promote what passes the gate.

    With too few mature labels the bootstrap release serves, and its reason says how many there are.
    """
    now = now or utc_now()
    if not is_forced and (reason := _not_due(day, settings)):
        return TrainingReport(day=day, is_promoted=False, reason=reason)
    lake = Lake(settings.lake_root, settings.shop)
    snapshot = _with_sequences(lake, settings, now)
    split = sequences.split_by_time(find_days(snapshot.partitions("sequences"), day, settings), settings.horizon_hours)
    if reason := _too_few_labels(snapshot, split, day, settings):
        return _bootstrap(day, reason, settings, now)
    champion = _champion(settings)
    folder = _work_folder(snapshot, split, day, champion, settings)
    _run_child(day, folder, champion, settings)
    return _settle(day, folder, split, lake, settings, now)


def rebuild_index(settings: Settings, *, now: datetime | None = None) -> IndexReport:
    """Index today's catalogue with the current model and promote the result; new items live by their text."""
    now = now or utc_now()
    found = current_model(settings)
    if found is None:
        raise NotEnoughData(
            "No release serves yet, so there is no model to index with: run `intent day` or `intent train`."
        )
    model, index_before, before = found
    manifest = publish_index(settings, model, None, now=now, before=index_before)
    promotion = promote(
        settings, manifest.release_id, reason="New item index", decided_by="rebuild_index", clock=now, after=before
    )
    remove_old_releases(settings, now=now)
    index = load_index(Lake(settings.lake_root, settings.shop).path(""), manifest.index, settings)
    return IndexReport(
        release_id=manifest.release_id,
        promotion_number=promotion.promotion_number,
        items=len(index),
        recall_at_20=index.passport.least_recall,
        is_new=promotion.promotion_number != before.promotion_number,
    )


def _not_due(day: date, settings: Settings) -> str | None:
    with db.connect(settings) as connection:
        newest = db.query(connection, "newest_training", shop=settings.shop)
    if not newest or newest[0]["trained_until"] + timedelta(days=settings.training_every_days) <= day:
        return None
    return (
        f"The newest model knows the days up to {newest[0]['trained_until']}; training is due every "
        f"{settings.training_every_days} days (INTENT_TRAINING_EVERY_DAYS)."
    )


def _with_sequences(lake: Lake, settings: Settings, now: datetime) -> Snapshot:
    """The lake with sequences and items of every clean day; a training may run before the day's refresh made them."""
    with db.connect(settings) as connection:
        db.exclusive(connection, "lake", settings.shop)
        snapshot = lake.snapshot()
        _, items = changed_items(snapshot, settings, None, now)
        changes = sequences.build_days(snapshot, settings) | items
        return lake.publish(changes, based_on=snapshot) if changes else snapshot


def _too_few_labels(snapshot: Snapshot, split: sequences.Split, day: date, settings: Settings) -> str | None:
    if not (split.train and split.validation and split.test):
        mature = len(split.train) + len(split.validation) + len(split.test)
        return f"too_few_mature_days: {mature} (training, validation and test need days of their own)"
    from intent_platform.model.candidate import count_labels  # torch, only where something is trained

    labels = count_labels(training_input(snapshot, split, day, settings), settings)
    return None if labels >= settings.min_labels else f"too_few_mature_labels: {labels} of {settings.min_labels}"


def _bootstrap(day: date, reason: str, settings: Settings, now: datetime) -> TrainingReport:
    """Nothing can be learned yet: popularity and text serve, unless something better does already."""
    found = current_release(settings)
    if found is not None and found[0].model.card.kind == "trained":
        return TrainingReport(day=day, is_promoted=False, reason=f"Nothing was trained: {reason}.")
    promotion = make_bootstrap(settings, day, reason=reason, now=now)
    return TrainingReport(
        day=day, is_promoted=True, reason=f"Bootstrap release: {reason}.", release_id=promotion.release_id
    )


def training_input(snapshot: Snapshot, split: sequences.Split, day: date, settings: Settings) -> Any:
    from intent_platform.model.candidate import TrainingInput

    reach = replace(settings, history_days=max(settings.history_days, settings.training_days))
    return TrainingInput(
        rows=sequences.read_history(snapshot, day, reach),
        items=snapshot.read("items"),
        split=split,
        data_digests=_data_digests(snapshot, day, settings),
    )


def _data_digests(snapshot: Snapshot, day: date, settings: Settings) -> dict[str, str]:
    digests = {}
    for each in find_days(snapshot.partitions("sequences"), day, settings):
        tags = [file.tags["inputs"] for file in snapshot.files("sequences", f"day={each}")]
        digests[each.isoformat()] = hashlib.sha256("".join(tags).encode()).hexdigest()
    return digests


def _work_folder(
    snapshot: Snapshot, split: sequences.Split, day: date, champion: str | None, settings: Settings
) -> Path:
    """The same data, settings, seed and champion come back to the same folder, and so to its last checkpoint."""
    named = {each.name: str(getattr(settings, each.name)) for each in fields(Settings) if each.name in _SHAPING}
    content = json.dumps([_data_digests(snapshot, day, settings), str(split), named, champion], sort_keys=True)
    return settings.home / "training" / f"{day}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


_SHAPING = (
    "shop",
    "horizon_hours",
    "history_days",
    "window_events",
    "encoder",
    "encoder_tuning",
    "encoder_tuning_steps",
    "seed",
    "max_epochs",
    "training_days",
    "warm_start",
)


def _champion(settings: Settings) -> str | None:
    """Digest of the trained model that serves; None before there is one."""
    with db.connect(settings) as connection:
        rows = db.query(connection, "current_release", shop=settings.shop)
    return rows[0]["model_digest"] if rows and rows[0]["kind"] == "trained" else None


def _run_child(day: date, folder: Path, champion: str | None, settings: Settings) -> None:
    """Train in a process of its own: CUDA and the OpenMP runtimes do not survive a fork."""
    if (folder / "outcome.json").exists():  # a run before this one trained, and stopped before it had settled
        return
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **settings.as_environment(), **CHILD_ENVIRONMENT}
    environment["OMP_NUM_THREADS"] = str(settings.threads)
    command = [sys.executable, "-m", "intent_platform.training", "--day", day.isoformat(), "--folder", str(folder)]
    command += ["--champion", champion] if champion else []
    ended = subprocess.run(command, env=environment, check=False)
    if ended.returncode != 0 or not (folder / "outcome.json").exists():
        raise TrainingFailed(
            f"Training for {day} ended with status {ended.returncode}; its messages are above. Nothing was promoted. "
            f"Run it again: it goes on from the last checkpoint in {folder / 'checkpoint'}."
        )


def _settle(
    day: date, folder: Path, split: sequences.Split, lake: Lake, settings: Settings, now: datetime
) -> TrainingReport:
    """Publish the model, write its evaluation and decision, and promote it if it was approved."""
    outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    digest = parts.publish_part(lake.path(""), "model", folder / "model")
    model = load_model(lake.path(""), digest, settings)
    report = settings.home / "reports" / f"evaluation-{day}-{digest[:10]}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "report.html", report)
    verdict = outcome["verdict"]
    with db.connect(settings) as connection:
        add_model(
            connection,
            settings,
            model,
            trained_from=split.train[0],
            trained_until=day,
            report=str(report),
            now=now,
        )
        add_evaluation(connection, settings, digest, outcome["figures"], outcome["calibration"])
        add_decision(connection, settings, digest, _word(verdict), verdict["reasons"], "gate", now)
    release_id = _release_if_approved(model, verdict, day, settings, now)
    is_promoted = release_id is not None and not settings.require_approval
    if release_id is not None and is_promoted:
        promote(settings, release_id, reason=" ".join(verdict["reasons"]), decided_by="gate", clock=now)
        remove_old_releases(settings, now=now)
    shutil.rmtree(folder)
    return TrainingReport(
        day=day,
        is_promoted=is_promoted,
        reason=" ".join(verdict["reasons"]),
        awaits_approval=release_id is not None and not is_promoted,
        release_id=release_id,
        model_digest=digest,
        report=str(report),
    )


def _release_if_approved(
    model: Model, verdict: dict[str, Any], day: date, settings: Settings, now: datetime
) -> str | None:
    """The candidate with an index over today's items, registered; None where the gate refused it."""
    if not verdict["is_approved"]:
        log.info("candidate_refused", model=model.digest)
        ensure_release(settings, day, now=now)
        return None
    return publish_index(settings, model, day, now=now).release_id


def _word(verdict: dict[str, Any]) -> str:
    return "approved" if verdict["is_approved"] else "refused"


def main(arguments: list[str] | None = None) -> None:
    """The child process: read the lake, leave a candidate in the folder."""
    import logging

    from intent_platform.model.candidate import make_candidate

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--day", type=date.fromisoformat, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--champion", help="digest of the model that serves")
    asked = parser.parse_args(arguments)
    log_to_stderr(logging.INFO)
    settings = Settings.from_env()
    give_way(settings.niceness)
    pa.set_cpu_count(settings.threads)
    lake = Lake(settings.lake_root, settings.shop)
    snapshot = lake.snapshot()
    days = find_days(snapshot.partitions("sequences"), asked.day, settings)
    split = sequences.split_by_time(days, settings.horizon_hours)
    given = training_input(snapshot, split, asked.day, settings)
    make_candidate(replace(given, champion=asked.champion, root=lake.path("")), asked.folder, settings)


if __name__ == "__main__":
    main()
