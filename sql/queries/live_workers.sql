-- The scorers heard of lately that have not stopped, in order of their names; not one whose clock is ahead.
SELECT worker.worker
FROM nearline.worker AS worker
WHERE worker.shop = :shop AND worker.stopped_at IS NULL AND worker.beat_at BETWEEN :alive_since AND :alive_until
ORDER BY worker.worker;
