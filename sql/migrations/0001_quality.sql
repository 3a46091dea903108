-- What became of every received row: accounts per file, rule, day and expectation.
-- Read by: analysts and the platform's own page; written by: validate_events, replay_quarantine.

CREATE SCHEMA quality;
COMMENT ON SCHEMA quality IS 'Accounts of received files and published days: rows in = accepted + quarantined + duplicate, always.';

CREATE TABLE quality.file_account (
    shop text NOT NULL,
    received_on date NOT NULL,
    file text NOT NULL,
    source text NOT NULL,
    file_digest text NOT NULL,
    status text NOT NULL CHECK (status IN ('published', 'refused')),
    rows_read bigint NOT NULL CHECK (rows_read >= 0),
    accepted bigint NOT NULL CHECK (accepted >= 0),
    quarantined bigint NOT NULL CHECK (quarantined >= 0),
    duplicate bigint NOT NULL CHECK (duplicate >= 0),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop, received_on, file, status),
    CONSTRAINT every_row_is_accounted_for CHECK (rows_read = accepted + quarantined + duplicate)
);
COMMENT ON TABLE quality.file_account IS 'One row per received file and outcome. A refused try stands beside the account that was published before it, until the file is published.';
COMMENT ON COLUMN quality.file_account.shop IS 'Which shop the file belongs to.';
COMMENT ON COLUMN quality.file_account.received_on IS 'Day, in the shop''s time zone, for which the file was received.';
COMMENT ON COLUMN quality.file_account.file IS 'Name of the file, or its path below the folder that was given.';
COMMENT ON COLUMN quality.file_account.source IS 'Mapping (sources/<name>.toml) it was read with.';
COMMENT ON COLUMN quality.file_account.file_digest IS 'SHA-256 of the bytes as received.';
COMMENT ON COLUMN quality.file_account.status IS 'published: its accepted rows are in the clean days; refused: nothing of this try was published.';
COMMENT ON COLUMN quality.file_account.rows_read IS 'Data rows in the file; a header and blank lines are not counted.';
COMMENT ON COLUMN quality.file_account.accepted IS 'Rows that kept the contract.';
COMMENT ON COLUMN quality.file_account.quarantined IS 'Rows that broke a rule; sealed in the quarantine, see rule_account.';
COMMENT ON COLUMN quality.file_account.duplicate IS 'Repeats of an earlier row of the same file. Repeats across files are counted in clean_day.';
COMMENT ON COLUMN quality.file_account.recorded_at IS 'When this account was written.';

CREATE TABLE quality.rule_account (
    shop text NOT NULL,
    received_on date NOT NULL,
    file text NOT NULL,
    status text NOT NULL,
    broken_rule text NOT NULL,
    rows bigint NOT NULL CHECK (rows > 0),
    PRIMARY KEY (shop, received_on, file, status, broken_rule),
    FOREIGN KEY (shop, received_on, file, status) REFERENCES quality.file_account ON DELETE CASCADE
);
COMMENT ON TABLE quality.rule_account IS 'Quarantined rows by the first rule that each broke; sums to file_account.quarantined.';
COMMENT ON COLUMN quality.rule_account.shop IS 'Which shop the file belongs to.';
COMMENT ON COLUMN quality.rule_account.received_on IS 'Day for which the file was received.';
COMMENT ON COLUMN quality.rule_account.file IS 'As in file_account.';
COMMENT ON COLUMN quality.rule_account.status IS 'As in file_account.';
COMMENT ON COLUMN quality.rule_account.broken_rule IS 'Name of the rule, as in docs/contract.md.';
COMMENT ON COLUMN quality.rule_account.rows IS 'How many rows broke it first.';

CREATE TABLE quality.clean_day (
    shop text NOT NULL,
    day date NOT NULL,
    rows_accepted bigint NOT NULL,
    duplicate bigint NOT NULL,
    rows bigint NOT NULL,
    content_digest text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop, day),
    CONSTRAINT every_accepted_row_is_accounted_for CHECK (rows_accepted = rows + duplicate)
);
COMMENT ON TABLE quality.clean_day IS 'One row per published day of events, merged from all files received so far that hold some of it.';
COMMENT ON COLUMN quality.clean_day.shop IS 'Which shop.';
COMMENT ON COLUMN quality.clean_day.day IS 'Day on which the events happened, in the shop''s time zone.';
COMMENT ON COLUMN quality.clean_day.rows_accepted IS 'Accepted rows of this day in all files.';
COMMENT ON COLUMN quality.clean_day.duplicate IS 'Rows whose event_id came in another file or on an earlier day; the earliest (received day, file, line) won.';
COMMENT ON COLUMN quality.clean_day.rows IS 'Events of the day.';
COMMENT ON COLUMN quality.clean_day.content_digest IS 'Digest of the day''s events, free of row order: equal digests mean equal days.';
COMMENT ON COLUMN quality.clean_day.recorded_at IS 'When the content last changed.';

CREATE TABLE quality.event_count (
    shop text NOT NULL,
    day date NOT NULL,
    event_type text NOT NULL,
    events bigint NOT NULL,
    users bigint NOT NULL,
    PRIMARY KEY (shop, day, event_type),
    FOREIGN KEY (shop, day) REFERENCES quality.clean_day ON DELETE CASCADE
);
COMMENT ON TABLE quality.event_count IS 'Events and shoppers of a published day by kind of event; the funnel is made of it.';
COMMENT ON COLUMN quality.event_count.shop IS 'Which shop.';
COMMENT ON COLUMN quality.event_count.day IS 'Day on which the events happened.';
COMMENT ON COLUMN quality.event_count.event_type IS 'view, search, click, add_to_cart, remove_from_cart, purchase, refund, rating or impression.';
COMMENT ON COLUMN quality.event_count.events IS 'How many.';
COMMENT ON COLUMN quality.event_count.users IS 'By how many different shoppers, known or anonymous.';

CREATE TABLE quality.expectation_result (
    shop text NOT NULL,
    received_on date NOT NULL,
    expectation text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('critical', 'warning')),
    is_met boolean NOT NULL,
    observed text,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop, received_on, expectation)
);
COMMENT ON TABLE quality.expectation_result IS 'What Great Expectations found in the newest validation of a received day.';
COMMENT ON COLUMN quality.expectation_result.shop IS 'Which shop.';
COMMENT ON COLUMN quality.expectation_result.received_on IS 'Day for which the files were received.';
COMMENT ON COLUMN quality.expectation_result.expectation IS 'What was expected, in words.';
COMMENT ON COLUMN quality.expectation_result.severity IS 'critical refuses the day; warning is only noted.';
COMMENT ON COLUMN quality.expectation_result.is_met IS 'Whether it was so.';
COMMENT ON COLUMN quality.expectation_result.observed IS 'What was seen, as text.';
COMMENT ON COLUMN quality.expectation_result.recorded_at IS 'When it was judged.';
