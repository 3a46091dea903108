-- What content_digest is made of now: comments only. Profiles told before are told once more, and so is their history.

COMMENT ON COLUMN profiles.user_profile.content_digest IS 'Three digests of 16 hex digits, joined by -: of the profile, of its rows in user_interest, of its rows in user_recommendation. What is equal is not written again; empty it, and the next refresh puts all rows of the shopper right.';
COMMENT ON COLUMN profiles.user_profile_history.content_digest IS 'The first of the three digests in user_profile; what is equal is not written twice.';
