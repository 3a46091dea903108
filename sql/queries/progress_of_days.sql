-- Which days of a shop are published, and under which promotion their profiles were refreshed (NULL: not yet).
-- Reads:  quality.clean_day, profiles.refreshed_day.
SELECT clean.day, refreshed.promotion_number
FROM quality.clean_day AS clean
LEFT JOIN profiles.refreshed_day AS refreshed ON clean.shop = refreshed.shop AND clean.day = refreshed.day
WHERE clean.shop = :shop
ORDER BY clean.day;
