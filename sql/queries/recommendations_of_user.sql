-- One shopper's recommended items, with titles.
SELECT
    recommended.rank,
    recommended.item_id,
    coalesce(item.title, concat_ws(' ', item.brand, item.category), recommended.item_id) AS title,
    item.price,
    item.currency,
    recommended.score,
    recommended.origin,
    recommended.reason
FROM profiles.user_recommendation AS recommended
LEFT JOIN profiles.item AS item ON recommended.shop = item.shop AND recommended.item_id = item.item_id
WHERE recommended.shop = :shop AND recommended.user_id = :user_id
ORDER BY recommended.rank;
