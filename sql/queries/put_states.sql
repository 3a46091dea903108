-- Put states made from the lake; return the users whose state was not ahead of it,
-- be it by events from the inbox or by a later day.
-- Locks: row locks in user_id order.
INSERT INTO nearline.user_state AS known (shop, user_id, valid_at, newest_received_on, events)
SELECT
    :shop,
    given.user_id,
    given.valid_at,
    given.newest_received_on,
    given.events
FROM unnest(
    cast(:user_id AS text[]),
    cast(:valid_at AS timestamptz[]),
    cast(:newest_received_on AS date[]),
    cast(:events AS bytea[])
) AS given (user_id, valid_at, newest_received_on, events)
ORDER BY given.user_id
ON CONFLICT (shop, user_id) DO UPDATE SET
    valid_at = excluded.valid_at, newest_received_on = excluded.newest_received_on, events = excluded.events
WHERE (known.newest_received_on IS NULL OR known.newest_received_on = any(cast(:known_days AS date[])))
    AND coalesce(known.valid_at <= excluded.valid_at, TRUE)
RETURNING user_id;
