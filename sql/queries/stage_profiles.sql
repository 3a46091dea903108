-- Temporary tables that COPY fills, shaped as the tables they feed; kept for the session, emptied by each commit.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_profile (LIKE profiles.user_profile) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_interest (LIKE profiles.user_interest) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_recommendation (LIKE profiles.user_recommendation) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS changed_user (user_id text PRIMARY KEY) ON COMMIT DELETE ROWS;
-- What an earlier call in the same transaction left.
DELETE FROM staged_profile;
DELETE FROM staged_interest;
DELETE FROM staged_recommendation;
DELETE FROM changed_user;
