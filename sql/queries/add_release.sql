-- Register a release, but only of an approved, evaluated model and a published index; return its id, or no row if either is not.
-- Reads:  registry.decision, registry.evaluation, registry.model, registry.item_index.
-- Locks:  one row.
-- A bootstrap model has nothing that was trained, so it needs no evaluation.
WITH approved AS (
    SELECT decision.verdict
    FROM registry.decision AS decision
    WHERE decision.shop = :shop AND decision.model_digest = :model_digest
    ORDER BY decision.decided_at DESC
    LIMIT 1
),

named AS (
    SELECT model.shop, item_index.index_digest, model.model_digest
    FROM registry.model AS model
    INNER JOIN registry.item_index AS item_index
        ON model.shop = item_index.shop AND model.model_digest = item_index.model_digest
    WHERE model.shop = :shop
        AND model.model_digest = :model_digest
        AND item_index.index_digest = :index_digest
        AND item_index.is_published
        AND (SELECT verdict FROM approved) = 'approved'
        AND (
            model.kind = 'bootstrap'
            OR EXISTS (
                SELECT 1 FROM registry.evaluation AS evaluation
                WHERE evaluation.shop = model.shop AND evaluation.model_digest = model.model_digest
            )
        )
)

INSERT INTO registry.release (shop, release_id, model_digest, index_digest, created_at)
SELECT shop, :release_id, model_digest, index_digest, :created_at FROM named
ON CONFLICT (shop, release_id) DO UPDATE SET removed_at = NULL
RETURNING release_id;
