-- Every received row is accounted for, and quarantined rows are the sum of the rules they broke.
-- Must return no rows. A row names the file, with both sides.
SELECT
    account.shop, account.received_on, account.file, account.status, account.rows_read,
    account.accepted + account.quarantined + account.duplicate AS rows_accounted_for,
    account.quarantined, coalesce(sum(rule.rows), 0) AS rows_by_rule
FROM quality.file_account AS account
LEFT JOIN quality.rule_account AS rule
    ON account.shop = rule.shop AND account.received_on = rule.received_on
    AND account.file = rule.file AND account.status = rule.status
GROUP BY account.shop, account.received_on, account.file, account.status
HAVING account.rows_read <> account.accepted + account.quarantined + account.duplicate
    OR account.quarantined <> coalesce(sum(rule.rows), 0)
ORDER BY account.shop, account.received_on, account.file;
