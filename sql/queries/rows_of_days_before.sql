-- Accepted rows of the received days before one, for comparing volumes.
SELECT
    received_on,
    sum(accepted)::bigint AS rows
FROM quality.file_account
WHERE shop = :shop AND status = 'published' AND received_on < :received_on AND received_on >= :earliest
GROUP BY received_on;
