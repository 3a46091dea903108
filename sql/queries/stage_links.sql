-- Temporary table that COPY fills with links of devices; kept for the session, emptied by each commit.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_link (
    shop text, anonymous_id text, linked_at timestamptz, user_id text
) ON COMMIT DELETE ROWS;
-- What an earlier call in the same transaction left.
DELETE FROM staged_link;
