-- The nearline door and what its scorer remembers.
-- Written by: the shop's backend (inbox.event alone); the scorer, one transaction per batch; the daily refresh.

CREATE SCHEMA inbox;
COMMENT ON SCHEMA inbox IS 'The door for events as they happen: insert into inbox.event, or call inbox.put(jsonb).';

CREATE SEQUENCE inbox.event_seq;

-- Rows wait in one of four partitions by the minute in which they came. A partition that is done with is truncated
-- whole, so the inbox stays small even while an old transaction keeps every deleted row alive.
CREATE TABLE inbox.event (
    shop text NOT NULL DEFAULT 'main',
    seq bigint NOT NULL DEFAULT nextval('inbox.event_seq'),
    slot smallint NOT NULL DEFAULT (extract(EPOCH FROM clock_timestamp())::bigint / 60) % 4,
    event_id text,
    event_type text,
    occurred_at text,
    user_id text,
    anonymous_id text,
    session_id text,
    item_id text,
    query_text text,
    category text,
    brand text,
    price text,
    currency text,
    quantity text,
    rating text,
    order_id text,
    device text,
    market text,
    put_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shop, seq, slot)
) PARTITION BY LIST (slot);
COMMENT ON TABLE inbox.event IS 'Events that wait for the scorer, which takes them within milliseconds and removes them. Fields as in docs/contract.md, all as text: a row that breaks a rule goes to inbox.rejected, and the others of its batch go on.';
COMMENT ON COLUMN inbox.event.shop IS 'Which shop.';
COMMENT ON COLUMN inbox.event.seq IS 'Order of arrival.';
COMMENT ON COLUMN inbox.event.slot IS 'Partition, by the minute of arrival; leave it out.';
COMMENT ON COLUMN inbox.event.event_id IS 'The shop''s id of the event; needed here, so that an event which also comes by file counts once.';
COMMENT ON COLUMN inbox.event.event_type IS 'What happened, in the words of the contract.';
COMMENT ON COLUMN inbox.event.occurred_at IS 'When it happened: ISO 8601, UTC where no offset is given.';
COMMENT ON COLUMN inbox.event.user_id IS 'The shop''s own id of the shopper; the scorer replaces it by a pseudonym before it is stored elsewhere.';
COMMENT ON COLUMN inbox.event.anonymous_id IS 'Device or cookie; likewise.';
COMMENT ON COLUMN inbox.event.session_id IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.item_id IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.query_text IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.category IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.brand IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.price IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.currency IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.quantity IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.rating IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.order_id IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.device IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.market IS 'As in the contract.';
COMMENT ON COLUMN inbox.event.put_at IS 'When it was put here; leave it out.';

CREATE TABLE inbox.event_slot_0 PARTITION OF inbox.event FOR VALUES IN (0);
CREATE TABLE inbox.event_slot_1 PARTITION OF inbox.event FOR VALUES IN (1);
CREATE TABLE inbox.event_slot_2 PARTITION OF inbox.event FOR VALUES IN (2);
CREATE TABLE inbox.event_slot_3 PARTITION OF inbox.event FOR VALUES IN (3);
COMMENT ON TABLE inbox.event_slot_0 IS 'Partition of inbox.event.';
COMMENT ON TABLE inbox.event_slot_1 IS 'Partition of inbox.event.';
COMMENT ON TABLE inbox.event_slot_2 IS 'Partition of inbox.event.';
COMMENT ON TABLE inbox.event_slot_3 IS 'Partition of inbox.event.';

CREATE FUNCTION inbox.wake_scorer() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('intent_inbox', '');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION inbox.wake_scorer IS 'Tells the scorer that something came: once per statement, and once per transaction.';
CREATE TRIGGER wake_scorer AFTER INSERT ON inbox.event FOR EACH STATEMENT EXECUTE FUNCTION inbox.wake_scorer();

CREATE FUNCTION inbox.put(events jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    listed jsonb := CASE jsonb_typeof(events) WHEN 'array' THEN events ELSE jsonb_build_array(events) END;
    odd bigint;
    taken bigint;
BEGIN
    SELECT min(place) INTO odd FROM jsonb_array_elements(listed) WITH ORDINALITY AS each (event, place)
    WHERE jsonb_typeof(event) <> 'object';
    IF odd IS NOT NULL THEN
        RAISE EXCEPTION 'inbox.put: element % of % is no object; nothing was taken', odd, jsonb_array_length(listed)
        USING HINT = 'Give one JSON object per event, or an array of them; fields as in inbox.event.';
    END IF;
    INSERT INTO inbox.event (
        shop, event_id, event_type, occurred_at, user_id, anonymous_id, session_id, item_id, query_text, category,
        brand, price, currency, quantity, rating, order_id, device, market
    )
    SELECT
        coalesce(event ->> 'shop', 'main'), event ->> 'event_id', event ->> 'event_type', event ->> 'occurred_at',
        event ->> 'user_id', event ->> 'anonymous_id', event ->> 'session_id', event ->> 'item_id',
        event ->> 'query_text', event ->> 'category', event ->> 'brand', event ->> 'price', event ->> 'currency',
        event ->> 'quantity', event ->> 'rating', event ->> 'order_id', event ->> 'device', event ->> 'market'
    FROM jsonb_array_elements(listed) AS each (event);
    GET DIAGNOSTICS taken = ROW_COUNT;
    RETURN taken;
END
$$;
COMMENT ON FUNCTION inbox.put IS 'Put one event (a JSON object) or many (an array) into the inbox; returns how many.';

CREATE FUNCTION inbox.rotate() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    minute bigint := extract(EPOCH FROM clock_timestamp())::bigint / 60;
    part text;
    is_empty boolean;
    done integer := 0;
BEGIN
    -- Not the partition of this minute, nor its neighbours: clocks may step a little.
    part := 'inbox.event_slot_' || (minute + 2) % 4;
    IF pg_relation_size(part) > 0 THEN
        PERFORM set_config('lock_timeout', '50ms', true);
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', part);
        EXECUTE format('SELECT NOT EXISTS (SELECT 1 FROM %s)', part) INTO is_empty;
        IF is_empty THEN
            EXECUTE format('TRUNCATE %s', part);
            done := 1;
        END IF;
    END IF;
    RETURN done;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$$;
COMMENT ON FUNCTION inbox.rotate IS 'Truncate the oldest partition of inbox.event if nothing waits in it; gives up at once where somebody looks at it. Returns how many were truncated.';

CREATE TABLE inbox.rejected (
    shop text NOT NULL,
    seq bigint NOT NULL,
    received_on date NOT NULL,
    broken_rule text NOT NULL,
    sealed_row bytea NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop, seq)
);
COMMENT ON TABLE inbox.rejected IS 'Events that broke a rule; kept for INTENT_QUARANTINE_DAYS.';
COMMENT ON COLUMN inbox.rejected.shop IS 'Which shop.';
COMMENT ON COLUMN inbox.rejected.seq IS 'As in inbox.event.';
COMMENT ON COLUMN inbox.rejected.received_on IS 'Day on which it came, in the shop''s time zone.';
COMMENT ON COLUMN inbox.rejected.broken_rule IS 'The first rule it broke; docs/contract.md explains them.';
COMMENT ON COLUMN inbox.rejected.sealed_row IS 'The row as JSON, readable only with the private key.';
COMMENT ON COLUMN inbox.rejected.rejected_at IS 'When the scorer set it aside.';

CREATE TABLE inbox.seen_event (
    shop text NOT NULL,
    event_id text NOT NULL,
    received_on date NOT NULL,
    PRIMARY KEY (shop, event_id)
);
COMMENT ON TABLE inbox.seen_event IS 'Ids of accepted events, so that one that is put twice counts once. Kept until an event could no longer be late enough to come again: then it breaks occurred_outside_window.';
COMMENT ON COLUMN inbox.seen_event.shop IS 'Which shop.';
COMMENT ON COLUMN inbox.seen_event.event_id IS 'The shop''s id of the event.';
COMMENT ON COLUMN inbox.seen_event.received_on IS 'Day on which it first came.';
CREATE INDEX seen_event_by_day ON inbox.seen_event (shop, received_on);

CREATE TABLE inbox.duplicate (
    shop text NOT NULL,
    seq bigint NOT NULL,
    received_on date NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (shop, received_on, seq)
);
COMMENT ON TABLE inbox.duplicate IS 'Events whose id had come before: counted, and not counted again.';
COMMENT ON COLUMN inbox.duplicate.shop IS 'Which shop.';
COMMENT ON COLUMN inbox.duplicate.seq IS 'As in inbox.event.';
COMMENT ON COLUMN inbox.duplicate.received_on IS 'Day on which it came again, in the shop''s time zone.';
COMMENT ON COLUMN inbox.duplicate.event_id IS 'The shop''s id of the event.';

CREATE TABLE inbox.accepted (
    shop text NOT NULL,
    received_on date NOT NULL,
    seq bigint NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    user_id text,
    anonymous_id text,
    session_id text,
    item_id text,
    query_text text,
    category text,
    brand text,
    price double precision,
    currency text,
    quantity integer,
    rating real,
    order_id text,
    device text,
    market text,
    day date NOT NULL,
    PRIMARY KEY (shop, received_on, seq)
);
COMMENT ON TABLE inbox.accepted IS 'Accepted nearline events, pseudonymised: validate_events reads a day of them as one more source.';
COMMENT ON COLUMN inbox.accepted.shop IS 'Which shop.';
COMMENT ON COLUMN inbox.accepted.received_on IS 'Day on which the scorer took it, in the shop''s time zone.';
COMMENT ON COLUMN inbox.accepted.seq IS 'As in inbox.event; its line number in the lake.';
COMMENT ON COLUMN inbox.accepted.event_id IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.event_type IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.occurred_at IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.user_id IS 'Keyed pseudonym.';
COMMENT ON COLUMN inbox.accepted.anonymous_id IS 'Keyed pseudonym.';
COMMENT ON COLUMN inbox.accepted.session_id IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.item_id IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.query_text IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.category IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.brand IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.price IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.currency IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.quantity IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.rating IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.order_id IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.device IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.market IS 'As in the contract.';
COMMENT ON COLUMN inbox.accepted.day IS 'Day on which it happened, in the shop''s time zone.';

CREATE SCHEMA nearline;
COMMENT ON SCHEMA nearline IS 'What the scorer remembers. Raw behaviour: not for analysts.';

CREATE TABLE nearline.user_state (
    shop text NOT NULL,
    user_id text NOT NULL,
    valid_at timestamptz,
    newest_received_on date,
    events bytea,
    PRIMARY KEY (shop, user_id)
) WITH (fillfactor = 70);
CREATE INDEX user_state_by_newest ON nearline.user_state (shop, newest_received_on) WHERE newest_received_on IS NOT NULL;
ALTER TABLE nearline.user_state ALTER COLUMN events SET STORAGE EXTERNAL;
COMMENT ON TABLE nearline.user_state IS 'The events of each shopper in the last INTENT_HISTORY_DAYS, from files and from the inbox.';
COMMENT ON COLUMN nearline.user_state.shop IS 'Which shop.';
COMMENT ON COLUMN nearline.user_state.user_id IS 'As in profiles.user_profile.';
COMMENT ON COLUMN nearline.user_state.valid_at IS 'Moment up to which the profile is told: the newest event, or the end of the last refreshed day if that is later. NULL while the first event is on its way in.';
COMMENT ON COLUMN nearline.user_state.newest_received_on IS 'Newest day on which one of the events came through the inbox; NULL where all came by file.';
COMMENT ON COLUMN nearline.user_state.events IS 'An Arrow record batch, compressed; schema in intent_platform/inbox/states.py.';

CREATE TABLE nearline.device (
    shop text NOT NULL,
    anonymous_id text NOT NULL,
    linked_at timestamptz[] NOT NULL DEFAULT '{}',
    user_id text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (shop, anonymous_id)
);
COMMENT ON TABLE nearline.device IS 'Which user a device was linked to, from when on.';
COMMENT ON COLUMN nearline.device.shop IS 'Which shop.';
COMMENT ON COLUMN nearline.device.anonymous_id IS 'Keyed pseudonym of the device.';
COMMENT ON COLUMN nearline.device.linked_at IS 'Moments of events that named both, in order.';
COMMENT ON COLUMN nearline.device.user_id IS 'The user from each of those moments on.';

CREATE TABLE nearline.seeded_day (
    shop text NOT NULL,
    day date NOT NULL,
    inputs text NOT NULL,
    PRIMARY KEY (shop, day)
);
COMMENT ON TABLE nearline.seeded_day IS 'Days of the lake that user_state knows, so that a refresh brings only what is new.';
COMMENT ON COLUMN nearline.seeded_day.shop IS 'Which shop.';
COMMENT ON COLUMN nearline.seeded_day.day IS 'Day of events.';
COMMENT ON COLUMN nearline.seeded_day.inputs IS 'Digest of what the day''s sequences were made from.';

CREATE TABLE nearline.worker (
    shop text NOT NULL,
    worker text NOT NULL,
    started_at timestamptz NOT NULL,
    beat_at timestamptz NOT NULL,
    stopped_at timestamptz,
    release_id text,
    promotion_number bigint,
    batches bigint NOT NULL,
    events bigint NOT NULL,
    rejected bigint NOT NULL,
    PRIMARY KEY (shop, worker)
);
COMMENT ON TABLE nearline.worker IS 'Heartbeat of each scorer process; rows go a week after the last beat.';
COMMENT ON COLUMN nearline.worker.shop IS 'Which shop.';
COMMENT ON COLUMN nearline.worker.worker IS 'Host and process id.';
COMMENT ON COLUMN nearline.worker.started_at IS 'When it began.';
COMMENT ON COLUMN nearline.worker.beat_at IS 'When it was last heard of; older than 30 seconds without stopped_at: dead.';
COMMENT ON COLUMN nearline.worker.stopped_at IS 'When it drained and ended in order.';
COMMENT ON COLUMN nearline.worker.release_id IS 'Release it scores with.';
COMMENT ON COLUMN nearline.worker.promotion_number IS 'Its promotion.';
COMMENT ON COLUMN nearline.worker.batches IS 'Transactions committed.';
COMMENT ON COLUMN nearline.worker.events IS 'Events taken from the inbox.';
COMMENT ON COLUMN nearline.worker.rejected IS 'Of those, rejected.';

CREATE TABLE quality.parity (
    shop text NOT NULL,
    day date NOT NULL,
    users bigint NOT NULL,
    events bigint NOT NULL,
    users_differing bigint NOT NULL,
    largest_difference double precision NOT NULL,
    tolerance double precision NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop, day)
);
COMMENT ON TABLE quality.parity IS 'Whether the nearline code says of a day what the batch says: its events replayed out of order and partly twice, beside the batch.';
COMMENT ON COLUMN quality.parity.shop IS 'Which shop.';
COMMENT ON COLUMN quality.parity.day IS 'Day that was replayed.';
COMMENT ON COLUMN quality.parity.users IS 'Shoppers compared.';
COMMENT ON COLUMN quality.parity.events IS 'Their events of the day.';
COMMENT ON COLUMN quality.parity.users_differing IS 'Of those, with another profile; 0 is asked.';
COMMENT ON COLUMN quality.parity.largest_difference IS 'Of any probability, amount or price.';
COMMENT ON COLUMN quality.parity.tolerance IS 'What was allowed.';
COMMENT ON COLUMN quality.parity.checked_at IS 'When it was checked.';

-- Several moves of one transaction are several rows.
ALTER TABLE profiles.user_profile_history ALTER COLUMN recorded_at SET DEFAULT clock_timestamp();
