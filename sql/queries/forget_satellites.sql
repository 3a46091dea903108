-- Remove the interests and recommendations of changed users before the staged ones come.
-- Reads: changed_user. Locks: those users' rows; their user_profile rows are locked already.
WITH interests AS (
    DELETE FROM profiles.user_interest AS old
    USING changed_user AS changed
    WHERE old.shop = :shop AND old.user_id = changed.user_id
)

DELETE FROM profiles.user_recommendation AS old
USING changed_user AS changed
WHERE old.shop = :shop AND old.user_id = changed.user_id;
