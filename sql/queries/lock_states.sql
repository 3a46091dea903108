-- Lock the states of some shoppers.
-- Locks: their rows, in user_id order, so two scorers do not deadlock.
SELECT state.user_id
FROM nearline.user_state AS state
WHERE state.shop = :shop AND state.user_id = any(cast(:user_ids AS text[]))
ORDER BY state.user_id
FOR NO KEY UPDATE;
