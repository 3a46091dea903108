-- What waits in the inbox, who scores, and what became of the events of the last hour.
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
        SELECT count(*) FROM nearline.worker AS worker
        WHERE worker.shop = :shop AND worker.stopped_at IS NULL AND worker.beat_at < :alive_since
    ) AS dead,
    (
        SELECT coalesce(sum(worker.events - worker.rejected), 0)::bigint FROM nearline.worker AS worker
        WHERE worker.shop = :shop AND worker.beat_at >= :recent_since
    ) AS accepted,
    (
        SELECT count(*) FROM inbox.rejected AS rejected
        WHERE rejected.shop = :shop AND rejected.rejected_at >= :recent_since
    ) AS rejected;
