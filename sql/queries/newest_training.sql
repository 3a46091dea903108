-- The model with the newest data of a shop, whatever became of it: training is due some days after its trained_until.
-- Reads:  registry.model.
SELECT model_digest, kind, trained_until, trained_at
FROM registry.model
WHERE shop = :shop AND kind = 'trained'
ORDER BY trained_until DESC, trained_at DESC
LIMIT 1;
