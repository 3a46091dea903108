-- Read the states of some shoppers, as they are at the moment, and until when their profiles are told: a refresh tells
-- everyone, but moves the states of those alone who have new events.
-- Locks: none. Sent after lock_states it sees what was committed before those locks were had.
SELECT
    state.user_id,
    greatest(state.valid_at, profile.valid_at) AS valid_at,
    state.events
FROM nearline.user_state AS state
LEFT JOIN profiles.user_profile AS profile ON state.shop = profile.shop AND state.user_id = profile.user_id
WHERE state.shop = :shop AND state.user_id = any(cast(:user_ids AS text[]));
