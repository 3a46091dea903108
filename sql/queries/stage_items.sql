-- Temporary table for COPY, shaped as profiles.item; gone when the transaction ends.
CREATE TEMPORARY TABLE staged_item (LIKE profiles.item) ON COMMIT DROP;
