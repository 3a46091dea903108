-- Items may be ranked by a blend of the network with session neighbours, rules and text.
-- Read by: scoring; written by: retrain.

ALTER TABLE registry.model DROP CONSTRAINT model_item_scorer_check;
ALTER TABLE registry.model ADD CONSTRAINT model_item_scorer_check
CHECK (item_scorer IN ('popularity', 'network', 'blend'));
COMMENT ON COLUMN registry.model.item_scorer IS 'What ranks items: popularity, network (next-item head), or blend (network, session neighbours, rules and text, weighted).';
