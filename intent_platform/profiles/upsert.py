"""COPY into temporary tables, one forward-only upsert, satellites, history: the same for batch and nearline.

The caller owns the transaction: commit publishes every row or none. Users are written in key order.
"""

from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from intent_platform import db


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """What a run writes beside the scores: who scored, with what, and how fresh its input was."""

    shop: str
    release_id: str
    promotion_number: int
    source: str  # batch or nearline
    scored_at: datetime  # logical time of the run
    input_watermark: datetime  # everything published up to here was taken into account
    horizon_hours: int


def upsert(
    connection: sa.Connection, profiles: pa.Table, interests: pa.Table, recommendations: pa.Table, stamp: Stamp
) -> int:
    """Write one set of users; return how many profile rows changed. Locks: those users' rows until commit."""
    db.query(connection, "stage_profiles")
    db.copy_rows(connection, "staged_profile", _profile_rows(profiles, recommendations, stamp))
    db.copy_rows(connection, "staged_interest", _with_shop(interests, stamp))
    db.copy_rows(connection, "staged_recommendation", _with_shop(recommendations, stamp))
    db.query(connection, "append_history")
    db.query(connection, "move_staged_profiles")
    changed = connection.execute(sa.text("SELECT count(*) FROM changed_user")).scalar_one()
    if changed:
        db.query(connection, "forget_satellites", shop=stamp.shop)
        db.query(connection, "move_staged_interests")
        db.query(connection, "move_staged_recommendations")
    return changed


def write_items(connection: sa.Connection, items: pa.Table, shop: str) -> None:
    """Bring profiles.item to the catalogue given; rows that are equal are not touched."""
    db.query(connection, "stage_items")
    db.copy_rows(connection, "staged_item", items.add_column(0, "shop", pa.repeat(shop, items.num_rows)))
    db.query(connection, "move_staged_items")


LISTS_AS_JSON = """
WITH recommended_list AS (
    SELECT user_id, to_json(list({'item_id': item_id, 'score': round(score, 6)} ORDER BY rank))::VARCHAR AS items
    FROM recommended GROUP BY user_id
), content AS (
    SELECT
        scored.* REPLACE (to_json(top_categories)::VARCHAR AS top_categories),
        coalesce(items, '[]') AS recommended_items
    FROM scored LEFT JOIN recommended_list USING (user_id)
)
SELECT * FROM content ORDER BY user_id
"""
CONTENT_DIGESTS = "SELECT md5(to_json(content)::VARCHAR) AS content_digest FROM content ORDER BY user_id"


def _profile_rows(profiles: pa.Table, recommendations: pa.Table, stamp: Stamp) -> pa.Table:
    """Rows for staged_profile, by user_id; lists become JSON, and content_digest covers all that people read."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("scored", profiles)
        connection.register("recommended", recommendations)
        rows = connection.sql(LISTS_AS_JSON).to_arrow_table()
        connection.register("content", rows.drop_columns(["valid_at"]))
        digests = connection.sql(CONTENT_DIGESTS).to_arrow_table()
    horizon = pa.scalar(timedelta(hours=stamp.horizon_hours), pa.duration("us"))
    rows = rows.append_column("expires_at", pc.add(rows["valid_at"], horizon))
    rows = rows.append_column("content_digest", digests["content_digest"])
    for each in fields(Stamp):
        rows = rows.append_column(each.name, pa.repeat(getattr(stamp, each.name), rows.num_rows))
    return rows


def _with_shop(rows: pa.Table, stamp: Stamp) -> pa.Table:
    return rows.add_column(0, "shop", pa.repeat(stamp.shop, rows.num_rows))
