-- Read the states of some shoppers, as they are at the moment: no locks.
SELECT
    state.user_id,
    state.valid_at,
    state.events
FROM nearline.user_state AS state
WHERE state.shop = :shop AND state.user_id = any(cast(:user_ids AS text[]));
