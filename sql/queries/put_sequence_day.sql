-- Account for a day's sequences. recorded_at moves only when a figure does, so a rerun changes no row.
INSERT INTO quality.sequence_day AS known (shop, day, shoppers, sessions, purchases, purchases_after_view)
VALUES (:shop, :day, :shoppers, :sessions, :purchases, :purchases_after_view)
ON CONFLICT (shop, day) DO UPDATE SET
    shoppers = excluded.shoppers,
    sessions = excluded.sessions,
    purchases = excluded.purchases,
    purchases_after_view = excluded.purchases_after_view,
    recorded_at = now()
WHERE
    (known.shoppers, known.sessions, known.purchases, known.purchases_after_view)
    IS DISTINCT FROM (excluded.shoppers, excluded.sessions, excluded.purchases, excluded.purchases_after_view);
