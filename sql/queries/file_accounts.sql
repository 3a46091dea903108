-- The accounts of a received day's files (of one file when :file is not NULL), with the rows of each broken rule as one object.
SELECT
    account.shop,
    account.received_on,
    account.file,
    account.source,
    account.file_digest,
    account.status,
    account.rows_read,
    account.accepted,
    account.quarantined,
    account.duplicate,
    coalesce((
        SELECT jsonb_object_agg(rule.broken_rule, rule.rows)
        FROM quality.rule_account AS rule
        WHERE
            rule.shop = account.shop AND rule.received_on = account.received_on
            AND rule.file = account.file AND rule.status = account.status
    ), '{}') AS by_rule
FROM quality.file_account AS account
WHERE
    account.shop = :shop AND account.received_on = :received_on
    AND account.file = coalesce(:file, account.file);
