-- Old releases leave the disk; what they were stays in the registry.
-- Read by: promote; written by: retrain, rebuild_item_index.

ALTER TABLE registry.release ADD COLUMN removed_at timestamptz;
ALTER TABLE registry.model ADD COLUMN removed_at timestamptz;
ALTER TABLE registry.item_index ADD COLUMN removed_at timestamptz;
COMMENT ON COLUMN registry.release.removed_at IS 'When its files were given up, because newer releases served since (INTENT_KEEP_RELEASES); NULL: it can be promoted.';
COMMENT ON COLUMN registry.model.removed_at IS 'When its folder was given up: no kept release names it; NULL: it is there.';
COMMENT ON COLUMN registry.item_index.removed_at IS 'When its folder was given up: no kept release names it; NULL: it is there.';
