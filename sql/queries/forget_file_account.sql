-- Remove a received file's accounts before new ones are written: all of them, or only refused tries.
-- Reads and locks: its rows of quality.file_account; quality.rule_account follows by cascade.
DELETE FROM quality.file_account
WHERE
    shop = :shop AND received_on = :received_on AND file = :file
    AND (NOT :only_refused OR status = 'refused');
