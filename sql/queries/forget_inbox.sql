-- Forget nearline rows that were kept long enough; rejected ones hold sealed raw ids, which go with them.
WITH ids AS (
    DELETE FROM inbox.seen_event WHERE shop = :shop AND received_on < :kept_from
),

accepted AS (
    DELETE FROM inbox.accepted WHERE shop = :shop AND received_on < :kept_from
),

repeated AS (
    DELETE FROM inbox.duplicate WHERE shop = :shop AND received_on < :kept_from
)

DELETE FROM inbox.rejected WHERE shop = :shop AND received_on < :rejected_kept_from;
