-- The moment as of which some shoppers' profiles were told.
SELECT
    profile.user_id,
    profile.valid_at
FROM profiles.user_profile AS profile
WHERE profile.shop = :shop AND profile.user_id = any(cast(:user_ids AS text[]));
