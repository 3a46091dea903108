-- Store whether a model may be named by a release, and why.
-- Locks:  one row.
INSERT INTO registry.decision (shop, model_digest, decided_at, verdict, reasons, decided_by)
VALUES (:shop, :model_digest, :decided_at, :verdict, CAST(:reasons AS jsonb), :decided_by)
ON CONFLICT (shop, model_digest, decided_at) DO NOTHING;
