-- One shopper's profile as people read it.
SELECT * FROM profiles.user_profile
WHERE shop = :shop AND user_id = :user_id;
