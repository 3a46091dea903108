-- Keep what a parity check found.
INSERT INTO quality.parity AS known (
    shop, day, users, events, users_differing, users_reordered, largest_difference, tolerance
)
VALUES (:shop, :day, :users, :events, :users_differing, :users_reordered, :largest_difference, :tolerance)
ON CONFLICT (shop, day) DO UPDATE SET
    users = excluded.users,
    events = excluded.events,
    users_differing = excluded.users_differing,
    users_reordered = excluded.users_reordered,
    largest_difference = excluded.largest_difference,
    tolerance = excluded.tolerance,
    checked_at = now();
