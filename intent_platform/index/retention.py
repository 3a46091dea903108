"""How long releases stay on disk: the newest few that served, so that a rollback always has somewhere to go."""

from datetime import datetime

from intent_platform import db
from intent_platform.lake import Lake
from intent_platform.log import get_logger
from intent_platform.model import parts
from intent_platform.settings import Settings

log = get_logger(__name__)


def remove_old_releases(settings: Settings, *, now: datetime) -> int:
    """Remove the files of all but the newest keep_releases that served; returns how many folders and manifests went.

    The registry says so first, so nothing promotes what is about to go; a removal that was killed is finished later.
    """
    lake = Lake(settings.lake_root, settings.shop)
    with db.connect(settings) as connection:
        db.exclusive(connection, "promotion", settings.shop)
        db.query(connection, "retire_releases", shop=settings.shop, keep=settings.keep_releases, removed_at=now)
    with db.connect(settings) as connection, lake.guarded():
        db.exclusive(connection, "promotion", settings.shop)
        found = db.query(connection, "removed_parts", shop=settings.shop)
        removed = sum(_remove(lake, row["kind"], row["name"], settings) for row in found)
    if removed:
        log.info("releases_removed", shop=settings.shop, files=removed, kept=settings.keep_releases)
    return removed


def _remove(lake: Lake, kind: str, name: str, settings: Settings) -> bool:
    if kind == "release":
        return parts.remove_small_file(lake.path(f"release/{name}.json"))
    return parts.remove_part(lake.path(""), kind, name, settings.home)
