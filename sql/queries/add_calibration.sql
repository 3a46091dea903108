-- Store one bin of one contender; what is known already stays as it is.
-- Locks:  one row.
INSERT INTO registry.calibration (shop, model_digest, contender, bin, predicted, bought, examples)
VALUES (:shop, :model_digest, :contender, :bin, :predicted, :bought, :examples)
ON CONFLICT (shop, model_digest, contender, bin) DO NOTHING;
