-- Rejected events of a received day, sealed, in order of arrival.
SELECT
    rejected.seq,
    rejected.broken_rule,
    rejected.sealed_row
FROM inbox.rejected AS rejected
WHERE rejected.shop = :shop AND rejected.received_on = :received_on
ORDER BY rejected.seq;
