-- Store one metric of one contender; an evaluation that is known already stays as it is.
-- Locks:  one row.
INSERT INTO registry.evaluation (shop, model_digest, contender, slice, metric, value, low, high, examples)
VALUES (:shop, :model_digest, :contender, :slice, :metric, :value, :low, :high, :examples)
ON CONFLICT (shop, model_digest, contender, slice, metric) DO NOTHING;
