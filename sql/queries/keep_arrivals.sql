-- Of accepted events: note the ids, keep each first arrival where validate_events reads it, and write down the others as
-- duplicates; return the seq of the first arrivals.
-- Locks: the new rows of inbox.seen_event, in order of id, before any device or shopper; waits for another scorer that
-- has the same id.
WITH given AS MATERIALIZED (
    SELECT
        cast(:shop AS text) AS shop,
        given.*
    FROM unnest(
        cast(:received_on AS date[]),
        cast(:seq AS bigint[]),
        cast(:event_id AS text[]),
        cast(:event_type AS text[]),
        cast(:occurred_at AS timestamptz[]),
        cast(:user_id AS text[]),
        cast(:anonymous_id AS text[]),
        cast(:session_id AS text[]),
        cast(:item_id AS text[]),
        cast(:query_text AS text[]),
        cast(:category AS text[]),
        cast(:brand AS text[]),
        cast(:price AS double precision[]),
        cast(:currency AS text[]),
        cast(:quantity AS integer[]),
        cast(:rating AS real[]),
        cast(:order_id AS text[]),
        cast(:device AS text[]),
        cast(:market AS text[]),
        cast(:day AS date[])
    ) AS given (
        received_on, seq, event_id, event_type, occurred_at, user_id, anonymous_id, session_id, item_id, query_text,
        category, brand, price, currency, quantity, rating, order_id, device, market, day
    )
),

seen AS (
    INSERT INTO inbox.seen_event (shop, event_id, received_on)
    SELECT
        given.shop,
        given.event_id,
        min(given.received_on) AS received_on
    FROM given
    GROUP BY given.shop, given.event_id
    ORDER BY given.event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
),

first_arrival AS MATERIALIZED (
    SELECT min(given.seq) AS seq
    FROM given
    INNER JOIN seen ON given.event_id = seen.event_id
    GROUP BY given.event_id
),

repeated AS (
    INSERT INTO inbox.duplicate (shop, received_on, seq, event_id)
    SELECT
        given.shop,
        given.received_on,
        given.seq,
        given.event_id
    FROM given
    WHERE given.seq NOT IN (SELECT first_arrival.seq FROM first_arrival)
),

kept AS (
    INSERT INTO inbox.accepted (
        shop, received_on, seq, event_id, event_type, occurred_at, user_id, anonymous_id, session_id, item_id,
        query_text, category, brand, price, currency, quantity, rating, order_id, device, market, day
    )
    SELECT given.*
    FROM given
    WHERE given.seq IN (SELECT first_arrival.seq FROM first_arrival)
)

SELECT first_arrival.seq
FROM first_arrival;
