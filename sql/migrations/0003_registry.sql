-- What was trained, how it was judged, which release serves: models, evaluations, decisions, indices, releases, promotions.
-- Written by: retrain_classifier, rebuild_item_index, promote_release; read by: everything that scores, analysts, the platform's page.

CREATE SCHEMA registry;
COMMENT ON SCHEMA registry IS 'Models, their evaluation and approval, item indices, releases, and the pointer to the release that serves.';

CREATE TABLE registry.model (
    shop text NOT NULL,
    model_digest text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('bootstrap', 'trained')),
    purchase_scorer text NOT NULL CHECK (purchase_scorer IN ('none', 'network', 'boosted_trees')),
    item_scorer text NOT NULL CHECK (item_scorer IN ('popularity', 'network')),
    trained_from date,
    trained_until date NOT NULL,
    training_seed bigint,
    training_settings jsonb NOT NULL,
    data_digests jsonb NOT NULL,
    report text,
    trained_at timestamptz NOT NULL,
    PRIMARY KEY (shop, model_digest)
);
COMMENT ON TABLE registry.model IS 'One row per model folder model/<digest>: what it is and what it was trained on.';
COMMENT ON COLUMN registry.model.shop IS 'Which shop.';
COMMENT ON COLUMN registry.model.model_digest IS 'SHA-256 of the folder''s files; the folder''s name.';
COMMENT ON COLUMN registry.model.kind IS 'bootstrap: popularity and text, no trained part; trained: fitted on labels.';
COMMENT ON COLUMN registry.model.purchase_scorer IS 'What gives purchase_intent: network, boosted_trees, or none.';
COMMENT ON COLUMN registry.model.item_scorer IS 'What ranks items: network (next-item head) or popularity.';
COMMENT ON COLUMN registry.model.trained_from IS 'First day of events that was trained on.';
COMMENT ON COLUMN registry.model.trained_until IS 'Newest day of events that was looked at; training is due again some days after it.';
COMMENT ON COLUMN registry.model.training_seed IS 'Start of the random generators.';
COMMENT ON COLUMN registry.model.training_settings IS 'Settings that shaped the training.';
COMMENT ON COLUMN registry.model.data_digests IS 'Content digest of each day of events that was used.';
COMMENT ON COLUMN registry.model.report IS 'Where the evaluation report (HTML) lies.';
COMMENT ON COLUMN registry.model.trained_at IS 'When the training ended.';

CREATE TABLE registry.evaluation (
    shop text NOT NULL,
    model_digest text NOT NULL,
    contender text NOT NULL,
    slice text NOT NULL DEFAULT 'all',
    metric text NOT NULL,
    value double precision NOT NULL,
    low double precision,
    high double precision,
    examples bigint NOT NULL,
    PRIMARY KEY (shop, model_digest, contender, slice, metric),
    FOREIGN KEY (shop, model_digest) REFERENCES registry.model ON DELETE CASCADE
);
COMMENT ON TABLE registry.evaluation IS 'How a model and its opponents did on the same test days; one row per contender, slice and metric.';
COMMENT ON COLUMN registry.evaluation.shop IS 'Which shop.';
COMMENT ON COLUMN registry.evaluation.model_digest IS 'The model whose training this evaluation belongs to.';
COMMENT ON COLUMN registry.evaluation.contender IS 'network, boosted_trees, popularity, or constant (the share of buyers, the same for everyone).';
COMMENT ON COLUMN registry.evaluation.slice IS 'all: right after each event; day_end: at the midnights between events, as the daily refresh asks.';
COMMENT ON COLUMN registry.evaluation.metric IS 'roc_auc, pr_auc, log_loss, calibration_error, recall_at_20 or mrr_at_20.';
COMMENT ON COLUMN registry.evaluation.value IS 'On all examples.';
COMMENT ON COLUMN registry.evaluation.low IS 'Lower end of the 95 % bootstrap interval, shoppers resampled.';
COMMENT ON COLUMN registry.evaluation.high IS 'Upper end of it.';
COMMENT ON COLUMN registry.evaluation.examples IS 'How many test examples.';

CREATE TABLE registry.decision (
    shop text NOT NULL,
    model_digest text NOT NULL,
    decided_at timestamptz NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('approved', 'refused')),
    reasons jsonb NOT NULL,
    decided_by text NOT NULL,
    PRIMARY KEY (shop, model_digest, decided_at),
    FOREIGN KEY (shop, model_digest) REFERENCES registry.model ON DELETE CASCADE
);
COMMENT ON TABLE registry.decision IS 'Whether a model may be named by a release, and why; the newest row of a model counts.';
COMMENT ON COLUMN registry.decision.shop IS 'Which shop.';
COMMENT ON COLUMN registry.decision.model_digest IS 'Which model.';
COMMENT ON COLUMN registry.decision.decided_at IS 'When.';
COMMENT ON COLUMN registry.decision.verdict IS 'approved or refused.';
COMMENT ON COLUMN registry.decision.reasons IS 'List of sentences.';
COMMENT ON COLUMN registry.decision.decided_by IS 'gate, or a person''s name.';

CREATE TABLE registry.item_index (
    shop text NOT NULL,
    index_digest text NOT NULL,
    model_digest text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('flat', 'ivf')),
    items bigint NOT NULL,
    dimensions integer NOT NULL,
    recall_at_20 double precision NOT NULL CHECK (recall_at_20 BETWEEN 0 AND 1),
    unavailable_ratio double precision NOT NULL,
    build_seconds double precision NOT NULL,
    bytes bigint NOT NULL,
    is_published boolean NOT NULL,
    built_at timestamptz NOT NULL,
    PRIMARY KEY (shop, index_digest),
    FOREIGN KEY (shop, model_digest) REFERENCES registry.model ON DELETE CASCADE
);
COMMENT ON TABLE registry.item_index IS 'One row per built index: its measured recall, and whether that was enough to publish it as index/<digest>.';
COMMENT ON COLUMN registry.item_index.shop IS 'Which shop.';
COMMENT ON COLUMN registry.item_index.index_digest IS 'SHA-256 of the folder''s files; the folder''s name.';
COMMENT ON COLUMN registry.item_index.model_digest IS 'Model that made the item vectors.';
COMMENT ON COLUMN registry.item_index.kind IS 'flat (exact) or ivf.';
COMMENT ON COLUMN registry.item_index.items IS 'Items in the index.';
COMMENT ON COLUMN registry.item_index.dimensions IS 'Length of an item vector.';
COMMENT ON COLUMN registry.item_index.recall_at_20 IS 'Share of the exact 20 nearest items that the index finds, on sampled queries.';
COMMENT ON COLUMN registry.item_index.unavailable_ratio IS 'Share of items that could not be bought when it was built; availability is filtered when asked.';
COMMENT ON COLUMN registry.item_index.build_seconds IS 'Time that training and filling the index took.';
COMMENT ON COLUMN registry.item_index.bytes IS 'Size of the folder.';
COMMENT ON COLUMN registry.item_index.is_published IS 'False: recall was below the floor, and the index before it stays.';
COMMENT ON COLUMN registry.item_index.built_at IS 'When.';

CREATE TABLE registry.release (
    shop text NOT NULL,
    release_id text NOT NULL,
    model_digest text NOT NULL,
    index_digest text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (shop, release_id),
    FOREIGN KEY (shop, model_digest) REFERENCES registry.model,
    FOREIGN KEY (shop, index_digest) REFERENCES registry.item_index
);
COMMENT ON TABLE registry.release IS 'A model and an index that serve together; only approved models and published indices are named.';
COMMENT ON COLUMN registry.release.shop IS 'Which shop.';
COMMENT ON COLUMN registry.release.release_id IS 'Kind and the first digits of both digests; the same parts are the same release.';
COMMENT ON COLUMN registry.release.model_digest IS 'Its model.';
COMMENT ON COLUMN registry.release.index_digest IS 'Its index.';
COMMENT ON COLUMN registry.release.created_at IS 'When its manifest was first written.';

CREATE TABLE registry.promotion (
    shop text NOT NULL,
    promotion_number bigint NOT NULL CHECK (promotion_number >= 1),
    release_id text NOT NULL,
    reason text NOT NULL,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (shop, promotion_number),
    FOREIGN KEY (shop, release_id) REFERENCES registry.release
);
COMMENT ON TABLE registry.promotion IS 'Append-only. The row with a shop''s highest number is the one pointer to what serves; a rollback is a new row.';
COMMENT ON COLUMN registry.promotion.shop IS 'Which shop.';
COMMENT ON COLUMN registry.promotion.promotion_number IS 'Counts up by one per shop.';
COMMENT ON COLUMN registry.promotion.release_id IS 'What serves from here on.';
COMMENT ON COLUMN registry.promotion.reason IS 'Why, in a sentence.';
COMMENT ON COLUMN registry.promotion.decided_by IS 'gate, a step''s name, or a person''s name.';
COMMENT ON COLUMN registry.promotion.decided_at IS 'When.';
