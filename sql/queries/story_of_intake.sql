-- Counts in and out over all published files of a shop.
-- Reads:  quality.file_account, quality.clean_day.
SELECT
    count(*) AS files,
    sum(account.rows_read) AS rows_read,
    sum(account.accepted) AS accepted,
    sum(account.quarantined) AS quarantined,
    sum(account.duplicate) AS duplicate,
    (SELECT sum(clean.duplicate) FROM quality.clean_day AS clean WHERE clean.shop = :shop) AS duplicate_across_files,
    (SELECT sum(clean.rows) FROM quality.clean_day AS clean WHERE clean.shop = :shop) AS clean_rows
FROM quality.file_account AS account
WHERE account.shop = :shop AND account.status = 'published';
