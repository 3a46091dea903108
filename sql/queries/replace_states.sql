-- Replace states that this transaction has locked.
UPDATE nearline.user_state AS known
SET valid_at = given.valid_at, newest_received_on = given.newest_received_on, events = given.events
FROM unnest(
    cast(:user_id AS text[]),
    cast(:valid_at AS timestamptz[]),
    cast(:newest_received_on AS date[]),
    cast(:events AS bytea[])
) AS given (user_id, valid_at, newest_received_on, events)
WHERE known.shop = :shop AND known.user_id = given.user_id;
