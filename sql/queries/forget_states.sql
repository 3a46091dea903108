-- Forget shoppers of whom nothing is known any more: their events moved to the user that their device was linked to.
-- Locks: their states are locked already; their profiles, before those that are moved. A refresh that writes both at
-- that moment may meet it crosswise: Postgres ends one of the two, which is then run again.
WITH states AS (
    DELETE FROM nearline.user_state WHERE shop = :shop AND user_id = any(cast(:user_ids AS text[]))
)

DELETE FROM profiles.user_profile WHERE shop = :shop AND user_id = any(cast(:user_ids AS text[]));
