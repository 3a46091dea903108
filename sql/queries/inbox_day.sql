-- How many events of a received day were accepted, and how many had come before.
SELECT
    (
        SELECT count(*) FROM inbox.duplicate AS repeated
        WHERE repeated.shop = :shop AND repeated.received_on = :received_on
    ) AS duplicate,
    count(*) AS accepted,
    coalesce(max(accepted.seq), 0) AS newest_seq
FROM inbox.accepted AS accepted
WHERE accepted.shop = :shop AND accepted.received_on = :received_on;
