-- Every profile was scored by a registered release, under a promotion of that release.
-- Must return no rows. A row names the release and promotion, with how many profiles name them.
SELECT profile.shop, profile.release_id, profile.promotion_number, count(*) AS profiles
FROM profiles.user_profile AS profile
LEFT JOIN registry.promotion AS promotion
    ON profile.shop = promotion.shop AND profile.promotion_number = promotion.promotion_number
    AND profile.release_id = promotion.release_id
WHERE promotion.release_id IS NULL
GROUP BY profile.shop, profile.release_id, profile.promotion_number
ORDER BY profile.shop, profile.promotion_number;
