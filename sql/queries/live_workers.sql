-- The scorers heard of lately that have not stopped, in order of their names.
SELECT worker.worker
FROM nearline.worker AS worker
WHERE worker.shop = :shop AND worker.stopped_at IS NULL AND worker.beat_at >= :alive_since
ORDER BY worker.worker;
