-- Forget shoppers of whom nothing is known any more: their events moved to the user that their device was linked to.
-- Locks: their states are locked already; their profiles, before those that are moved. A refresh that writes both at
-- that moment may meet it crosswise: Postgres ends one of the two, which is then run again.
WITH states AS (
    DELETE FROM nearline.user_state AS state
    WHERE state.shop = :shop AND state.user_id = any(cast(:user_ids AS text[]))
    RETURNING state.user_id, state.events
)

DELETE FROM profiles.user_profile
WHERE
    shop = :shop
    -- Where nothing was remembered, nothing moved: a shopper who was away for long keeps the last profile.
    AND user_id IN (SELECT states.user_id FROM states WHERE states.events IS NOT NULL);
