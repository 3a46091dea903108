-- Account for a merged day. recorded_at moves only when the content does, so a rerun changes no row.
INSERT INTO quality.clean_day AS known (shop, day, rows_accepted, duplicate, rows, content_digest)
VALUES (:shop, :day, :rows_accepted, :duplicate, :rows, :content_digest)
ON CONFLICT (shop, day) DO UPDATE SET
    rows_accepted = excluded.rows_accepted,
    duplicate = excluded.duplicate,
    rows = excluded.rows,
    content_digest = excluded.content_digest,
    recorded_at = now()
WHERE
    (known.rows_accepted, known.duplicate, known.content_digest)
    IS DISTINCT FROM (excluded.rows_accepted, excluded.duplicate, excluded.content_digest);
