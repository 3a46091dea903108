-- Register an index with its passport; an index that is known already stays as it is.
-- Locks:  one row.
INSERT INTO registry.item_index (
    shop, index_digest, model_digest, kind, items, dimensions, recall_at_20, unavailable_ratio, build_seconds, bytes,
    is_published, built_at
) VALUES (
    :shop, :index_digest, :model_digest, :kind, :items, :dimensions, :recall_at_20, :unavailable_ratio,
    :build_seconds, :bytes, :is_published, :built_at
)
ON CONFLICT (shop, index_digest) DO NOTHING;
