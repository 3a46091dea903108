"""Wait for a day's files without holding a worker: the task is put back into the queue between two looks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import fsspec
from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

if TYPE_CHECKING:
    from intent_platform.settings import Settings


class WaitForFiles(BaseSensorOperator):
    """Succeeds when `path` is there and not empty: a file, a folder that holds a file, or a pattern that finds one.

    `path` is local or an fsspec address (s3://…); {day} in it stands for the day. Empty: INTENT_EVENTS_PATH is used,
    and where that is empty too, a shop that has a scorer waits for an event that came through the inbox on that day.
    """

    template_fields: Sequence[str] = ("day", "path")

    def __init__(self, *, day: str, path: str = "", **kwargs: Any) -> None:
        super().__init__(mode="reschedule", **kwargs)
        self.day = day
        self.path = path

    def poke(self, context: Any) -> bool:  # noqa: ARG002 - Airflow's signature
        path = self._expected()
        is_there = _holds_a_file(path) if path else _came_through_inbox(self.day)
        verdict = "is there" if is_there else f"is not there yet; next look in {self.poke_interval} s"
        self.log.info("%s %s", path or "an event through the inbox", verdict)
        return is_there

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            raise AirflowFailException(
                f"{self.day}: no file came to {self._expected() or 'any path'} within {self.timeout / 3600:g} hours. "
                "Nothing was published for this day. Put the file there and clear this task, or give another path in "
                "the form."
            ) from error

    def _expected(self) -> str:
        """Empty where no file is to come."""
        from intent_platform.settings import Settings

        settings = Settings.from_env()
        path = self.path or settings.events_path
        if not path and not _has_inbox(settings):
            raise AirflowFailException(
                f"{self.day}: nothing says where the day's files are. Set INTENT_EVENTS_PATH (with {{day}} in it, for "
                "example /drop/events/{day}.csv), or give a path in the form."
            )
        return path.replace("{day}", self.day)


def _has_inbox(settings: "Settings") -> bool:
    from intent_platform import watching

    return watching.is_used(settings)


def _came_through_inbox(day: str) -> bool:
    from intent_platform import db
    from intent_platform.settings import Settings

    settings = Settings.from_env()
    with db.connect(settings) as connection:
        (row,) = db.query(connection, "inbox_day", shop=settings.shop, received_on=day)
    return row["accepted"] > 0


def _holds_a_file(path: str) -> bool:
    files, root = fsspec.core.url_to_fs(path, use_listings_cache=False)
    found = files.glob(root) if "*" in root else [root]
    return any(files.exists(each) and files.du(each) > 0 for each in found)
