-- Note ids of events; return those that were never seen before.
-- Locks: the new rows, in order of id, before any device or shopper; waits for another scorer that has the same id.
INSERT INTO inbox.seen_event (shop, event_id, received_on)
SELECT
    :shop,
    given.event_id,
    :received_on
FROM unnest(cast(:event_ids AS text[])) AS given (event_id)
ORDER BY given.event_id
ON CONFLICT DO NOTHING
RETURNING event_id;
