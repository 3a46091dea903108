-- More that may ship: items ranked by a blend of the network with session neighbours, rules and text; purchases scored by
-- logistic regression.
-- Read by: scoring; written by: retrain.

ALTER TABLE registry.model DROP CONSTRAINT model_item_scorer_check;
ALTER TABLE registry.model ADD CONSTRAINT model_item_scorer_check
CHECK (item_scorer IN ('popularity', 'network', 'blend'));
ALTER TABLE registry.model DROP CONSTRAINT model_purchase_scorer_check;
ALTER TABLE registry.model ADD CONSTRAINT model_purchase_scorer_check
CHECK (purchase_scorer IN ('none', 'network', 'boosted_trees', 'logistic_regression'));
COMMENT ON COLUMN registry.model.item_scorer IS 'What ranks items: popularity, network (next-item head), or blend (network, session neighbours, rules and text, weighted).';
COMMENT ON COLUMN registry.model.purchase_scorer IS 'What gives purchase_intent: network, boosted_trees, logistic_regression, or none.';
COMMENT ON COLUMN registry.evaluation.contender IS 'network, boosted_trees, logistic_regression, blend, vstan, sequential_rules, popularity, champion (the model that served), or constant (the share of buyers, the same for everyone).';
COMMENT ON COLUMN registry.evaluation.slice IS 'all: right after each event; day_end: at the midnights between events, as the daily refresh asks; new, returning: without, with an earlier session; after_N: right after a session''s N-th event; device=…, market=…, category=…: of the newest event.';
