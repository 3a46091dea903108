-- Insert the staged interests of changed users.
INSERT INTO profiles.user_interest
SELECT staged.*
FROM staged_interest AS staged
INNER JOIN changed_user AS changed ON staged.user_id = changed.user_id
ORDER BY staged.user_id, staged.rank;
