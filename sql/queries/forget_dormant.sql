-- Forget the states of shoppers, and the devices, that no window reaches back to any more; their profiles stay.
-- Locks: none that anybody waits for; what is locked is in use, and left for the next time.
WITH dormant AS (
    SELECT state.user_id
    FROM nearline.user_state AS state
    WHERE state.shop = :shop AND state.valid_at < cast(:told_from AS timestamptz)
    ORDER BY state.user_id
    FOR UPDATE SKIP LOCKED
),

states AS (
    DELETE FROM nearline.user_state AS state USING dormant
    WHERE state.shop = :shop AND state.user_id = dormant.user_id
),

unlinked AS (
    SELECT device.anonymous_id
    FROM nearline.device AS device
    WHERE
        device.shop = :shop
        AND coalesce(device.linked_at[cardinality(device.linked_at)] < cast(:linked_from AS timestamptz), TRUE)
    ORDER BY device.anonymous_id
    FOR UPDATE SKIP LOCKED
)

DELETE FROM nearline.device AS device USING unlinked
WHERE device.shop = :shop AND device.anonymous_id = unlinked.anonymous_id;
