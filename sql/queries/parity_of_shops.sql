-- How many shoppers have another profile in one shop than in the other, and by how much their numbers differ at most.
-- Reads: profiles of both, within the caller's transaction.
WITH nearline AS (
    SELECT * FROM profiles.user_profile WHERE shop = :nearline
),

batch AS (
    SELECT * FROM profiles.user_profile WHERE shop = :batch
),

compared AS (
    SELECT
        greatest(
            abs(nearline.purchase_intent - batch.purchase_intent), abs(nearline.spent_30d - batch.spent_30d),
            abs(nearline.price_low - batch.price_low), abs(nearline.price_high - batch.price_high)
        ) AS difference,
        NOT EXISTS (
            SELECT
            nearline.last_event_at, nearline.last_event_type, nearline.events_1d, nearline.events_7d,
            nearline.events_30d, nearline.views_7d, nearline.searches_7d, nearline.add_to_carts_7d,
            nearline.purchases_30d, nearline.spent_currency, nearline.intent_missing_reason, nearline.price_currency,
            nearline.valid_at, jsonb_path_query_array(nearline.top_categories, '$[*].category'),
            jsonb_path_query_array(nearline.recommended_items, '$[*].item_id'), nearline.purchase_intent IS NULL
            INTERSECT
            SELECT
            batch.last_event_at, batch.last_event_type, batch.events_1d, batch.events_7d,
            batch.events_30d, batch.views_7d, batch.searches_7d, batch.add_to_carts_7d,
            batch.purchases_30d, batch.spent_currency, batch.intent_missing_reason, batch.price_currency,
            batch.valid_at, jsonb_path_query_array(batch.top_categories, '$[*].category'),
            jsonb_path_query_array(batch.recommended_items, '$[*].item_id'), batch.purchase_intent IS NULL
        ) AS is_other
    FROM nearline
    FULL JOIN batch ON nearline.user_id = batch.user_id
)

SELECT
    count(*) FILTER (WHERE is_other OR difference > :tolerance) AS users_differing,
    coalesce(max(difference), 0) AS largest_difference
FROM compared;
