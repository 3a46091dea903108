-- What files gave and what days took is the same number: accepted rows of all published files, and of all clean days.
-- Must return no rows. A row names the shop, with both sums.
WITH given AS (
    SELECT shop, sum(accepted) AS accepted
    FROM quality.file_account
    WHERE status = 'published'
    GROUP BY shop
),

taken AS (
    SELECT shop, sum(rows_accepted) AS accepted
    FROM quality.clean_day
    GROUP BY shop
)

SELECT
    coalesce(given.shop, taken.shop) AS shop, coalesce(given.accepted, 0) AS accepted_by_file,
    coalesce(taken.accepted, 0) AS accepted_by_day
FROM given
FULL JOIN taken ON given.shop = taken.shop
WHERE coalesce(given.accepted, 0) <> coalesce(taken.accepted, 0)
ORDER BY shop;
