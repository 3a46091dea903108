-- Replace states that this transaction has locked.
-- Reads: staged_state, filled by COPY earlier in the same transaction.
UPDATE nearline.user_state AS known
SET valid_at = staged.valid_at, newest_received_on = staged.newest_received_on, events = staged.events
FROM staged_state AS staged
WHERE known.shop = staged.shop AND known.user_id = staged.user_id;
