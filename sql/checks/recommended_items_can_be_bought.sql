-- Recommendations of the newest refresh name known items that could be bought then.
-- Must return no rows. A row names the item, with how many shoppers it is recommended to.
-- An item that changed after the profiles' valid_at may be sold out by now: the next refresh drops it.
WITH newest AS (
    SELECT shop, max(valid_at) AS valid_at FROM profiles.user_profile GROUP BY shop
)

SELECT recommended.shop, recommended.item_id, item.is_available, count(*) AS shoppers
FROM profiles.user_recommendation AS recommended
INNER JOIN profiles.user_profile AS profile
    ON recommended.shop = profile.shop AND recommended.user_id = profile.user_id
INNER JOIN newest ON profile.shop = newest.shop AND profile.valid_at = newest.valid_at
LEFT JOIN profiles.item AS item ON recommended.shop = item.shop AND recommended.item_id = item.item_id
WHERE item.item_id IS NULL OR (NOT item.is_available AND item.updated_at <= profile.valid_at)
GROUP BY recommended.shop, recommended.item_id, item.is_available
ORDER BY shoppers DESC, recommended.item_id ASC;
