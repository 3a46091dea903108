"""A small shop as tables: items and sequence rows in the platform's schema, for tests of model, index and scoring."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from intent_platform import db
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake
from intent_platform.settings import Settings

UTC_US = pa.timestamp("us", "UTC")

SEQUENCE = pa.schema(
    [
        ("user_id", pa.string()),
        ("names_user", pa.bool_()),
        ("anonymous_id", pa.string()),
        ("event_id", pa.string()),
        ("event_type", pa.string()),
        ("occurred_at", UTC_US),
        ("received_at", UTC_US),
        ("session_started_at", UTC_US),
        ("item_id", pa.string()),
        ("query_text", pa.string()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("currency", pa.string()),
        ("quantity", pa.int32()),
        ("rating", pa.float32()),
        ("order_id", pa.string()),
        ("session_id", pa.string()),
        ("device", pa.string()),
        ("market", pa.string()),
    ]
)

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)

CATALOGUE = {
    "shoes.running": [
        "red running shoes",
        "blue running shoes",
        "trail running shoes",
        "新款运动鞋 跑步",
        "kids sports shoes",
    ],
    "electronics.audio": ["wireless headphones", "bluetooth speaker", "studio headphones black", "无线耳机"],
    "home.kitchen": ["steel frying pan", "coffee grinder", "ceramic knife", "electric kettle 1.7 l"],
}


def catalogue() -> pa.Table:
    """Items i00, i01, … in the order of CATALOGUE."""
    titles = [(category, title) for category, names in CATALOGUE.items() for title in names]
    count = len(titles)
    return pa.table(
        {
            "item_id": [f"i{number:02}" for number in range(count)],
            "title": [title for _, title in titles],
            "description": pa.nulls(count, pa.string()),
            "category": [category for category, _ in titles],
            "brand": ["acme", "globex"] * (count // 2) + ["acme"] * (count % 2),
            "price": [10.0 + number for number in range(count)],
            "currency": ["EUR"] * count,
            "is_available": [True] * count,
            "updated_at": pa.array([NOON] * count, UTC_US),
            "is_stub": [False] * count,
        }
    )


def history(*events: tuple, user_id: str = "u1_a", at: datetime = NOON) -> pa.Table:
    """Rows of one user: (hours before `at`, event_type, item number or query or None[, more columns])."""
    items = catalogue().to_pylist()
    rows = []
    for number, (hours, event_type, what, *more) in enumerate(sorted(events, key=lambda event: -event[0])):
        moment = at - timedelta(hours=hours)
        item = items[what] if isinstance(what, int) else {}
        rows.append(
            {
                "user_id": user_id,
                "event_id": f"{user_id}-{number:04}",
                "event_type": event_type,
                "occurred_at": moment,
                "received_at": moment,
                "session_started_at": moment,
                "item_id": item.get("item_id"),
                "query_text": what if isinstance(what, str) else None,
                "category": item.get("category"),
                "price": item.get("price"),
                "currency": item.get("currency"),
                "quantity": 1 if event_type == "purchase" else None,
                "order_id": f"o{number}" if event_type == "purchase" else None,
                **(more[0] if more else {}),
            }
        )
    return pa.Table.from_pylist(rows, schema=SEQUENCE)


def publish(settings: Settings, *, items: pa.Table | None = None, days: dict[date, pa.Table] | None = None) -> None:
    """Put a catalogue and clean days into the lake."""
    lake = Lake(settings.lake_root, settings.shop)
    changes = {("items", "all"): [lake.write("items", "all", items if items is not None else catalogue())]}
    for day, rows in (days or {}).items():
        changes["clean", f"day={day}"] = [lake.write("clean", f"day={day}", rows)]
    with db.connect(settings) as connection:
        db.exclusive(connection, "lake", settings.shop)
        lake.publish(changes, based_on=lake.snapshot())


def many_histories(users: int, *, seed: int = 3, events_each: int = 20) -> pa.Table:
    """Random rows of many users, fast."""
    chance = np.random.default_rng(seed)
    items = catalogue()
    count = users * events_each
    number = chance.integers(0, items.num_rows, count)
    ago = np.sort(chance.uniform(0, 20 * 86_400, (users, events_each)))[:, ::-1].ravel()
    moment = pa.array(int(NOON.timestamp() * 1e6) - (ago * 1e6).astype(np.int64)).cast(UTC_US)
    kinds = chance.choice(["view", "add_to_cart", "purchase"], count, p=[0.85, 0.12, 0.03])
    names = [f"u1_{user:08}" for user in range(users)]
    columns = {
        "user_id": pa.array(names).take(pa.array(np.repeat(np.arange(users), events_each))),
        "event_id": pa.array([f"e{each:09}" for each in range(count)]),
        "event_type": pa.array(kinds.tolist()),
        "occurred_at": moment,
        "received_at": moment,
        "session_started_at": moment,
        **{
            name: items[name].combine_chunks().take(pa.array(number))
            for name in ("item_id", "category", "brand", "price", "currency")
        },
    }
    return pa.table(
        {field.name: columns.get(field.name, pa.nulls(count, field.type)) for field in SEQUENCE}, schema=SEQUENCE
    )


@contextmanager
def shop_of_its_own(**changes: Any) -> Iterator[Settings]:
    """Settings of an empty shop with keys and a Postgres of its own, for scripts; its folder is home's parent."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the embedded Postgres may run as another account
        settings = Settings(home=folder / "home", postgres_home=str(folder / "postgres"), **changes)
        create_missing_keys(settings)
        with db.serve(settings) as served:
            db.migrate(served)
            yield served
