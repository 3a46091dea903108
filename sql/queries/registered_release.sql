-- What a release is made of, by its id; no row when it is not known.
-- Reads:  registry.release.
SELECT shop, release_id, model_digest, index_digest, created_at, removed_at
FROM registry.release
WHERE shop = :shop AND release_id = :release_id;
