-- Forget nearline rows that were kept long enough; rejected ones hold sealed raw ids, which go with them.
-- Accepted events stay until the lake has their received day, but no longer than rejected ones.
-- An id is forgotten after its event, so that whatever is accepted is noted as seen.
-- What a replay brought in is kept as if it had come on the day of the replay, so that the lake gets it.
WITH replayed_lately AS (
    SELECT
        accepted.received_on,
        accepted.seq
    FROM inbox.replayed AS replayed
    INNER JOIN inbox.accepted AS accepted
        ON
            replayed.shop = accepted.shop AND replayed.received_on = accepted.received_on
            AND replayed.seq = accepted.seq
    WHERE replayed.shop = :shop AND replayed.replayed_on >= :kept_from
),

in_lake AS (
    SELECT account.received_on
    FROM quality.file_account AS account
    WHERE
        account.shop = :shop AND account.file = :inbox AND account.status = 'published'
        AND account.received_on < :kept_from AND account.accepted >= (
            SELECT count(*)
            FROM inbox.accepted AS accepted
            WHERE accepted.shop = :shop AND accepted.received_on = account.received_on
        )
        -- What a replay brought in since may not be among the account's events.
        AND NOT EXISTS (
            SELECT 1
            FROM inbox.replayed AS replayed
            WHERE
                replayed.shop = :shop AND replayed.received_on = account.received_on
                AND replayed.replayed_on >= (account.recorded_at AT TIME ZONE :time_zone)::date
        )
),

ids AS (
    DELETE FROM inbox.seen_event AS seen
    WHERE
        seen.shop = :shop AND seen.received_on < :kept_from
        AND NOT EXISTS (
            SELECT 1 FROM inbox.accepted AS accepted
            WHERE accepted.shop = seen.shop AND accepted.event_id = seen.event_id
        )
),

accepted AS (
    DELETE FROM inbox.accepted AS accepted
    WHERE
        accepted.shop = :shop AND accepted.received_on < :kept_from
        AND (
            accepted.received_on < :rejected_kept_from
            OR accepted.received_on IN (SELECT in_lake.received_on FROM in_lake)
        )
        AND NOT EXISTS (
            SELECT 1 FROM replayed_lately
            WHERE replayed_lately.received_on = accepted.received_on AND replayed_lately.seq = accepted.seq
        )
),

repeated AS (
    DELETE FROM inbox.duplicate WHERE shop = :shop AND received_on < :kept_from
),

replayed AS (
    DELETE FROM inbox.replayed
    WHERE shop = :shop AND received_on < :rejected_kept_from AND replayed_on < :kept_from
)

DELETE FROM inbox.rejected WHERE shop = :shop AND received_on < :rejected_kept_from;
