-- Add staged links to what is known of each device.
-- Reads: staged_link, filled by COPY earlier in the same transaction. Locks: row locks in order of device.
INSERT INTO nearline.device AS known (shop, anonymous_id, linked_at, user_id)
SELECT
    staged.shop,
    staged.anonymous_id,
    array_agg(staged.linked_at ORDER BY staged.linked_at, staged.user_id),
    array_agg(staged.user_id ORDER BY staged.linked_at, staged.user_id)
FROM staged_link AS staged
GROUP BY staged.shop, staged.anonymous_id
ORDER BY staged.anonymous_id
ON CONFLICT (shop, anonymous_id) DO UPDATE SET (linked_at, user_id) = (
    SELECT
        array_agg(link.linked_at ORDER BY link.linked_at, link.user_id),
        array_agg(link.user_id ORDER BY link.linked_at, link.user_id)
    FROM (
        SELECT * FROM unnest(known.linked_at, known.user_id) AS old (linked_at, user_id)
        UNION
        SELECT * FROM unnest(excluded.linked_at, excluded.user_id) AS new (linked_at, user_id)
    ) AS link
);
