-- An object or a list is no value of a field: inbox.put marks its event, and the others of the call go on.
-- Locks: inbox.event, exclusively, for a moment; where a producer holds it for long it gives up: run it again.

SET LOCAL lock_timeout = '5s';

ALTER TABLE inbox.event ADD COLUMN unreadable text;
COMMENT ON COLUMN inbox.event.unreadable IS 'Rule that inbox.put saw broken: row_torn where a field holds an object or a list; leave it out.';

CREATE OR REPLACE FUNCTION inbox.put(events jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    listed jsonb := CASE jsonb_typeof(events) WHEN 'array' THEN events ELSE jsonb_build_array(events) END;
    odd bigint;
    taken bigint;
BEGIN
    SELECT min(place) INTO odd FROM jsonb_array_elements(listed) WITH ORDINALITY AS each (event, place)
    WHERE jsonb_typeof(event) <> 'object' OR jsonb_typeof(event -> 'shop') IN ('object', 'array');
    IF odd IS NOT NULL THEN
        RAISE EXCEPTION 'inbox.put: element % of % is no object, or has one as its shop; nothing was taken', odd, jsonb_array_length(listed)
        USING HINT = 'Give one JSON object per event, or an array of them; fields as in inbox.event.';
    END IF;
    INSERT INTO inbox.event (
        shop, event_id, event_type, occurred_at, user_id, anonymous_id, session_id, item_id, query_text, category,
        brand, price, currency, quantity, rating, order_id, device, market, unreadable
    )
    SELECT
        coalesce(event ->> 'shop', 'main'), event ->> 'event_id', event ->> 'event_type', event ->> 'occurred_at',
        event ->> 'user_id', event ->> 'anonymous_id', event ->> 'session_id', event ->> 'item_id',
        event ->> 'query_text', event ->> 'category', event ->> 'brand', event ->> 'price', event ->> 'currency',
        event ->> 'quantity', event ->> 'rating', event ->> 'order_id', event ->> 'device', event ->> 'market',
        CASE WHEN EXISTS (
            SELECT 1 FROM jsonb_each(event) AS field (name, value)
            WHERE
                jsonb_typeof(value) IN ('object', 'array')
                AND name IN (
                    'event_id', 'event_type', 'occurred_at', 'user_id', 'anonymous_id', 'session_id', 'item_id',
                    'query_text', 'category', 'brand', 'price', 'currency', 'quantity', 'rating', 'order_id', 'device',
                    'market'
                )
        ) THEN 'row_torn' END
    FROM jsonb_array_elements(listed) AS each (event);
    GET DIAGNOSTICS taken = ROW_COUNT;
    RETURN taken;
END
$$;

-- So that producers of before may go on to call it until sql/roles.sql is run again.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'intent_producer') THEN
        GRANT INSERT (unreadable) ON inbox.event TO intent_producer;
    END IF;
END
$$;
