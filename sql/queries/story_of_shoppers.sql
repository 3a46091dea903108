-- The shoppers most likely to buy; while intent is unknown, those who carted most.
-- Reads:  profiles.user_profile.
SELECT
    user_id, purchase_intent, intent_missing_reason, intent_band, last_event_type, last_event_at, events_7d,
    add_to_carts_7d, purchases_30d, top_categories
FROM profiles.user_profile
WHERE shop = :shop
ORDER BY purchase_intent DESC NULLS LAST, add_to_carts_7d DESC, events_7d DESC, user_id ASC
LIMIT :shoppers;
