-- How many events of a received day broke which rule first.
SELECT
    rejected.broken_rule,
    count(*) AS rows
FROM inbox.rejected AS rejected
WHERE rejected.shop = :shop AND rejected.received_on = :received_on
GROUP BY rejected.broken_rule;
