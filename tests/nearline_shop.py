"""A shop whose nearline door is open: settings, events put and drained, and what the tables say of them."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from model_shop import publish
from received import an_event, write_file

from intent_platform import daily, db
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.keys import create_missing_keys
from intent_platform.nearline import Scorer
from intent_platform.settings import Settings

TODAY = date(2026, 8, 21)
YESTERDAY = TODAY - timedelta(days=1)
EVENING = datetime(2026, 8, 21, 23, 30, tzinfo=UTC)


def a_shop(settings: Settings, folder: Path) -> Settings:
    """Settings of a shop with a bootstrap release, a catalogue, and one day of events that came by file."""
    settings = replace(settings, threads=1, max_rejected_ratio=0.5)
    create_missing_keys(settings)
    publish(settings)
    file = write_file(
        folder, "yesterday.csv", [item_event(number, occurred_at=at(number, YESTERDAY)) for number in range(5)]
    )
    daily.run_day(YESTERDAY, settings, path=str(file))
    return settings


def at(hour: int, day: date = TODAY, minute: int = 0) -> str:
    return f"{day}T{hour:02d}:{minute:02d}:00Z"


def item_event(number: int, **changes: str) -> dict[str, str]:
    return an_event(number, **({"event_id": f"y{number}", "item_id": f"i{number:02}", "user_id": "anna"} | changes))


def today_event(number: int, **changes: str) -> dict[str, str]:
    return item_event(number, **({"event_id": f"t{number}", "occurred_at": at(10, minute=number)} | changes))


def put(settings, *events: dict[str, str]) -> None:
    with db.connect(settings) as connection:
        db.query(connection, "put_events", events=json.dumps(events), shop=settings.shop)


def drain(settings, now: datetime = EVENING):
    return Scorer(settings=settings, clock=lambda: now).run(drain=True)


def rows_of(settings, statement: str, **parameters) -> list:
    with db.connect(settings) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), parameters)]


def user(settings, raw_id: str) -> str:
    return Pseudonymiser.of(settings).of_user(raw_id)


def profile(settings, raw_id: str, columns: str) -> tuple:
    found = rows_of(
        settings, f"SELECT {columns} FROM profiles.user_profile WHERE user_id = :user", user=user(settings, raw_id)
    )
    assert len(found) == 1
    return found[0]


def content(settings) -> list:
    columns = "user_id, valid_at, events_1d, events_7d, events_30d, last_event_type, top_categories, recommended_items"
    return rows_of(settings, f"SELECT {columns} FROM profiles.user_profile ORDER BY user_id")
