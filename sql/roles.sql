-- A role for those who only read (profiles, accounts of quality, the registry), and one for a backend that only puts events
-- into the inbox. Run it again after each migration.
-- Run as a role that may create roles, in the platform's database, after `intent migrate`:
--     psql "$URL" -f "$(intent folder sql)/roles.sql"
-- then give them to people and tools: GRANT intent_reader TO somebody; GRANT intent_producer TO the_backend;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'intent_reader') THEN
        CREATE ROLE intent_reader NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'intent_producer') THEN
        CREATE ROLE intent_producer NOLOGIN;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA profiles, quality, registry TO intent_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA profiles, quality, registry TO intent_reader;

GRANT USAGE ON SCHEMA inbox TO intent_producer;
REVOKE INSERT ON inbox.event FROM intent_producer;
GRANT INSERT (  -- all but what the database gives itself: seq, slot and put_at
    shop, event_id, event_type, occurred_at, user_id, anonymous_id, session_id, item_id, query_text, category, brand,
    price, currency, quantity, rating, order_id, device, market, unreadable
) ON inbox.event TO intent_producer;
GRANT USAGE ON SEQUENCE inbox.event_seq TO intent_producer;
GRANT EXECUTE ON FUNCTION inbox.put(jsonb) TO intent_producer;
