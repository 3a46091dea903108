-- Which of these shoppers have events from the inbox; is_ahead where the lake does not have them all.
SELECT
    state.user_id,
    state.newest_received_on <> all(cast(:known_days AS date[])) AS is_ahead
FROM nearline.user_state AS state
WHERE state.shop = :shop AND state.user_id = any(cast(:user_ids AS text[])) AND state.newest_received_on IS NOT NULL;
