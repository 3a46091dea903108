-- Every metric of a model and its opponents.
-- Reads:  registry.evaluation.
SELECT contender, slice, metric, value, low, high, examples
FROM registry.evaluation
WHERE shop = :shop AND model_digest = :model_digest
ORDER BY slice, metric, contender;
