-- Whose pseudonyms a shop's are; and a history that can be asked for what was known by a moment.
-- Written by: whoever reads raw ids, at first.

CREATE TABLE registry.pseudonym_key (
    shop text PRIMARY KEY,
    fingerprint text NOT NULL,
    known_since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE registry.pseudonym_key IS 'The pseudonym key that each shop''s ids were replaced with; a host with another key is refused.';
COMMENT ON COLUMN registry.pseudonym_key.shop IS 'Which shop.';
COMMENT ON COLUMN registry.pseudonym_key.fingerprint IS 'A pseudonym made with the key: equal under an equal key, and tells nothing of it.';
COMMENT ON COLUMN registry.pseudonym_key.known_since IS 'When a step that reads raw ids began for the first time.';

CREATE FUNCTION profiles.profile_as_of(
    wanted_user text, wanted_at timestamptz, wanted_shop text, recorded_until timestamptz
) RETURNS SETOF profiles.user_profile_history
LANGUAGE sql STABLE AS $$
    SELECT *
    FROM profiles.user_profile_history
    WHERE shop = wanted_shop AND user_id = wanted_user AND as_of <= wanted_at AND recorded_at <= recorded_until
    ORDER BY as_of DESC, recorded_at DESC
    LIMIT 1
$$;
COMMENT ON FUNCTION profiles.profile_as_of(text, timestamptz, text, timestamptz) IS 'The same from what was recorded by then: without events that came later, late ones and those of days that were run later. profile_as_of(user_id, timestamp, shop, timestamp).';
COMMENT ON FUNCTION profiles.profile_as_of(text, timestamptz, text) IS 'What is known today of a shopper at a moment, late events among it: profile_as_of(user_id, timestamp [, shop]); no row when nothing is. With a fourth argument: what was recorded by then.';

COMMENT ON COLUMN nearline.worker.worker IS 'Host, process id, and digits of its own.';
