-- Register a model folder; a model that is known already stays as it is, and is there again if it had been removed.
-- Locks:  one row.
INSERT INTO registry.model (
    shop, model_digest, kind, purchase_scorer, item_scorer, trained_from, trained_until, training_seed,
    training_settings, data_digests, report, trained_at
) VALUES (
    :shop, :model_digest, :kind, :purchase_scorer, :item_scorer, :trained_from, :trained_until, :training_seed,
    CAST(:training_settings AS jsonb), CAST(:data_digests AS jsonb), :report, :trained_at
)
ON CONFLICT (shop, model_digest) DO UPDATE SET removed_at = NULL;
