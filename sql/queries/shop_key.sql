-- The fingerprint of the pseudonym key that the shop's ids are replaced with: the first one given.
INSERT INTO registry.pseudonym_key AS known (shop, fingerprint) VALUES (:shop, :fingerprint)
ON CONFLICT (shop) DO UPDATE SET fingerprint = known.fingerprint
RETURNING known.fingerprint;
