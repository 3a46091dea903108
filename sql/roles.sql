-- A role for those who only read: profiles, accounts of quality, and the registry. Run it again after each migration.
-- Run as a role that may create roles, in the platform's database, after `intent migrate`:
--     psql "$URL" -f "$(intent folder sql)/roles.sql"
-- then give it to people and tools: GRANT intent_reader TO somebody;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'intent_reader') THEN
        CREATE ROLE intent_reader NOLOGIN;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA profiles, quality, registry TO intent_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA profiles, quality, registry TO intent_reader;
