-- Remove a day's event counts before new ones are written.
DELETE FROM quality.event_count
WHERE shop = :shop AND day = :day;
