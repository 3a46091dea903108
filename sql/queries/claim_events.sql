-- Take waiting events that no other scorer has taken, in order of arrival: of the shoppers of one part out of several.
-- They are gone once the transaction commits, and wait again if it does not.
-- Locks: the rows, until the transaction ends; nobody waits for them.
-- The part is asked for as a range: of an equality Postgres expects one row in 200, and would sort a whole backlog.
WITH claimed AS (
    DELETE FROM inbox.event AS taken
    WHERE
        taken.shop = :shop
        AND taken.seq = any(array(
            SELECT event.seq
            FROM inbox.event AS event
            WHERE
                event.shop = :shop AND event.seq > :after
                AND abs((hashtextextended(coalesce(event.user_id, event.anonymous_id, ''), 0) & 1048575) % :parts - :part) < 1
            ORDER BY event.seq
            LIMIT :most
            FOR UPDATE SKIP LOCKED
        ))
    RETURNING taken.*
)

SELECT * FROM claimed
ORDER BY seq;
