-- What an index's passport says more: of searches, of exactness, of age, and whose training it lives on. One origin more.
-- Written by: publish_index; read by: analysts, the platform's page.
-- Locks:  registry.item_index, for as long as its few rows take.

ALTER TABLE registry.item_index DROP CONSTRAINT item_index_kind_check;
UPDATE registry.item_index SET kind = 'lists' WHERE kind = 'ivf';
ALTER TABLE registry.item_index
    ADD CONSTRAINT item_index_kind_check CHECK (kind IN ('flat', 'lists', 'codes')),
    ADD COLUMN text_kind text CHECK (text_kind IN ('flat', 'lists', 'codes')),
    ADD COLUMN text_recall_at_20 double precision CHECK (text_recall_at_20 BETWEEN 0 AND 1),
    ADD COLUMN score_error double precision,
    ADD COLUMN questions bigint,
    ADD COLUMN text_questions bigint,
    ADD COLUMN is_trained boolean,
    ADD COLUMN orphans bigint,
    ADD COLUMN catalogue_until timestamptz,
    ADD COLUMN demand_until date;

COMMENT ON COLUMN registry.item_index.kind IS 'flat (exact), lists (short codes in inverted lists) or codes (all short codes are scanned).';
COMMENT ON COLUMN registry.item_index.text_kind IS 'The same of the index over text vectors.';
COMMENT ON COLUMN registry.item_index.recall_at_20 IS 'Share of the exact 20 nearest items that the index finds for a sample of shoppers'' vectors.';
COMMENT ON COLUMN registry.item_index.text_recall_at_20 IS 'The same for a sample of searches.';
COMMENT ON COLUMN registry.item_index.score_error IS 'Largest difference of a score from the exact dot product, in that sample.';
COMMENT ON COLUMN registry.item_index.questions IS 'Shoppers in that sample; 0: none were there yet, and mixtures of items stood in for them.';
COMMENT ON COLUMN registry.item_index.text_questions IS 'Searches in that sample, likewise.';
COMMENT ON COLUMN registry.item_index.is_trained IS 'False: it lives on codes and lists of the index before; true: its own, or exact.';
COMMENT ON COLUMN registry.item_index.orphans IS 'Items in it that only events name, no catalogue.';
COMMENT ON COLUMN registry.item_index.catalogue_until IS 'Newest change among its items.';
COMMENT ON COLUMN registry.item_index.demand_until IS 'Newest day that its popularity counts.';

COMMENT ON COLUMN profiles.user_recommendation.origin IS 'Where the candidate came from: next_item, popular, recent, text or again (a consumable that is due).';
