"""What the demo tells when all is done: rows from Postgres, and two searches."""

import json
from collections.abc import Iterator
from datetime import date

import sqlalchemy as sa

from intent_platform import db
from intent_platform.index.registry import current_release
from intent_platform.index.search import search
from intent_platform.settings import Settings

SHOPPERS = 3
RECOMMENDED = 3
HITS = 3
QUERIES = ("light running shoes", "新款运动鞋")
METRICS = ("roc_auc", "pr_auc", "log_loss", "recall_at_20")


def tell(settings: Settings, day: date) -> Iterator[str]:
    """The story's lines, `day` being the newest."""
    with db.connect(settings) as connection:
        yield from _intake(connection, settings)
        yield from _quality(connection, settings, day)
        yield from _model(connection, settings)
        yield from _shoppers(connection, settings)
    yield from _searches(settings)


def _intake(connection: sa.Connection, settings: Settings) -> Iterator[str]:
    row = db.query(connection, "story_of_intake", shop=settings.shop)[0]
    yield f"Every row is accounted for ({row['files']} files)"
    yield (
        f"  {row['rows_read']:,} rows read = {row['accepted']:,} accepted + {row['quarantined']:,} quarantined + "
        f"{row['duplicate']:,} duplicate"
    )
    yield (
        f"  {row['accepted']:,} accepted = {row['clean_rows']:,} clean events + "
        f"{row['duplicate_across_files']:,} that another file had brought already"
    )


def _quality(connection: sa.Connection, settings: Settings, day: date) -> Iterator[str]:
    row = db.query(connection, "story_of_quality", shop=settings.shop, day=day)[0]
    yield f"Quality of {day}"
    yield f"  in quarantine: {row['broken_rules'] or 'nothing'}"
    yield f"  {row['met']} of {row['expectations']} expectations met" + (
        f"; not: {row['unmet']}" if row["unmet"] else ""
    )


def _model(connection: sa.Connection, settings: Settings) -> Iterator[str]:
    serving = db.query(connection, "current_release", shop=settings.shop)[0]
    yield f"Release {serving['release_id']} serves (promotion {serving['promotion_number']}: {serving['reason']})"
    rows = db.query(connection, "evaluation_of_model", shop=settings.shop, model_digest=serving["model_digest"])
    figures = {(row["contender"], row["metric"]): row for row in rows if row["slice"] == "all"}
    if not figures:
        yield "  not evaluated: nothing was trained, popularity and text serve"
        return
    metrics = [metric for metric in METRICS if any(found == metric for _, found in figures)]
    yield "  " + f"{'':<22}" + "".join(f"{metric:>26}" for metric in metrics)
    for contender in dict.fromkeys(name for name, _ in figures):
        cells = (_figure(figures.get((contender, metric))) for metric in metrics)
        yield "  " + f"{contender:<22}" + "".join(f"{cell:>26}" for cell in cells)


def _figure(row: sa.RowMapping | None) -> str:
    if row is None:
        return ""
    interval = "" if row["low"] is None else f" ({row['low']:.3f} … {row['high']:.3f})"
    return f"{row['value']:.3f}{interval}"


def _shoppers(connection: sa.Connection, settings: Settings) -> Iterator[str]:
    yield f"The {SHOPPERS} hottest shoppers"
    for row in db.query(connection, "story_of_shoppers", shop=settings.shop, shoppers=SHOPPERS):
        intent = row["purchase_intent"]
        chance = (
            f"unknown ({row['intent_missing_reason']})" if intent is None else f"{intent:.1%} ({row['intent_band']})"
        )
        yield f"  {row['user_id']}: buys within {settings.horizon_hours} hours: {chance}"
        interests = (
            row["top_categories"] if isinstance(row["top_categories"], list) else json.loads(row["top_categories"])
        )
        yield (
            f"    because: last {row['last_event_type']} at {row['last_event_at']:%Y-%m-%d %H:%M}, "
            f"{row['events_7d']} events and {row['add_to_carts_7d']} carts in 7 days, "
            f"{row['purchases_30d']} purchases in 30; "
            f"likes {', '.join(each['category'] for each in interests[:2]) or 'nothing yet'}"
        )
        recommended = db.query(connection, "recommendations_of_user", shop=settings.shop, user_id=row["user_id"])
        for item in recommended[:RECOMMENDED]:
            yield f"    → {item['title']} · {_price(item['price'], item['currency'])} · {item['reason']}"


def _searches(settings: Settings) -> Iterator[str]:
    found = current_release(settings)
    assert found is not None
    for query in QUERIES:
        yield f"Search: {query}"
        for hit in search(found[0], query, HITS).hits:
            name = hit.title or f"item {hit.item_id} ({hit.category or 'no category'})"
            yield f"  {name} · {_price(hit.price, hit.currency)}"


def _price(price: float | None, currency: str | None) -> str:
    return "no price" if price is None else f"{price:.2f} {currency or ''}".rstrip()
