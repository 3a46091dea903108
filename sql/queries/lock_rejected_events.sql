-- Lock rejected events of a received day in order of arrival: at most so many after a seq.
-- Locks: the rows, until the transaction ends; waits for another replay that has them.
SELECT
    rejected.seq,
    rejected.broken_rule,
    rejected.sealed_row
FROM inbox.rejected AS rejected
WHERE rejected.shop = :shop AND rejected.received_on = :received_on AND rejected.seq > :after
ORDER BY rejected.seq
LIMIT :most
FOR UPDATE;
