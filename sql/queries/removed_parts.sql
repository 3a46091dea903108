-- Everything whose files are not needed any more, also from before: a removal that was cut short is finished by the next.
-- Reads:  registry.release, registry.model, registry.item_index.
SELECT 'release' AS kind, release_id AS name FROM registry.release WHERE shop = :shop AND removed_at IS NOT NULL
UNION ALL
SELECT 'index' AS kind, index_digest AS name FROM registry.item_index WHERE shop = :shop AND removed_at IS NOT NULL
UNION ALL
SELECT 'model' AS kind, model_digest AS name FROM registry.model WHERE shop = :shop AND removed_at IS NOT NULL;
