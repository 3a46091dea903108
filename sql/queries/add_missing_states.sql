-- Give every wanted shopper without a state an empty one, so that there is a row to lock.
-- Locks: the new rows, in user_id order; waits for another scorer that is adding the same.
INSERT INTO nearline.user_state (shop, user_id)
SELECT
    :shop,
    wanted.user_id
FROM unnest(cast(:user_ids AS text[])) AS wanted (user_id)
ORDER BY wanted.user_id
ON CONFLICT DO NOTHING;
