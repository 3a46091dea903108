-- Let nobody wait for ever: a scorer that was stopped in the middle loses its transaction, and its locks with it.
-- Nor wait for the disk: what a crash of Postgres takes back is a whole batch, whose events then wait again.
SELECT
    set_config('idle_in_transaction_session_timeout', '30s', TRUE) AS idle,
    set_config('lock_timeout', '10s', TRUE) AS waiting,
    set_config('synchronous_commit', 'off', TRUE) AS durable;
