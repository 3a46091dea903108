-- How many accepted events each received day has.
SELECT
    accepted.received_on,
    count(*) AS events
FROM inbox.accepted AS accepted
WHERE accepted.shop = :shop
GROUP BY accepted.received_on;
