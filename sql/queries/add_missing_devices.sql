-- Give every wanted device without a row an empty one, so that there is a row to lock.
-- Locks: the new rows, in order; waits for another scorer that is adding the same.
INSERT INTO nearline.device (shop, anonymous_id)
SELECT
    :shop,
    wanted.anonymous_id
FROM unnest(cast(:anonymous_ids AS text[])) AS wanted (anonymous_id)
ORDER BY wanted.anonymous_id
ON CONFLICT DO NOTHING;
