-- Lock and read the states of some shoppers.
-- Locks: their rows, in user_id order, so two scorers do not deadlock.
SELECT
    state.user_id,
    state.valid_at,
    state.events
FROM nearline.user_state AS state
WHERE state.shop = :shop AND state.user_id = any(cast(:user_ids AS text[]))
ORDER BY state.user_id
FOR NO KEY UPDATE;
