-- What waits in the inbox, who scores, what became of the events of the last hour, and which days of accepted events
-- the lake has not all of.
SELECT
    (SELECT count(*) FROM inbox.event AS event WHERE event.shop = :shop) AS waiting,
    coalesce((
        SELECT greatest(extract(EPOCH FROM cast(:now AS timestamptz) - min(event.put_at)), 0)
        FROM inbox.event AS event WHERE event.shop = :shop
    ), 0)::double precision AS lag_s,
    (
        SELECT count(*) FROM nearline.worker AS worker
        WHERE worker.shop = :shop AND worker.stopped_at IS NULL AND worker.beat_at >= :alive_since
    ) AS alive,
    (
        -- A scorer that was started after one went silent stands in for it, whatever became of it since.
        SELECT greatest(
            count(*) FILTER (WHERE worker.stopped_at IS NULL AND worker.beat_at < :alive_since)
            - count(*) FILTER (WHERE worker.started_at > first_silent.beat_at), 0
        )
        FROM nearline.worker AS worker
        CROSS JOIN (
            SELECT min(silent.beat_at) AS beat_at
            FROM nearline.worker AS silent
            WHERE
                silent.shop = :shop AND silent.stopped_at IS NULL
                AND silent.beat_at < :alive_since AND silent.beat_at >= :dead_since
        ) AS first_silent
        WHERE worker.shop = :shop AND worker.beat_at >= :dead_since
    ) AS dead,
    (
        SELECT coalesce(array_agg(received.day ORDER BY received.day), '{}')
        FROM (
            SELECT cast(:last_day AS date) - ago.days AS day
            FROM generate_series(0, cast(:last_day AS date) - cast(:first_day AS date)) AS ago (days)
        ) AS received
        WHERE
            EXISTS (
                SELECT 1 FROM inbox.accepted AS accepted
                WHERE accepted.shop = :shop AND accepted.received_on = received.day
            )
            AND NOT EXISTS (
                SELECT 1 FROM quality.file_account AS account
                WHERE
                    account.shop = :shop AND account.file = :inbox AND account.status = 'published'
                    AND account.received_on = received.day
                    AND account.accepted >= (
                        SELECT count(*) FROM inbox.accepted AS accepted
                        WHERE accepted.shop = :shop AND accepted.received_on = received.day
                    )
            )
    ) AS days_lacking,
    recent.events,
    recent.rejected
FROM (
    SELECT
        coalesce(sum(worker.recent_events), 0)::bigint AS events,
        coalesce(sum(worker.recent_rejected), 0)::bigint AS rejected
    FROM nearline.worker AS worker
    WHERE worker.shop = :shop AND worker.beat_at >= :recent_since
) AS recent;
