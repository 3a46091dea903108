-- How many of these shoppers a newer promotion has told, and the newest such promotion.
SELECT
    count(*) AS refused,
    max(profile.promotion_number) AS newest
FROM profiles.user_profile AS profile
WHERE
    profile.shop = :shop AND profile.user_id = any(cast(:user_ids AS text[]))
    AND profile.promotion_number > cast(:promotion_number AS bigint);
