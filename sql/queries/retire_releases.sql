-- Give up what no shop can go back to: releases beyond the newest `keep` that served, and parts that no other release names.
-- Reads:  registry.promotion. Writes: removed_at of registry.release, registry.model, registry.item_index.
-- Locks:  the caller holds the shop's "promotion" lock.
-- What was made since the newest promotion is left alone: it may be on its way to the next one.
WITH served AS (
    SELECT release_id, max(promotion_number) AS newest, max(decided_at) AS decided_at
    FROM registry.promotion
    WHERE shop = :shop
    GROUP BY release_id
),

kept AS (
    SELECT release_id FROM served ORDER BY newest DESC LIMIT :keep
),

current_one AS (
    SELECT decided_at FROM served ORDER BY newest DESC LIMIT 1
),

retired AS (
    UPDATE registry.release AS release
    SET removed_at = :removed_at
    FROM current_one
    WHERE release.shop = :shop
        AND release.removed_at IS NULL
        AND release.created_at < current_one.decided_at
        AND release.release_id NOT IN (SELECT kept.release_id FROM kept)
    RETURNING release.release_id
),

standing AS (
    SELECT release.model_digest, release.index_digest
    FROM registry.release AS release
    WHERE release.shop = :shop
        AND release.removed_at IS NULL
        AND release.release_id NOT IN (SELECT retired.release_id FROM retired)
),

models AS (
    UPDATE registry.model AS model
    SET removed_at = :removed_at
    FROM current_one
    WHERE model.shop = :shop
        AND model.removed_at IS NULL
        AND model.trained_at < current_one.decided_at
        AND model.model_digest NOT IN (SELECT standing.model_digest FROM standing)
    RETURNING model.model_digest
),

indices AS (
    UPDATE registry.item_index AS item_index
    SET removed_at = :removed_at
    FROM current_one
    WHERE item_index.shop = :shop
        AND item_index.removed_at IS NULL
        AND item_index.built_at < current_one.decided_at
        AND item_index.index_digest NOT IN (SELECT standing.index_digest FROM standing)
    RETURNING item_index.index_digest
)

SELECT
    (SELECT count(*) FROM retired) AS releases,
    (SELECT count(*) FROM models) AS models,
    (SELECT count(*) FROM indices) AS indices;
