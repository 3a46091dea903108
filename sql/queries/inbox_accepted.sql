-- The accepted events of a received day in order of arrival, as rows of the lake's table `accepted`.
SELECT
    accepted.event_id,
    accepted.event_type,
    accepted.occurred_at,
    accepted.user_id,
    accepted.anonymous_id,
    accepted.session_id,
    accepted.item_id,
    accepted.query_text,
    accepted.category,
    accepted.brand,
    accepted.price,
    accepted.currency,
    accepted.quantity,
    accepted.rating,
    accepted.order_id,
    accepted.device,
    accepted.market,
    accepted.day,
    accepted.received_on,
    CAST(:file AS text) AS file,
    accepted.seq AS line
FROM inbox.accepted AS accepted
WHERE accepted.shop = :shop AND accepted.received_on = :received_on
ORDER BY accepted.seq;
