-- Move profiles forward, append to the history what it does not say yet; return the users whose profile changed, each
-- with the digest found under its lock: it tells which interests and recommendations must be written too.
-- Locks: row locks only, in user_id order, so two writers do not deadlock.
-- A profile moves forward only, by (input_watermark, promotion_number): a late run never overwrites what is fresher,
-- and equal content is not written again, so a rerun changes no row. The history also takes a late run of an earlier
-- day, though user_profile is further on; of nearline moves it keeps the first of each user and hour.
WITH given AS MATERIALIZED (
    SELECT
        cast(:shop AS text) AS shop,
        given.user_id,
        given.last_event_at,
        given.last_event_type,
        given.events_1d,
        given.events_7d,
        given.events_30d,
        given.views_7d,
        given.searches_7d,
        given.add_to_carts_7d,
        given.purchases_30d,
        given.spent_30d,
        given.spent_currency,
        given.purchase_intent,
        given.intent_missing_reason,
        given.intent_band,
        cast(:horizon_hours AS integer) AS horizon_hours,
        given.top_categories,
        given.price_low,
        given.price_high,
        given.price_currency,
        given.recommended_items,
        given.valid_at,
        given.expires_at,
        cast(:scored_at AS timestamptz) AS scored_at,
        cast(:source AS text) AS source,
        cast(:release_id AS text) AS release_id,
        cast(:promotion_number AS bigint) AS promotion_number,
        given.valid_at AS input_watermark,
        given.content_digest
    FROM unnest(
        cast(:user_id AS text[]),
        cast(:last_event_at AS timestamptz[]),
        cast(:last_event_type AS text[]),
        cast(:events_1d AS integer[]),
        cast(:events_7d AS integer[]),
        cast(:events_30d AS integer[]),
        cast(:views_7d AS integer[]),
        cast(:searches_7d AS integer[]),
        cast(:add_to_carts_7d AS integer[]),
        cast(:purchases_30d AS integer[]),
        cast(:spent_30d AS double precision[]),
        cast(:spent_currency AS text[]),
        cast(:purchase_intent AS double precision[]),
        cast(:intent_missing_reason AS text[]),
        cast(:intent_band AS text[]),
        cast(:top_categories AS jsonb[]),
        cast(:price_low AS double precision[]),
        cast(:price_high AS double precision[]),
        cast(:price_currency AS text[]),
        cast(:recommended_items AS jsonb[]),
        cast(:valid_at AS timestamptz[]),
        cast(:expires_at AS timestamptz[]),
        cast(:content_digest AS text[])
    ) AS given (
        user_id, last_event_at, last_event_type, events_1d, events_7d, events_30d, views_7d, searches_7d,
        add_to_carts_7d, purchases_30d, spent_30d, spent_currency, purchase_intent, intent_missing_reason,
        intent_band, top_categories, price_low, price_high, price_currency, recommended_items, valid_at,
        expires_at, content_digest
    )
),

appended AS (
    INSERT INTO profiles.user_profile_history (
        shop, user_id, as_of, purchase_intent, intent_missing_reason, intent_band, last_event_at, events_7d,
        add_to_carts_7d, purchases_30d, spent_30d, spent_currency, top_categories, recommended_items, source,
        release_id, promotion_number, content_digest
    )
    SELECT
        given.shop,
        given.user_id,
        given.valid_at,
        given.purchase_intent,
        given.intent_missing_reason,
        given.intent_band,
        given.last_event_at,
        given.events_7d,
        given.add_to_carts_7d,
        given.purchases_30d,
        given.spent_30d,
        given.spent_currency,
        given.top_categories,
        given.recommended_items,
        given.source,
        given.release_id,
        given.promotion_number,
        split_part(given.content_digest, '-', 1)
    FROM given
    LEFT JOIN LATERAL (
        SELECT
            history.content_digest,
            history.promotion_number,
            history.source,
            history.as_of
        FROM profiles.user_profile_history AS history
        WHERE history.shop = given.shop AND history.user_id = given.user_id AND history.as_of <= given.valid_at
        ORDER BY history.as_of DESC, history.recorded_at DESC
        LIMIT 1
    ) AS newest ON TRUE
    WHERE
        newest.content_digest IS DISTINCT FROM split_part(given.content_digest, '-', 1)
        AND coalesce(newest.promotion_number <= given.promotion_number, TRUE)
        AND NOT coalesce(
            given.source = 'nearline' AND newest.source = 'nearline'
            AND date_trunc('hour', newest.as_of) = date_trunc('hour', given.valid_at),
            FALSE
        )
    ORDER BY given.user_id
)

INSERT INTO profiles.user_profile AS known
SELECT * FROM given
ORDER BY user_id
ON CONFLICT (shop, user_id) DO UPDATE SET
    last_event_at = excluded.last_event_at,
    last_event_type = excluded.last_event_type,
    events_1d = excluded.events_1d,
    events_7d = excluded.events_7d,
    events_30d = excluded.events_30d,
    views_7d = excluded.views_7d,
    searches_7d = excluded.searches_7d,
    add_to_carts_7d = excluded.add_to_carts_7d,
    purchases_30d = excluded.purchases_30d,
    spent_30d = excluded.spent_30d,
    spent_currency = excluded.spent_currency,
    purchase_intent = excluded.purchase_intent,
    intent_missing_reason = excluded.intent_missing_reason,
    intent_band = excluded.intent_band,
    horizon_hours = excluded.horizon_hours,
    top_categories = excluded.top_categories,
    price_low = excluded.price_low,
    price_high = excluded.price_high,
    price_currency = excluded.price_currency,
    recommended_items = excluded.recommended_items,
    valid_at = excluded.valid_at,
    expires_at = excluded.expires_at,
    scored_at = excluded.scored_at,
    source = excluded.source,
    release_id = excluded.release_id,
    promotion_number = excluded.promotion_number,
    input_watermark = excluded.input_watermark,
    content_digest = excluded.content_digest
WHERE
    (excluded.input_watermark, excluded.promotion_number) >= (known.input_watermark, known.promotion_number)
    AND (excluded.content_digest, excluded.valid_at, excluded.release_id, excluded.promotion_number)
    IS DISTINCT FROM (known.content_digest, known.valid_at, known.release_id, known.promotion_number)
RETURNING known.user_id, old.content_digest AS found_digest;
