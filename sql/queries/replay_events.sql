-- Events that are good now are rejected no more; what became of them is kept. Of the others, the rule they break now.
WITH good AS (
    SELECT *
    FROM unnest(cast(:good_seq AS bigint[]), cast(:good_outcome AS text[])) AS good (seq, outcome)
),

taken AS (
    DELETE FROM inbox.rejected AS rejected
    USING good
    WHERE rejected.shop = :shop AND rejected.seq = good.seq
    RETURNING rejected.seq, rejected.received_on, rejected.broken_rule, good.outcome
),

noted AS (
    INSERT INTO inbox.replayed (shop, seq, received_on, broken_rule, outcome, replayed_on)
    SELECT
        :shop,
        taken.seq,
        taken.received_on,
        taken.broken_rule,
        taken.outcome,
        :replayed_on
    FROM taken
)

UPDATE inbox.rejected AS rejected SET broken_rule = bad.broken_rule
FROM unnest(cast(:bad_seq AS bigint[]), cast(:bad_broken_rule AS text[])) AS bad (seq, broken_rule)
WHERE rejected.shop = :shop AND rejected.seq = bad.seq AND rejected.broken_rule <> bad.broken_rule;
