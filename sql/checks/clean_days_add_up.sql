-- Accepted rows of a day are its events and duplicates, and its events are the sum over kinds of events.
-- Must return no rows. A row names the day, with both sides.
SELECT
    clean.shop, clean.day, clean.rows_accepted, clean.rows, clean.duplicate,
    coalesce(sum(event.events), 0) AS events_by_type
FROM quality.clean_day AS clean
LEFT JOIN quality.event_count AS event ON clean.shop = event.shop AND clean.day = event.day
GROUP BY clean.shop, clean.day
HAVING clean.rows_accepted <> clean.rows + clean.duplicate OR clean.rows <> coalesce(sum(event.events), 0)
ORDER BY clean.shop, clean.day;
