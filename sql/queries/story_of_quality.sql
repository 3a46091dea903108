-- One received day: why rows went to quarantine, and how many expectations were met.
-- Reads:  quality.rule_account, quality.expectation_result.
SELECT
    (
        SELECT string_agg(by_rule.broken_rule || ' ' || by_rule.rows, ', ' ORDER BY by_rule.rows DESC, by_rule.broken_rule ASC)
        FROM (
            SELECT account.broken_rule, sum(account.rows) AS rows
            FROM quality.rule_account AS account
            WHERE account.shop = :shop AND account.received_on = :day AND account.status = 'published'
            GROUP BY account.broken_rule
        ) AS by_rule
    ) AS broken_rules,
    count(*) AS expectations,
    count(*) FILTER (WHERE result.is_met) AS met,
    string_agg(result.expectation || coalesce(' (' || result.observed || ')', ''), ', ') FILTER (WHERE NOT result.is_met) AS unmet
FROM quality.expectation_result AS result
WHERE result.shop = :shop AND result.received_on = :day;
