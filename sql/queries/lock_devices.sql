-- Lock and read the links of some devices.
-- Locks: their rows, in order, before any shopper's, so two scorers do not deadlock.
SELECT
    device.anonymous_id,
    device.linked_at,
    device.user_id
FROM nearline.device AS device
WHERE device.shop = :shop AND device.anonymous_id = any(cast(:anonymous_ids AS text[]))
ORDER BY device.anonymous_id
FOR NO KEY UPDATE;
