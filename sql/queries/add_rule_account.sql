-- Account for the rows of one received file that broke one rule first.
INSERT INTO quality.rule_account (shop, received_on, file, status, broken_rule, rows)
VALUES (:shop, :received_on, :file, :status, :broken_rule, :rows);
