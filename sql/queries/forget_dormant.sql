-- Forget some of the states of shoppers, and of the devices, that no window reaches back to any more; their profiles
-- stay. Returns how many states and devices were forgotten.
-- Locks: the rows that go, until the transaction ends; what is locked is in use, and left for the next time.
WITH dormant AS (
    SELECT state.user_id
    FROM nearline.user_state AS state
    WHERE state.shop = :shop AND state.valid_at < cast(:told_from AS timestamptz)
    ORDER BY state.user_id
    LIMIT :most
    FOR UPDATE SKIP LOCKED
),

states AS (
    DELETE FROM nearline.user_state AS state USING dormant
    WHERE state.shop = :shop AND state.user_id = dormant.user_id
    RETURNING state.user_id
),

unneeded AS (
    SELECT device.anonymous_id
    FROM nearline.device AS device
    WHERE
        device.shop = :shop
        AND CASE
            WHEN device.linked_at = '{}' THEN NOT EXISTS (
                SELECT 1 FROM nearline.user_state AS own
                WHERE own.shop = device.shop AND own.user_id = device.anonymous_id
            )
            ELSE device.linked_at[cardinality(device.linked_at)] < cast(:linked_from AS timestamptz)
        END
    ORDER BY device.anonymous_id
    LIMIT :most
    FOR UPDATE SKIP LOCKED
),

devices AS (
    DELETE FROM nearline.device AS device USING unneeded
    WHERE device.shop = :shop AND device.anonymous_id = unneeded.anonymous_id
    RETURNING device.anonymous_id
)

SELECT (SELECT count(*) FROM states) + (SELECT count(*) FROM devices) AS forgotten;
