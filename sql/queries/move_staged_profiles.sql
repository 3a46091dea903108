-- Move staged profiles into user_profile and note in changed_user whose rows changed.
-- Reads:  staged_profile, filled by COPY earlier in the same transaction.
-- Locks:  row locks only, in user_id order, so two writers do not deadlock.
-- A profile moves forward only, by (input_watermark, promotion_number): a late run never overwrites what is fresher,
-- and equal content is not written again, so a rerun changes no row.
WITH moved AS (
    INSERT INTO profiles.user_profile AS known
    SELECT * FROM staged_profile
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
    RETURNING user_id
)

INSERT INTO changed_user SELECT user_id FROM moved;
