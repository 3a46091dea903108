-- The events of a received day that a replay brought in, and whether inbox.accepted still has them.
SELECT
    replayed.seq,
    accepted.seq IS NOT NULL AS is_kept
FROM inbox.replayed AS replayed
LEFT JOIN inbox.accepted AS accepted
    ON
        replayed.shop = accepted.shop AND replayed.received_on = accepted.received_on AND replayed.seq = accepted.seq
WHERE replayed.shop = :shop AND replayed.received_on = :received_on AND replayed.outcome = 'accepted';
