-- All shoppers who have events from the inbox that the lake does not have; or that it has, but not for them, once those
-- for whom it has some are brought to it: their events of the days refreshed became somebody else's.
SELECT state.user_id
FROM nearline.user_state AS state
WHERE
    state.shop = :shop
    AND state.newest_received_on IS NOT NULL
    AND (
        state.newest_received_on <> all(cast(:known_days AS date[]))
        OR (state.valid_at > cast(:told_after AS timestamptz) AND state.valid_at <= cast(:told_until AS timestamptz))
    )
ORDER BY state.user_id;
