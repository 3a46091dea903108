-- Remove events that this transaction has locked.
DELETE FROM inbox.event WHERE shop = :shop AND seq = any(cast(:seqs AS bigint[]));
