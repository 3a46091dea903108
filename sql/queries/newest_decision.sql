-- The newest decision about a model; no row when nobody has decided.
-- Reads:  registry.decision.
SELECT verdict, reasons, decided_by, decided_at
FROM registry.decision
WHERE shop = :shop AND model_digest = :model_digest
ORDER BY decided_at DESC
LIMIT 1;
