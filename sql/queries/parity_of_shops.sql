-- How many shoppers have another profile in one shop than in the other, and by how much their numbers differ at most.
-- Reads: profiles of both, within the caller's transaction.
-- Sums of many products end in other last digits in a batch of another size, so of two items that score the same either
-- may come first: such shoppers are counted as reordered, not as differing. The first of those who differ are named.
WITH nearline AS (
    SELECT * FROM profiles.user_profile WHERE shop = :nearline
),

batch AS (
    SELECT * FROM profiles.user_profile WHERE shop = :batch
),

compared AS (
    SELECT
        coalesce(nearline.user_id, batch.user_id) AS user_id,
        nearline.recommended_items AS nearline_items,
        batch.recommended_items AS batch_items,
        coalesce(greatest(
            abs(nearline.purchase_intent - batch.purchase_intent), abs(nearline.spent_30d - batch.spent_30d),
            abs(nearline.price_low - batch.price_low), abs(nearline.price_high - batch.price_high)
        ), 0) AS difference,
        NOT EXISTS (
            SELECT
            nearline.last_event_at, nearline.last_event_type, nearline.events_1d, nearline.events_7d,
            nearline.events_30d, nearline.views_7d, nearline.searches_7d, nearline.add_to_carts_7d,
            nearline.purchases_30d, nearline.spent_currency, nearline.intent_missing_reason, nearline.price_currency,
            nearline.valid_at, jsonb_path_query_array(nearline.top_categories, '$[*].category'),
            jsonb_array_length(nearline.recommended_items), nearline.purchase_intent IS NULL
            INTERSECT
            SELECT
            batch.last_event_at, batch.last_event_type, batch.events_1d, batch.events_7d,
            batch.events_30d, batch.views_7d, batch.searches_7d, batch.add_to_carts_7d,
            batch.purchases_30d, batch.spent_currency, batch.intent_missing_reason, batch.price_currency,
            batch.valid_at, jsonb_path_query_array(batch.top_categories, '$[*].category'),
            jsonb_array_length(batch.recommended_items), batch.purchase_intent IS NULL
        ) AS is_other,
        (
            jsonb_path_query_array(nearline.recommended_items, '$[*].item_id')
            IS DISTINCT FROM jsonb_path_query_array(batch.recommended_items, '$[*].item_id')
        ) AS is_reordered
    FROM nearline
    FULL JOIN batch ON nearline.user_id = batch.user_id
),

judged AS (
    SELECT
        compared.user_id,
        compared.difference,
        compared.is_reordered,
        compared.is_other OR compared.difference > :tolerance
        OR EXISTS ( -- a place that scores otherwise
            SELECT 1
            FROM jsonb_array_elements(compared.nearline_items) WITH ORDINALITY AS own (item, place)
            INNER JOIN jsonb_array_elements(compared.batch_items) WITH ORDINALITY AS other (item, place)
                ON own.place = other.place
            WHERE abs((own.item ->> 'score')::float8 - (other.item ->> 'score')::float8) > :tolerance
        )
        OR compared.is_reordered AND EXISTS ( -- an item that does; one that fell off the end scores as the last there
            SELECT 1
            FROM jsonb_array_elements(compared.nearline_items) AS own (item)
            FULL JOIN jsonb_array_elements(compared.batch_items) AS other (item)
                ON own.item ->> 'item_id' = other.item ->> 'item_id'
            WHERE
                abs(
                    (coalesce(own.item, compared.nearline_items -> -1) ->> 'score')::float8
                    - (coalesce(other.item, compared.batch_items -> -1) ->> 'score')::float8
                ) > :tolerance
        ) AS is_differing
    FROM compared
)

SELECT
    count(*) FILTER (WHERE is_differing) AS users_differing,
    count(*) FILTER (WHERE is_reordered AND NOT is_differing) AS users_reordered,
    coalesce(max(difference), 0) AS largest_difference,
    coalesce((array_agg(user_id ORDER BY user_id) FILTER (WHERE is_differing))[1:5], '{}') AS differing
FROM judged;
