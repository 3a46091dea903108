-- Next items that training never saw are judged apart: comments only.

COMMENT ON COLUMN registry.evaluation.slice IS 'all: right after each event; day_end: at the midnights between events, as the daily refresh asks; new, returning: without, with an earlier session; after_N: right after a session''s N-th event; device=…, market=…, category=…: of the newest event; unseen_items: next items that had no event in training.';
