-- What a day's sequences look like: sessions, and how purchases follow views.
-- Read by: analysts; written by: build_sequences.

CREATE TABLE quality.sequence_day (
    shop text NOT NULL,
    day date NOT NULL,
    shoppers bigint NOT NULL CHECK (shoppers >= 0),
    sessions bigint NOT NULL CHECK (sessions >= shoppers),
    purchases bigint NOT NULL CHECK (purchases >= 0),
    purchases_after_view bigint NOT NULL CHECK (purchases_after_view BETWEEN 0 AND purchases),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop, day)
);
COMMENT ON TABLE quality.sequence_day IS 'One row per day whose sequences are built. A falling share of purchases after a view says that views are lost on their way.';
COMMENT ON COLUMN quality.sequence_day.shop IS 'Which shop.';
COMMENT ON COLUMN quality.sequence_day.day IS 'Day on which the events happened, in the shop''s time zone.';
COMMENT ON COLUMN quality.sequence_day.shoppers IS 'Different owners of its events: users, and devices that no user is known of.';
COMMENT ON COLUMN quality.sequence_day.sessions IS 'Sessions with an event on this day; one that crosses midnight counts on both days.';
COMMENT ON COLUMN quality.sequence_day.purchases IS 'Purchase events.';
COMMENT ON COLUMN quality.sequence_day.purchases_after_view IS 'Those whose item was viewed earlier in the same session, on the same day.';
COMMENT ON COLUMN quality.sequence_day.recorded_at IS 'When these figures last changed.';
