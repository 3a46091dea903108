-- Temporary table that COPY fills, shaped as nearline.user_state; kept for the session, emptied by each commit.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_state (LIKE nearline.user_state) ON COMMIT DELETE ROWS;
-- What an earlier call in the same transaction left.
DELETE FROM staged_state;
