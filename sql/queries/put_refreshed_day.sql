-- The marker at the end of a refresh; untouched by a rerun that changed nothing.
INSERT INTO profiles.refreshed_day AS known (shop, day, release_id, promotion_number, users, rows_changed)
VALUES (:shop, :day, :release_id, :promotion_number, :users, :rows_changed)
ON CONFLICT (shop, day) DO UPDATE SET
    release_id = excluded.release_id,
    promotion_number = excluded.promotion_number,
    users = excluded.users,
    rows_changed = excluded.rows_changed,
    finished_at = now()
WHERE
    excluded.rows_changed > 0
    OR (known.promotion_number, known.users) IS DISTINCT FROM (excluded.promotion_number, excluded.users);
