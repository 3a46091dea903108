-- Set aside an event that broke a rule. Where a producer gave two events one number, the first is kept.
INSERT INTO inbox.rejected (shop, seq, received_on, broken_rule, sealed_row)
VALUES (:shop, :seq, :received_on, :broken_rule, :sealed_row)
ON CONFLICT DO NOTHING;
