-- Point a shop at a release under the next promotion number; return the number.
-- Reads:  registry.promotion, registry.release.
-- Locks:  the caller holds the shop's "promotion" lock, so numbers neither repeat nor skip.
-- Promoting what serves already adds no row: the number stays, and a rerun changes nothing.
WITH newest AS (
    SELECT promotion_number, release_id
    FROM registry.promotion
    WHERE shop = :shop
    ORDER BY promotion_number DESC
    LIMIT 1
),

added AS (
    INSERT INTO registry.promotion (shop, promotion_number, release_id, reason, decided_by, decided_at)
    SELECT :shop, coalesce((SELECT promotion_number FROM newest), 0) + 1, :release_id, :reason, :decided_by, :decided_at
    WHERE NOT EXISTS (SELECT 1 FROM newest WHERE newest.release_id = :release_id)
    RETURNING promotion_number, release_id, decided_at
)

SELECT promotion_number, release_id, TRUE AS is_new FROM added
UNION ALL
SELECT promotion_number, release_id, FALSE AS is_new FROM newest WHERE newest.release_id = :release_id;
