-- What people query: profiles, their satellites and history, the catalogue.
-- Written by: refresh_profiles (batch) and the nearline scorer, through the same upsert; by catalogue intake.

CREATE SCHEMA profiles;
COMMENT ON SCHEMA profiles IS 'What is known about each shopper now, what was known earlier, and the items it speaks of. Made for SQL; see docs/sql-cookbook.md.';

CREATE TABLE profiles.item (
    shop text NOT NULL,
    item_id text NOT NULL,
    title text,
    description text,
    category text,
    brand text,
    price double precision,
    currency text,
    is_available boolean NOT NULL,
    is_stub boolean NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (shop, item_id)
);
COMMENT ON TABLE profiles.item IS 'The catalogue, one row per item, newest state.';
COMMENT ON COLUMN profiles.item.shop IS 'Which shop sells it.';
COMMENT ON COLUMN profiles.item.item_id IS 'The shop''s own id.';
COMMENT ON COLUMN profiles.item.title IS 'Title as the shop writes it; NULL for a stub.';
COMMENT ON COLUMN profiles.item.description IS 'Description as the shop writes it.';
COMMENT ON COLUMN profiles.item.category IS 'Path from the department down, parts joined by dots: electronics.audio.headphones.';
COMMENT ON COLUMN profiles.item.brand IS 'Brand.';
COMMENT ON COLUMN profiles.item.price IS 'Price of one piece, in currency.';
COMMENT ON COLUMN profiles.item.currency IS 'ISO 4217 code.';
COMMENT ON COLUMN profiles.item.is_available IS 'Whether it can be bought now; recommendations show only such items.';
COMMENT ON COLUMN profiles.item.is_stub IS 'True: seen in events only, not yet in a catalogue file.';
COMMENT ON COLUMN profiles.item.updated_at IS 'When the shop last changed it, or when an event last showed it.';

CREATE TABLE profiles.user_profile (
    shop text NOT NULL,
    user_id text NOT NULL,
    last_event_at timestamptz NOT NULL,
    last_event_type text NOT NULL,
    events_1d integer NOT NULL,
    events_7d integer NOT NULL,
    events_30d integer NOT NULL,
    views_7d integer NOT NULL,
    searches_7d integer NOT NULL,
    add_to_carts_7d integer NOT NULL,
    purchases_30d integer NOT NULL,
    spent_30d double precision NOT NULL,
    spent_currency text,
    purchase_intent double precision CHECK (purchase_intent BETWEEN 0 AND 1),
    intent_missing_reason text,
    intent_band text NOT NULL CHECK (intent_band IN ('hot', 'warm', 'cool', 'unknown')),
    horizon_hours integer NOT NULL,
    top_categories jsonb NOT NULL,
    price_low double precision,
    price_high double precision,
    price_currency text,
    recommended_items jsonb NOT NULL,
    valid_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    scored_at timestamptz NOT NULL,
    source text NOT NULL CHECK (source IN ('batch', 'nearline')),
    release_id text NOT NULL,
    promotion_number bigint NOT NULL,
    input_watermark timestamptz NOT NULL,
    content_digest text NOT NULL,
    PRIMARY KEY (shop, user_id),
    CONSTRAINT missing_intent_has_a_reason CHECK ((purchase_intent IS NULL) = (intent_missing_reason IS NOT NULL))
) WITH (fillfactor = 70);
COMMENT ON TABLE profiles.user_profile IS 'One row per shopper: what they did lately, what they are about to buy. Moves forward only, by (input_watermark, promotion_number).';
COMMENT ON COLUMN profiles.user_profile.shop IS 'Which shop.';
COMMENT ON COLUMN profiles.user_profile.user_id IS 'Keyed pseudonym (u<key version>_…), or of an anonymous visitor (a<key version>_…); never a raw id.';
COMMENT ON COLUMN profiles.user_profile.last_event_at IS 'When the newest known event happened, by the shopper''s clock.';
COMMENT ON COLUMN profiles.user_profile.last_event_type IS 'Kind of that event.';
COMMENT ON COLUMN profiles.user_profile.events_1d IS 'Events in the 24 hours up to valid_at.';
COMMENT ON COLUMN profiles.user_profile.events_7d IS 'Events in the 7 days up to valid_at.';
COMMENT ON COLUMN profiles.user_profile.events_30d IS 'Events in the 30 days up to valid_at.';
COMMENT ON COLUMN profiles.user_profile.views_7d IS 'Item views in 7 days.';
COMMENT ON COLUMN profiles.user_profile.searches_7d IS 'Searches in 7 days.';
COMMENT ON COLUMN profiles.user_profile.add_to_carts_7d IS 'Items put into the cart in 7 days.';
COMMENT ON COLUMN profiles.user_profile.purchases_30d IS 'Purchased order lines in 30 days.';
COMMENT ON COLUMN profiles.user_profile.spent_30d IS 'Money spent in 30 days, in spent_currency only: currencies are never summed together.';
COMMENT ON COLUMN profiles.user_profile.spent_currency IS 'The currency in which this shopper bought most often; NULL when nothing was bought or the log has no currency.';
COMMENT ON COLUMN profiles.user_profile.purchase_intent IS 'Calibrated probability that the shopper buys something within horizon_hours after valid_at.';
COMMENT ON COLUMN profiles.user_profile.intent_missing_reason IS 'Why purchase_intent is NULL; NULL when it is known.';
COMMENT ON COLUMN profiles.user_profile.intent_band IS 'hot (0.5 and more), warm (0.2 and more), cool, or unknown.';
COMMENT ON COLUMN profiles.user_profile.horizon_hours IS 'Hours that purchase_intent looks ahead.';
COMMENT ON COLUMN profiles.user_profile.top_categories IS 'Up to five [{"category", "weight"}], weightiest first; the same as user_interest.';
COMMENT ON COLUMN profiles.user_profile.price_low IS 'Lower quartile of prices looked at lately, in price_currency.';
COMMENT ON COLUMN profiles.user_profile.price_high IS 'Upper quartile of prices looked at lately.';
COMMENT ON COLUMN profiles.user_profile.price_currency IS 'Currency of the price range.';
COMMENT ON COLUMN profiles.user_profile.recommended_items IS '[{"item_id", "score"}], best first; the same as user_recommendation.';
COMMENT ON COLUMN profiles.user_profile.valid_at IS 'The moment the row speaks of: all windows end here.';
COMMENT ON COLUMN profiles.user_profile.expires_at IS 'From here on purchase_intent says nothing any more: in a live shop ask for expires_at > now().';
COMMENT ON COLUMN profiles.user_profile.scored_at IS 'Logical time of the run that wrote the row.';
COMMENT ON COLUMN profiles.user_profile.source IS 'batch (daily refresh) or nearline (scorer).';
COMMENT ON COLUMN profiles.user_profile.release_id IS 'Release that scored it; registry.release tells what it is made of.';
COMMENT ON COLUMN profiles.user_profile.promotion_number IS 'Promotion under which it was scored; a rollback has a higher number and so wins.';
COMMENT ON COLUMN profiles.user_profile.input_watermark IS 'Everything published up to here was taken into account.';
COMMENT ON COLUMN profiles.user_profile.content_digest IS 'Digest of what a reader would call the profile''s content; equal digests are not written to the history twice.';

CREATE INDEX user_profile_by_intent ON profiles.user_profile (shop, purchase_intent DESC NULLS LAST);

CREATE TABLE profiles.user_interest (
    shop text NOT NULL,
    user_id text NOT NULL,
    rank smallint NOT NULL CHECK (rank >= 1),
    category text NOT NULL,
    weight double precision NOT NULL,
    last_seen_at timestamptz NOT NULL,
    PRIMARY KEY (shop, user_id, rank),
    FOREIGN KEY (shop, user_id) REFERENCES profiles.user_profile ON DELETE CASCADE
);
COMMENT ON TABLE profiles.user_interest IS 'A shopper''s categories by attention, recent attention counting more.';
COMMENT ON COLUMN profiles.user_interest.shop IS 'Which shop.';
COMMENT ON COLUMN profiles.user_interest.user_id IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_interest.rank IS '1 is the strongest.';
COMMENT ON COLUMN profiles.user_interest.category IS 'Category path.';
COMMENT ON COLUMN profiles.user_interest.weight IS 'Share of the shopper''s attention; the kept categories sum to 1.';
COMMENT ON COLUMN profiles.user_interest.last_seen_at IS 'When the shopper last touched the category.';
CREATE INDEX user_interest_by_category ON profiles.user_interest (shop, category);

CREATE TABLE profiles.user_recommendation (
    shop text NOT NULL,
    user_id text NOT NULL,
    rank smallint NOT NULL CHECK (rank >= 1),
    item_id text NOT NULL,
    score double precision NOT NULL,
    origin text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (shop, user_id, rank),
    FOREIGN KEY (shop, user_id) REFERENCES profiles.user_profile ON DELETE CASCADE
);
COMMENT ON TABLE profiles.user_recommendation IS 'Items to show a shopper, best first.';
COMMENT ON COLUMN profiles.user_recommendation.shop IS 'Which shop.';
COMMENT ON COLUMN profiles.user_recommendation.user_id IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_recommendation.rank IS '1 is the best.';
COMMENT ON COLUMN profiles.user_recommendation.item_id IS 'As in item.';
COMMENT ON COLUMN profiles.user_recommendation.score IS 'The origin''s own score; comparable within a shopper''s rows of one origin.';
COMMENT ON COLUMN profiles.user_recommendation.origin IS 'Where the candidate came from: next_item, popular, recent or text.';
COMMENT ON COLUMN profiles.user_recommendation.reason IS 'A short reason a person can read.';
CREATE INDEX user_recommendation_by_item ON profiles.user_recommendation (shop, item_id);

CREATE TABLE profiles.user_profile_history (
    shop text NOT NULL,
    user_id text NOT NULL,
    as_of timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    purchase_intent double precision,
    intent_missing_reason text,
    intent_band text NOT NULL,
    last_event_at timestamptz NOT NULL,
    events_7d integer NOT NULL,
    add_to_carts_7d integer NOT NULL,
    purchases_30d integer NOT NULL,
    spent_30d double precision NOT NULL,
    spent_currency text,
    top_categories jsonb NOT NULL,
    recommended_items jsonb NOT NULL,
    source text NOT NULL,
    release_id text NOT NULL,
    promotion_number bigint NOT NULL,
    content_digest text NOT NULL,
    PRIMARY KEY (shop, user_id, as_of, recorded_at)
);
COMMENT ON TABLE profiles.user_profile_history IS 'What was known, append-only: a row for each time a profile''s content changed. Ask it through profile_as_of.';
COMMENT ON COLUMN profiles.user_profile_history.shop IS 'Which shop.';
COMMENT ON COLUMN profiles.user_profile_history.user_id IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.as_of IS 'valid_at of the profile: from here on this was known.';
COMMENT ON COLUMN profiles.user_profile_history.recorded_at IS 'When it was written; a later row for the same as_of corrects an earlier one.';
COMMENT ON COLUMN profiles.user_profile_history.purchase_intent IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.intent_missing_reason IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.intent_band IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.last_event_at IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.events_7d IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.add_to_carts_7d IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.purchases_30d IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.spent_30d IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.spent_currency IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.top_categories IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.recommended_items IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.source IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.release_id IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.promotion_number IS 'As in user_profile.';
COMMENT ON COLUMN profiles.user_profile_history.content_digest IS 'As in user_profile.';

CREATE FUNCTION profiles.profile_as_of(
    wanted_user text, wanted_at timestamptz, wanted_shop text DEFAULT 'main'
) RETURNS SETOF profiles.user_profile_history
LANGUAGE sql STABLE AS $$
    SELECT *
    FROM profiles.user_profile_history
    WHERE shop = wanted_shop AND user_id = wanted_user AND as_of <= wanted_at
    ORDER BY as_of DESC, recorded_at DESC
    LIMIT 1
$$;
COMMENT ON FUNCTION profiles.profile_as_of IS 'What was known about a shopper at a moment: profile_as_of(user_id, timestamp [, shop]); no row when nothing was.';

CREATE TABLE profiles.refreshed_day (
    shop text NOT NULL,
    day date NOT NULL,
    release_id text NOT NULL,
    promotion_number bigint NOT NULL,
    users bigint NOT NULL,
    rows_changed bigint NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop, day)
);
COMMENT ON TABLE profiles.refreshed_day IS 'Marker at the end of each daily refresh: the day is in the profiles, whole.';
COMMENT ON COLUMN profiles.refreshed_day.shop IS 'Which shop.';
COMMENT ON COLUMN profiles.refreshed_day.day IS 'Newest day of events taken into account.';
COMMENT ON COLUMN profiles.refreshed_day.release_id IS 'Release that scored.';
COMMENT ON COLUMN profiles.refreshed_day.promotion_number IS 'Its promotion.';
COMMENT ON COLUMN profiles.refreshed_day.users IS 'Shoppers scored.';
COMMENT ON COLUMN profiles.refreshed_day.rows_changed IS 'Profile rows that the last refresh of the day changed; 0 when it was a rerun.';
COMMENT ON COLUMN profiles.refreshed_day.finished_at IS 'When the marker was written.';

CREATE VIEW profiles.hot_shopper AS
SELECT
    profile.shop, profile.user_id, profile.purchase_intent, profile.intent_band, profile.last_event_at,
    profile.last_event_type, profile.add_to_carts_7d, profile.purchases_30d, interest.category AS top_category,
    profile.valid_at, profile.expires_at
FROM profiles.user_profile AS profile
LEFT JOIN profiles.user_interest AS interest
    ON profile.shop = interest.shop AND profile.user_id = interest.user_id AND interest.rank = 1
WHERE profile.intent_band IN ('hot', 'warm')
    AND profile.valid_at >= (SELECT max(newest.valid_at) - interval '24 hours' FROM profiles.user_profile AS newest WHERE newest.shop = profile.shop)
ORDER BY profile.purchase_intent DESC;
COMMENT ON VIEW profiles.hot_shopper IS 'Shoppers likely to buy, as of the newest day that was scored, likeliest first. Add `expires_at > now()` for a live shop.';

CREATE VIEW profiles.category_demand AS
SELECT
    profile.shop, interest.category, count(*) AS shoppers, count(profile.purchase_intent) AS scored_shoppers,
    sum(profile.purchase_intent * interest.weight) AS expected_buyers
FROM profiles.user_profile AS profile
INNER JOIN profiles.user_interest AS interest ON profile.shop = interest.shop AND profile.user_id = interest.user_id
WHERE profile.valid_at >= (SELECT max(newest.valid_at) - interval '24 hours' FROM profiles.user_profile AS newest WHERE newest.shop = profile.shop)
GROUP BY profile.shop, interest.category;
COMMENT ON VIEW profiles.category_demand IS 'How many shoppers attend to a category, and how many of them are expected to buy in it within the horizon.';

CREATE VIEW profiles.funnel_by_day AS
SELECT
    shop, day,
    coalesce(sum(users) FILTER (WHERE event_type = 'view'), 0) AS viewers,
    coalesce(sum(users) FILTER (WHERE event_type = 'search'), 0) AS searchers,
    coalesce(sum(users) FILTER (WHERE event_type = 'add_to_cart'), 0) AS cart_users,
    coalesce(sum(users) FILTER (WHERE event_type = 'purchase'), 0) AS buyers,
    round(
        coalesce(sum(users) FILTER (WHERE event_type = 'purchase'), 0)
        / nullif(sum(users) FILTER (WHERE event_type = 'view'), 0), 4
    ) AS buyer_ratio
FROM quality.event_count
GROUP BY shop, day;
COMMENT ON VIEW profiles.funnel_by_day IS 'Shoppers who viewed, searched, filled a cart and bought, by day; buyer_ratio is buyers per viewer.';
