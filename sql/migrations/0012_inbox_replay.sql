-- What became of events that were rejected and came in later.
-- Written by: `intent replay DAY --source inbox`, with the events themselves; read by: validate_events, the watch.

CREATE TABLE inbox.replayed (
    shop text NOT NULL,
    seq bigint NOT NULL,
    received_on date NOT NULL,
    broken_rule text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('accepted', 'duplicate')),
    replayed_on date NOT NULL,
    PRIMARY KEY (shop, received_on, seq)
);
COMMENT ON TABLE inbox.replayed IS 'Events that were in inbox.rejected and came in by a replay, each once; kept as long as rejected ones.';
COMMENT ON COLUMN inbox.replayed.shop IS 'Which shop.';
COMMENT ON COLUMN inbox.replayed.seq IS 'As in inbox.event.';
COMMENT ON COLUMN inbox.replayed.received_on IS 'Day on which it first came, in the shop''s time zone.';
COMMENT ON COLUMN inbox.replayed.broken_rule IS 'The rule that it broke until then.';
COMMENT ON COLUMN inbox.replayed.outcome IS 'accepted: it is in inbox.accepted now; duplicate: another event had come under its id, and it is in inbox.duplicate.';
COMMENT ON COLUMN inbox.replayed.replayed_on IS 'Day of the replay, in the shop''s time zone.';
