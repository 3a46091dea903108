-- The heartbeat of a scorer; rows of workers that are long gone go with it.
WITH long_gone AS (
    DELETE FROM nearline.worker WHERE shop = :shop AND beat_at < CAST(:beat_at AS timestamptz) - interval '7 days'
)

INSERT INTO nearline.worker (
    shop, worker, started_at, beat_at, stopped_at, release_id, promotion_number, batches, events, rejected,
    recent_events, recent_rejected
)
VALUES (
    :shop, :worker, :started_at, :beat_at, :stopped_at, :release_id, :promotion_number, :batches, :events, :rejected,
    :recent_events, :recent_rejected
)
ON CONFLICT (shop, worker) DO UPDATE SET
    started_at = excluded.started_at,
    beat_at = excluded.beat_at,
    stopped_at = excluded.stopped_at,
    release_id = excluded.release_id,
    promotion_number = excluded.promotion_number,
    batches = excluded.batches,
    events = excluded.events,
    rejected = excluded.rejected,
    recent_events = excluded.recent_events,
    recent_rejected = excluded.recent_rejected;
