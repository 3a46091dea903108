-- Which of these profiles user_profile holds already, as they are.
WITH known AS MATERIALIZED (
    SELECT
        profile.user_id,
        profile.content_digest,
        profile.valid_at
    FROM profiles.user_profile AS profile
    WHERE
        profile.shop = :shop AND profile.user_id = any(cast(:user_id AS text[]))
        AND (profile.release_id, profile.promotion_number) = (:release_id, :promotion_number)
)

SELECT known.user_id
FROM unnest(cast(:user_id AS text[]), cast(:content_digest AS text[]), cast(:valid_at AS timestamptz[])) AS given (
    user_id, content_digest, valid_at
)
INNER JOIN known
    ON
        given.user_id = known.user_id
        AND given.content_digest = known.content_digest
        AND given.valid_at = known.valid_at;
