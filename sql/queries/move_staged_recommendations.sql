-- Insert the staged recommendations of changed users.
INSERT INTO profiles.user_recommendation
SELECT staged.*
FROM staged_recommendation AS staged
INNER JOIN changed_user AS changed ON staged.user_id = changed.user_id
ORDER BY staged.user_id, staged.rank;
