"""Which release serves: the registry's rows, promotion, and the bootstrap release that serves before any model does."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db
from intent_platform.domain import Promotion
from intent_platform.errors import IndexInvalid, ReleaseInvalid, ReleaseMoved
from intent_platform.index.build import build_index
from intent_platform.index.demand import read_demand
from intent_platform.index.item_index import ItemIndex, Passport, load_index
from intent_platform.index.release import (
    Manifest,
    Release,
    check_release,
    load_release,
    read_manifest,
    write_manifest,
)
from intent_platform.lake import Lake, Snapshot
from intent_platform.log import get_logger
from intent_platform.model import parts
from intent_platform.model.behaviour import Model, ModelCard, load_model, save_model
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.policy import load_policy
from intent_platform.model.text import find_encoder, item_text
from intent_platform.sequences import read_touches
from intent_platform.settings import Settings

log = get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


def current_promotion(settings: Settings) -> Promotion | None:
    """The one pointer: the promotion with the highest number; None before the first."""
    with db.connect(settings) as connection:
        rows = db.query(connection, "current_release", shop=settings.shop)
    if not rows:
        return None
    row = rows[0]
    return Promotion(
        shop=row["shop"],
        promotion_number=row["promotion_number"],
        release_id=row["release_id"],
        decided_at=row["decided_at"],
    )


def current_release(settings: Settings) -> tuple[Release, Promotion] | None:
    """What serves now, loaded and beside today's catalogue; None before the first promotion."""
    promotion = current_promotion(settings)
    if promotion is None:
        return None
    release = load_release(settings, promotion.release_id)
    snapshot = Lake(settings.lake_root, settings.shop).snapshot()
    release = release.with_catalogue(snapshot.read("items"))
    blend = release.model.blend
    if blend is not None:
        touches = read_touches(snapshot, blend.sessions_from, blend.sessions_until, settings)
        release = release.with_sessions(touches)
    return release, promotion


def current_model(settings: Settings) -> tuple[Model, ItemIndex | None, Promotion] | None:
    """The model that serves, and its index where that can be read: what a new index is made from."""
    promotion = current_promotion(settings)
    if promotion is None:
        return None
    lake = Lake(settings.lake_root, settings.shop)
    manifest = read_manifest(lake, promotion.release_id)
    model = load_model(lake.path(""), manifest.model, settings)
    try:
        index = load_index(lake.path(""), manifest.index, settings)
    except (IndexInvalid, ReleaseInvalid) as error:
        log.warning("index_left_behind", release=promotion.release_id, reason=str(error).splitlines()[0])
        index = None
    return model, index, promotion


def ensure_release(settings: Settings, day: date, *, now: datetime | None = None) -> Release:
    """What serves now; when nothing does, a bootstrap release is made from the days up to `day` and promoted."""
    found = current_release(settings)
    if found is not None:
        return found[0]
    make_bootstrap(settings, day, reason="no_model_trained_yet", now=now)
    found = current_release(settings)
    assert found is not None
    return found[0]


def make_bootstrap(settings: Settings, day: date, *, reason: str, now: datetime | None = None) -> Promotion:
    """Popularity and text serve, and purchase_intent stays NULL for the given reason."""
    now = now or utc_now()
    lake = Lake(settings.lake_root, settings.shop)
    model = bootstrap_model(lake, lake.snapshot(), settings, reason)
    with db.connect(settings) as connection:
        add_model(connection, settings, model, trained_from=None, trained_until=day, report=None, now=now)
        add_decision(connection, settings, model.digest, "approved", [f"Bootstrap: {reason}."], "bootstrap", now)
    manifest = publish_index(settings, model, day, now=now)
    return promote(settings, manifest.release_id, reason=f"Bootstrap: {reason}", decided_by="bootstrap", clock=now)


def promote(
    settings: Settings,
    release_id: str,
    *,
    reason: str,
    decided_by: str,
    clock: datetime,
    after: Promotion | None = None,
) -> Promotion:
    """Point the shop at a release, under the next number. Its parts are checked first; what serves already stays.

    after: the promotion that the release was made from; ReleaseMoved when it is no longer the newest, so that a new
    index never brings an older model back.
    """
    _check_registered(settings, release_id)
    load_release(settings, release_id)
    return _point_at(settings, release_id, reason=reason, decided_by=decided_by, clock=clock, after=after)


def rollback(settings: Settings, *, reason: str, decided_by: str, clock: datetime) -> Promotion:
    """Point the shop at the release that served before the current one, under the next number.

    Takes milliseconds: its parts were checked when it was promoted, and whoever loads them checks them again.
    """
    with db.connect(settings) as connection:
        found = db.query(connection, "release_before", shop=settings.shop)
    if not found:
        raise ReleaseInvalid(
            f"No release served shop {settings.shop!r} before the current one first did. registry.release lists what "
            "can be promoted by its id."
        )
    release_id = found[0]["release_id"]
    _check_registered(settings, release_id)
    check_release(settings, release_id)
    return _point_at(settings, release_id, reason=reason, decided_by=decided_by, clock=clock)


def _point_at(
    settings: Settings,
    release_id: str,
    *,
    reason: str,
    decided_by: str,
    clock: datetime,
    after: Promotion | None = None,
) -> Promotion:
    facts = {"release_id": release_id, "reason": reason, "decided_by": decided_by, "decided_at": clock}
    with db.connect(settings) as connection:
        db.exclusive(connection, "promotion", settings.shop)
        current = db.query(connection, "current_release", shop=settings.shop)[:1] if after else []
        if after and current[0]["promotion_number"] != after.promotion_number:
            raise ReleaseMoved(
                f"{current[0]['release_id']} was promoted while {release_id} was being made from {after.release_id}. "
                "That promotion stays; run the step again, from what serves now."
            )
        rows = db.query(connection, "add_promotion", shop=settings.shop, **facts)
    number = rows[0]["promotion_number"]
    log.info("release_promoted", release=release_id, promotion=number, is_new=rows[0]["is_new"])
    return Promotion(shop=settings.shop, promotion_number=number, release_id=release_id, decided_at=clock)


def _check_registered(settings: Settings, release_id: str) -> None:
    with db.connect(settings) as connection:
        found = db.query(connection, "registered_release", shop=settings.shop, release_id=release_id)
    if not found:
        raise ReleaseInvalid(f"Release {release_id!r} is not in registry.release of shop {settings.shop!r}.")
    removed_at = found[0]["removed_at"]
    if removed_at is not None:
        raise ReleaseInvalid(
            f"The files of release {release_id!r} were removed on {removed_at:%Y-%m-%d}: of those that served, the "
            f"newest {settings.keep_releases} are kept (INTENT_KEEP_RELEASES). Promote one whose removed_at in "
            "registry.release is NULL, or train again."
        )


def publish_index(
    settings: Settings, model: Model, day: date | None, *, now: datetime, before: ItemIndex | None = None
) -> Manifest:
    """Index today's items with a model's vectors and register the release. IndexInvalid when it finds too little.

    before: the index that serves, when it is the same model's.
    """
    lake = Lake(settings.lake_root, settings.shop)
    snapshot = lake.snapshot()
    items = snapshot.read("items")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        demand = read_demand(snapshot, day, settings)
        built = build_index(model, items, demand, settings, folder, before)
        digest = parts.publish_part(lake.path(""), "index", folder)
        size = sum(each.stat().st_size for each in folder.iterdir())
    passport = load_index(lake.path(""), digest, settings).passport
    refusal = _refusal(passport, settings)
    made = {
        "unavailable_ratio": 1 - pc.sum(items["is_available"]).as_py() / items.num_rows,
        "build_seconds": built.seconds,
        "is_trained": built.is_trained,
        "bytes": size,
        "is_published": refusal is None,
        "built_at": now,
    }
    with db.connect(settings) as connection:
        db.query(connection, "add_item_index", shop=settings.shop, index_digest=digest, **asdict(passport), **made)
    if refusal is not None:
        raise IndexInvalid(refusal)
    manifest = write_manifest(lake, settings.shop, model, digest)
    with db.connect(settings) as connection:
        _add_release(connection, settings, manifest, now)
    return manifest


def _refusal(passport: Passport, settings: Settings) -> str | None:
    """Why an index may not serve; None where it may."""
    policy = load_policy(settings)
    stays = "It was not published and the index before it stays; registry.item_index has its passport."
    if passport.least_recall < policy.min_index_recall:
        return (
            f"The index over {passport.items:,} items finds {passport.least_recall:.1%} of the exact 20 nearest; the "
            f"policy asks for {policy.min_index_recall:.1%}. {stays}"
        )
    if passport.score_error > policy.max_index_score_error:
        return (
            f"The index over {passport.items:,} items gives scores that are off by up to {passport.score_error:.2g}; "
            f"the policy allows {policy.max_index_score_error:.2g}. {stays}"
        )
    return None


def add_model(
    connection: sa.Connection,
    settings: Settings,
    model: Model,
    *,
    trained_from: date | None,
    trained_until: date,
    report: str | None,
    now: datetime,
) -> None:
    """Register a published model folder."""
    shaping = ("horizon_hours", "window_events", "history_days", "max_epochs", "min_labels", "session_gap_minutes")
    db.query(
        connection,
        "add_model",
        shop=settings.shop,
        model_digest=model.digest,
        kind=model.card.kind,
        purchase_scorer=model.card.purchase_scorer,
        item_scorer=model.card.item_scorer,
        trained_from=trained_from,
        trained_until=trained_until,
        training_seed=model.card.seed,
        training_settings=json.dumps({name: getattr(settings, name) for name in shaping}),
        data_digests=json.dumps(model.card.data_digests),
        report=report,
        trained_at=now,
    )


def add_decision(
    connection: sa.Connection,
    settings: Settings,
    model_digest: str,
    verdict: str,
    reasons: Sequence[str],
    decided_by: str,
    now: datetime,
) -> None:
    db.query(
        connection,
        "add_decision",
        shop=settings.shop,
        model_digest=model_digest,
        decided_at=now,
        verdict=verdict,
        reasons=json.dumps(list(reasons), ensure_ascii=False),
        decided_by=decided_by,
    )


def add_evaluation(
    connection: sa.Connection,
    settings: Settings,
    model_digest: str,
    figures: Sequence[Mapping[str, object]],
    calibration: Sequence[Mapping[str, object]],
) -> None:
    """Store rows of metrics.Figure and metrics.Bin, as dictionaries."""
    model = {"shop": settings.shop, "model_digest": model_digest}
    db.execute_many(connection, "add_evaluation", [{**model, **each} for each in figures])
    db.execute_many(connection, "add_calibration", [{**model, **each} for each in calibration])


def _add_release(connection: sa.Connection, settings: Settings, manifest: Manifest, now: datetime) -> None:
    added = db.query(
        connection,
        "add_release",
        shop=settings.shop,
        release_id=manifest.release_id,
        model_digest=manifest.model,
        index_digest=manifest.index,
        created_at=now,
    )
    if not added:
        raise ReleaseInvalid(
            f"Model {manifest.model[:16]}… is not approved, or has no stored evaluation, so release "
            f"{manifest.release_id} may not name it. See registry.decision."
        )


def bootstrap_model(lake: Lake, snapshot: Snapshot, settings: Settings, reason: str) -> Model:
    items = snapshot.read("items", columns=["item_id", "title", "category", "brand"]).sort_by("item_id")
    columns = (items[name].to_pylist() for name in ("title", "category", "brand"))
    texts = sorted({item_text(*each) for each in zip(*columns, strict=True)})
    encoder = find_encoder(settings)
    card = ModelCard(
        kind="bootstrap",
        purchase_scorer="none",
        item_scorer="popularity",
        intent_missing_reason=reason,
        horizon_hours=settings.horizon_hours,
        window_events=settings.window_events,
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        data_digests={},
        seed=settings.seed,
    )
    with tempfile.TemporaryDirectory() as temporary:
        save_model(Path(temporary), card, fit_lexical(texts, seed=settings.seed))
        digest = parts.publish_part(lake.path(""), "model", Path(temporary))
    return load_model(lake.path(""), digest, settings)
