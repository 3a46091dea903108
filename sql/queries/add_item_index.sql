-- Register an index with its passport; of one that is known already only a refusal can change, when the policy did.
-- Locks:  one row.
INSERT INTO registry.item_index (
    shop, index_digest, model_digest, kind, text_kind, items, dimensions, recall_at_20, text_recall_at_20, score_error,
    questions, text_questions, is_trained, orphans, catalogue_until, demand_until, unavailable_ratio, build_seconds, bytes, is_published,
    built_at
) VALUES (
    :shop, :index_digest, :model_digest, :kind, :text_kind, :items, :dimensions, :recall_at_20, :text_recall_at_20,
    :score_error, :questions, :text_questions, :is_trained, :orphans, :catalogue_until, :demand_until, :unavailable_ratio,
    :build_seconds, :bytes, :is_published, :built_at
)
ON CONFLICT (shop, index_digest) DO UPDATE
    SET is_published = registry.item_index.is_published OR excluded.is_published, removed_at = NULL;
