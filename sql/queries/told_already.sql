-- As of which moment some shoppers' profiles were told, and by which promotion.
SELECT
    profile.user_id,
    profile.valid_at,
    profile.promotion_number
FROM profiles.user_profile AS profile
WHERE profile.shop = :shop AND profile.user_id = any(cast(:user_ids AS text[]));
