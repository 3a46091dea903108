-- Let nobody wait for ever for a refresh that hangs: scorers want the shoppers that its transaction holds.
SELECT set_config('idle_in_transaction_session_timeout', '60s', TRUE) AS idle;
