-- An event that came through the inbox is accepted once, rejected once or noted as a repeat, and waits no more.
-- Must return no rows. A row says what is wrong, with how many events.
WITH wrong AS (
    SELECT
        'accepted twice' AS what,
        count(*) - count(DISTINCT accepted.shop || ' ' || accepted.event_id) AS events
    FROM inbox.accepted AS accepted
    UNION ALL
    SELECT
        'accepted, but not noted as seen' AS what,
        count(*) AS events
    FROM inbox.accepted AS accepted
    LEFT JOIN inbox.seen_event AS seen ON accepted.shop = seen.shop AND accepted.event_id = seen.event_id
    WHERE seen.event_id IS NULL
    UNION ALL
    SELECT
        'both accepted and rejected' AS what,
        count(*) AS events
    FROM inbox.accepted AS accepted
    INNER JOIN inbox.rejected AS rejected ON accepted.shop = rejected.shop AND accepted.seq = rejected.seq
    UNION ALL
    SELECT
        'replayed, but still rejected' AS what,
        count(*) AS events
    FROM inbox.replayed AS replayed
    INNER JOIN inbox.rejected AS rejected ON replayed.shop = rejected.shop AND replayed.seq = rejected.seq
    UNION ALL
    SELECT
        'still waiting, though accepted' AS what,
        count(*) AS events
    FROM inbox.accepted AS accepted
    INNER JOIN inbox.event AS event ON accepted.shop = event.shop AND accepted.seq = event.seq
)

SELECT
    what,
    events
FROM wrong
WHERE events > 0;
