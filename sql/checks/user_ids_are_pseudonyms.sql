-- No table holds a raw user id: each is u or a, the key's version, and 32 hexadecimal digits.
-- Must return no rows. A row names the table, with how many rows look otherwise; the ids themselves are not shown.
WITH user_ids AS (
    SELECT 'profiles.user_profile' AS table_name, user_id FROM profiles.user_profile
    UNION ALL
    SELECT 'profiles.user_interest' AS table_name, user_id FROM profiles.user_interest
    UNION ALL
    SELECT 'profiles.user_recommendation' AS table_name, user_id FROM profiles.user_recommendation
    UNION ALL
    SELECT 'profiles.user_profile_history' AS table_name, user_id FROM profiles.user_profile_history
    UNION ALL
    SELECT 'nearline.user_state' AS table_name, user_id FROM nearline.user_state
    UNION ALL
    SELECT 'inbox.accepted' AS table_name, coalesce(user_id, anonymous_id) AS user_id FROM inbox.accepted
)

SELECT table_name, count(*) AS suspicious_rows
FROM user_ids
WHERE user_id !~ '^[ua][0-9]+_[0-9a-f]{32}$'
GROUP BY table_name
ORDER BY table_name;
