-- The release that served before the current one first did, so that going back twice goes two steps back. No row: there is none.
-- Reads:  registry.promotion.
WITH current_one AS (
    SELECT release_id
    FROM registry.promotion
    WHERE shop = :shop
    ORDER BY promotion_number DESC
    LIMIT 1
)

SELECT promotion.release_id
FROM registry.promotion AS promotion
WHERE promotion.shop = :shop
    AND promotion.promotion_number < (
        SELECT min(same.promotion_number)
        FROM registry.promotion AS same
        INNER JOIN current_one ON same.release_id = current_one.release_id
        WHERE same.shop = :shop
    )
ORDER BY promotion.promotion_number DESC
LIMIT 1;
