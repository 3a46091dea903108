-- The release that serves a shop now: the promotion with the highest number, and what it is made of. No row: none yet.
-- Reads:  registry.promotion, registry.release, registry.model.
SELECT
    promotion.shop, promotion.promotion_number, promotion.release_id, promotion.reason, promotion.decided_by,
    promotion.decided_at, release.model_digest, release.index_digest, model.kind, model.purchase_scorer,
    model.item_scorer, model.trained_until
FROM registry.promotion AS promotion
INNER JOIN registry.release AS release ON promotion.shop = release.shop AND promotion.release_id = release.release_id
INNER JOIN registry.model AS model ON release.shop = model.shop AND release.model_digest = model.model_digest
WHERE promotion.shop = :shop
ORDER BY promotion.promotion_number DESC
LIMIT 1;
