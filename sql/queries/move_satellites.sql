-- Bring interests of some users, recommendations of some, to what is given, touching only rows that differ.
-- Locks: those rows; the users' user_profile rows are locked already, so nobody else writes their satellites. That is
-- why this is a statement of its own: it must see what was committed before those locks were had.
-- Rows that change are found by their place (ctid), through any(array(…)), whatever the statistics say.
WITH known_interest AS MATERIALIZED (
    SELECT
        old.ctid AS place,
        old.*
    FROM profiles.user_interest AS old
    WHERE old.shop = :shop AND old.user_id = any(cast(:interests_of AS text[]))
),

new_interest AS MATERIALIZED (
    SELECT
        known.place,
        given.*
    FROM unnest(
        cast(:interest_user_id AS text[]),
        cast(:interest_rank AS smallint[]),
        cast(:interest_category AS text[]),
        cast(:interest_weight AS double precision[]),
        cast(:interest_last_seen_at AS timestamptz[])
    ) AS given (user_id, rank, category, weight, last_seen_at)
    FULL JOIN known_interest AS known ON given.user_id = known.user_id AND given.rank = known.rank
    WHERE
        (given.category, given.weight, given.last_seen_at)
        IS DISTINCT FROM (known.category, known.weight, known.last_seen_at)
    ORDER BY given.user_id, given.rank
),

gone_interest AS (
    DELETE FROM profiles.user_interest
    WHERE ctid = any(array(SELECT new.place FROM new_interest AS new WHERE new.user_id IS NULL))
),

moved_interest AS (
    UPDATE profiles.user_interest AS old SET
        category = new.category,
        weight = new.weight,
        last_seen_at = new.last_seen_at
    FROM new_interest AS new
    WHERE old.ctid = any(array(SELECT new.place FROM new_interest AS new)) AND old.ctid = new.place AND new.user_id IS NOT NULL
),

added_interest AS (
    INSERT INTO profiles.user_interest (shop, user_id, rank, category, weight, last_seen_at)
    SELECT
        :shop,
        new.user_id,
        new.rank,
        new.category,
        new.weight,
        new.last_seen_at
    FROM new_interest AS new
    WHERE new.place IS NULL
),

known_recommendation AS MATERIALIZED (
    SELECT
        old.ctid AS place,
        old.*
    FROM profiles.user_recommendation AS old
    WHERE old.shop = :shop AND old.user_id = any(cast(:recommendations_of AS text[]))
),

new_recommendation AS MATERIALIZED (
    SELECT
        known.place,
        given.*
    FROM unnest(
        cast(:recommendation_user_id AS text[]),
        cast(:recommendation_rank AS smallint[]),
        cast(:recommendation_item_id AS text[]),
        cast(:recommendation_score AS double precision[]),
        cast(:recommendation_origin AS text[]),
        cast(:recommendation_reason AS text[])
    ) AS given (user_id, rank, item_id, score, origin, reason)
    FULL JOIN known_recommendation AS known ON given.user_id = known.user_id AND given.rank = known.rank
    WHERE
        (given.item_id, given.score, given.origin, given.reason)
        IS DISTINCT FROM (known.item_id, known.score, known.origin, known.reason)
    ORDER BY given.user_id, given.rank
),

gone_recommendation AS (
    DELETE FROM profiles.user_recommendation
    WHERE ctid = any(array(SELECT new.place FROM new_recommendation AS new WHERE new.user_id IS NULL))
),

moved_recommendation AS (
    UPDATE profiles.user_recommendation AS old SET
        item_id = new.item_id,
        score = new.score,
        origin = new.origin,
        reason = new.reason
    FROM new_recommendation AS new
    WHERE old.ctid = any(array(SELECT new.place FROM new_recommendation AS new)) AND old.ctid = new.place AND new.user_id IS NOT NULL
)

INSERT INTO profiles.user_recommendation (shop, user_id, rank, item_id, score, origin, reason)
SELECT
    :shop,
    new.user_id,
    new.rank,
    new.item_id,
    new.score,
    new.origin,
    new.reason
FROM new_recommendation AS new
WHERE new.place IS NULL;
