-- Let nobody wait for ever: a scorer that was stopped in the middle loses its transaction, and its locks with it.
SELECT
    set_config('idle_in_transaction_session_timeout', '30s', TRUE) AS idle,
    set_config('lock_timeout', '10s', TRUE) AS waiting;
