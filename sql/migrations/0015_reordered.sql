-- Items that score the same may stand in either order: the parity check counts such shoppers apart.

ALTER TABLE quality.parity ADD COLUMN users_reordered bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN quality.parity.users_reordered IS 'Shoppers whose recommendations differ only in which of equally scored items comes first, or is the last shown: sums of many products end in other last digits in a batch of another size. A few of 100,000 are to be expected; more than one in 1,000 fails the check.';
