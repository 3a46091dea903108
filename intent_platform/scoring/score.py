"""One call from a release and shoppers' histories to the rows of profiles.user_profile and its satellites."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from intent_platform.index.release import Release
from intent_platform.model.rows import Rows, micros
from intent_platform.scoring.behaviour import count_columns, money_columns, price_columns
from intent_platform.scoring.interests import Interests, find_interests
from intent_platform.scoring.recommend import recommend
from intent_platform.settings import Settings

HOT = 0.5
WARM = 0.2

_UTC = pa.timestamp("us", "UTC")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """profiles: a row per user; interests and recommendations: a row per (user, rank). All in user_id order."""

    profiles: pa.Table
    interests: pa.Table
    recommendations: pa.Table


def score(release: Release, histories: pa.Table, *, valid_at: datetime, settings: Settings) -> Scores:
    """Score every user with an event up to valid_at; later rows are not looked at.

    histories: sequence rows in order of (user_id, occurred_at, event_id), history_days back from valid_at.
    """
    rows = Rows.of(histories, until=valid_at)
    return score_users(release, rows, np.full(rows.users, micros(valid_at)), settings)


def score_users(release: Release, rows: Rows, valid_at: np.ndarray, settings: Settings) -> Scores:
    """Score every user at a moment of their own, valid_at: int64 µs (users,), not before their newest row."""
    newest = rows.starts[1:] - 1
    item = np.append(release.index.positions(rows.item[1]), -1)[rows.item[0]]
    hidden = release.model.hidden(rows, newest, item, release.known_items) if rows.users else None
    intent = release.model.intent(rows, newest, valid_at, hidden) if rows.users else np.zeros(0)
    age = valid_at[rows.user] - rows.at
    interests = find_interests(rows, release.index, item, age)
    profiles = {
        "user_id": rows.user_ids,
        "last_event_at": pa.array(rows.at[newest], pa.int64()).view(_UTC),
        "last_event_type": rows.table["event_type"].take(pa.array(newest)),
        **count_columns(rows, age),
        **money_columns(rows, age),
        **_intent_columns(release, intent, rows.users),
        "top_categories": interests.top_categories(rows.users),
        **price_columns(rows, age),
        "valid_at": pa.array(valid_at, pa.int64()).view(_UTC),
    }
    return Scores(
        profiles=pa.table(profiles),
        interests=_interest_table(rows, interests),
        recommendations=recommend(release, rows, item, hidden, age, interests, settings),
    )


def _intent_columns(release: Release, intent: np.ndarray | None, users: int) -> dict[str, pa.Array]:
    if intent is None:
        return {
            "purchase_intent": pa.nulls(users, pa.float64()),
            "intent_missing_reason": pa.array([release.model.card.intent_missing_reason] * users, pa.string()),
            "intent_band": pa.array(["unknown"] * users, pa.string()),
        }
    band = np.where(intent >= HOT, "hot", np.where(intent >= WARM, "warm", "cool"))
    return {
        "purchase_intent": pa.array(intent, pa.float64()),
        "intent_missing_reason": pa.nulls(users, pa.string()),
        "intent_band": pa.array(band.tolist(), pa.string()),
    }


def _interest_table(rows: Rows, interests: Interests) -> pa.Table:
    return pa.table(
        {
            "user_id": rows.user_ids.take(pa.array(interests.user)),
            "rank": pa.array(interests.rank, pa.int16()),
            "category": interests.named(interests.category),
            "weight": pa.array(interests.weight, pa.float64()),
            "last_seen_at": pa.array(interests.last_seen_at, pa.int64()).view(_UTC),
        }
    )
