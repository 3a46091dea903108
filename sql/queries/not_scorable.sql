-- Of the newest events of a received day, at most so many, how many broke no rule and could not be scored.
WITH newest AS (
    (
        SELECT
            rejected.seq,
            rejected.broken_rule = :not_scorable AS is_not_scorable
        FROM inbox.rejected AS rejected
        WHERE rejected.shop = :shop AND rejected.received_on = :received_on
        ORDER BY rejected.seq DESC
        LIMIT :most
    )
    UNION ALL
    (
        SELECT
            accepted.seq,
            FALSE AS is_not_scorable
        FROM inbox.accepted AS accepted
        WHERE accepted.shop = :shop AND accepted.received_on = :received_on
        ORDER BY accepted.seq DESC
        LIMIT :most
    )
    ORDER BY seq DESC
    LIMIT :most
)

SELECT count(*) FILTER (WHERE newest.is_not_scorable) AS not_scorable
FROM newest;
