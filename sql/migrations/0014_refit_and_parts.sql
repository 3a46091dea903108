-- What serves has learned the validation days too, and scorers divide the shoppers: comments only.

COMMENT ON COLUMN registry.evaluation.slice IS 'all: right after each event; day_end: at the midnights between events, as the daily refresh asks; new, returning: without, with an earlier session; after_N: right after a session''s N-th event; device=…, market=…, category=…: of the newest event; unseen_items: next items that had no event on the training and validation days.';
COMMENT ON COLUMN nearline.worker.beat_at IS 'When it was last heard of, by its own clock. Older than 5 seconds: its shoppers are divided among the others; older than 30 without stopped_at: dead.';
