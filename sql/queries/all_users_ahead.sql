-- All shoppers who have events from the inbox that the lake does not have.
SELECT state.user_id
FROM nearline.user_state AS state
WHERE
    state.shop = :shop
    -- NULL differs from all of no days.
    AND state.newest_received_on IS NOT NULL AND state.newest_received_on <> all(cast(:known_days AS date[]))
ORDER BY state.user_id;
