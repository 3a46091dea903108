-- Whether this day's files, or those of a later day, were published, by file or through the inbox.
SELECT count(*) > 0 AS was_received
FROM quality.file_account AS account
WHERE account.shop = :shop AND account.received_on >= :day AND account.status = 'published';
