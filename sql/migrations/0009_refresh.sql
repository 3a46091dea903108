-- Room in each page, so that a row that changes can stay in it (HOT): a refresh and the scorer update satellites in place.
-- Holds for pages filled from now on; `VACUUM FULL` or pg_repack would make room in older ones.
ALTER TABLE profiles.user_interest SET (fillfactor = 70);
ALTER TABLE profiles.user_recommendation SET (fillfactor = 70);
