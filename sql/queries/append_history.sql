-- Append what is now known about the staged users, unless the history says the same for that moment already.
-- Of nearline moves the first of each user and hour is kept. Reads: staged_profile. Also a late run of an earlier day
-- finds its place here, though user_profile is further on.
INSERT INTO profiles.user_profile_history (
    shop, user_id, as_of, purchase_intent, intent_missing_reason, intent_band, last_event_at, events_7d,
    add_to_carts_7d, purchases_30d, spent_30d, spent_currency, top_categories, recommended_items, source, release_id,
    promotion_number, content_digest
)
SELECT
    staged.shop,
    staged.user_id,
    staged.valid_at,
    staged.purchase_intent,
    staged.intent_missing_reason,
    staged.intent_band,
    staged.last_event_at,
    staged.events_7d,
    staged.add_to_carts_7d,
    staged.purchases_30d,
    staged.spent_30d,
    staged.spent_currency,
    staged.top_categories,
    staged.recommended_items,
    staged.source,
    staged.release_id,
    staged.promotion_number,
    staged.content_digest
FROM staged_profile AS staged
LEFT JOIN LATERAL (
    SELECT
        history.content_digest,
        history.promotion_number,
        history.source,
        history.as_of
    FROM profiles.user_profile_history AS history
    WHERE history.shop = staged.shop AND history.user_id = staged.user_id AND history.as_of <= staged.valid_at
    ORDER BY history.as_of DESC, history.recorded_at DESC
    LIMIT 1
) AS newest ON TRUE
WHERE
    newest.content_digest IS DISTINCT FROM staged.content_digest
    AND coalesce(newest.promotion_number <= staged.promotion_number, TRUE)
    AND NOT coalesce(
        staged.source = 'nearline' AND newest.source = 'nearline'
        AND date_trunc('hour', newest.as_of) = date_trunc('hour', staged.valid_at),
        FALSE
    )
ORDER BY staged.user_id;
