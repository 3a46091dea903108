-- Set aside an event that broke a rule.
INSERT INTO inbox.rejected (shop, seq, received_on, broken_rule, sealed_row)
VALUES (:shop, :seq, :received_on, :broken_rule, :sealed_row);
