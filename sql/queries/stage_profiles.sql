-- Temporary tables that COPY fills, shaped as the tables they feed; gone when the transaction ends.
CREATE TEMPORARY TABLE staged_profile (LIKE profiles.user_profile) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_interest (LIKE profiles.user_interest) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_recommendation (LIKE profiles.user_recommendation) ON COMMIT DROP;
CREATE TEMPORARY TABLE changed_user (user_id text PRIMARY KEY) ON COMMIT DROP;
