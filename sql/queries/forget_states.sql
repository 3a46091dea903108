-- Forget shoppers of whom nothing is known any more: their events moved to the user that their device was linked to.
-- Locks: their states are locked already; their profiles, in no order, as nobody else writes them without the state.
WITH states AS (
    DELETE FROM nearline.user_state WHERE shop = :shop AND user_id = any(cast(:user_ids AS text[]))
)

DELETE FROM profiles.user_profile WHERE shop = :shop AND user_id = any(cast(:user_ids AS text[]));
