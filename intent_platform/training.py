"""From labelled days to the release that serves: examples → train → evaluate → gate → index → promotion."""

from dataclasses import dataclass
from datetime import datetime

from intent_platform.errors import NotEnoughData
from intent_platform.index.item_index import load_index
from intent_platform.index.registry import (
    current_promotion,
    current_release,
    ensure_release,
    promote,
    publish_index,
    utc_now,
)
from intent_platform.lake import Lake
from intent_platform.settings import Settings

__all__ = ["current_promotion", "current_release", "ensure_release", "promote", "rebuild_index"]


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What rebuild_index did."""

    release_id: str
    promotion_number: int
    items: int
    recall_at_20: float
    is_new: bool  # False: the same items gave the same index, which serves already


def rebuild_index(settings: Settings, *, now: datetime | None = None) -> IndexReport:
    """Index today's catalogue with the current model and promote the result; new items live by their text."""
    now = now or utc_now()
    found = current_release(settings)
    if found is None:
        raise NotEnoughData(
            "No release serves yet, so there is no model to index with: run `intent day` or `intent train`."
        )
    release, before = found
    manifest = publish_index(settings, release.model, None, now=now)
    promotion = promote(settings, manifest.release_id, reason="New item index", decided_by="rebuild_index", clock=now)
    index = load_index(Lake(settings.lake_root, settings.shop).path(""), manifest.index, settings.home)
    return IndexReport(
        release_id=manifest.release_id,
        promotion_number=promotion.promotion_number,
        items=len(index),
        recall_at_20=index.passport.recall_at_20,
        is_new=promotion.promotion_number != before.promotion_number,
    )
