-- Let this transaction's commit not wait for the disk. Whoever asks for it commits a marker later that does wait: what a
-- crash of Postgres takes back is whole transactions, the newest first, so the marker is among them, and all is done again.
SELECT set_config('synchronous_commit', 'off', TRUE) AS durable;
