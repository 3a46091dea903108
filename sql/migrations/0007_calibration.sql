-- Whether a probability means what it says: predicted against bought, bin by bin.
-- Written by: retrain; read by: analysts, the evaluation report.

CREATE TABLE registry.calibration (
    shop text NOT NULL,
    model_digest text NOT NULL,
    contender text NOT NULL,
    bin smallint NOT NULL CHECK (bin >= 1),
    predicted double precision NOT NULL CHECK (predicted BETWEEN 0 AND 1),
    bought double precision NOT NULL CHECK (bought BETWEEN 0 AND 1),
    examples bigint NOT NULL CHECK (examples > 0),
    PRIMARY KEY (shop, model_digest, contender, bin),
    FOREIGN KEY (shop, model_digest) REFERENCES registry.model ON DELETE CASCADE
);
COMMENT ON TABLE registry.calibration IS 'Reliability on the test days, right after each event: in each bin predicted and bought should be alike.';
COMMENT ON COLUMN registry.calibration.shop IS 'Which shop.';
COMMENT ON COLUMN registry.calibration.model_digest IS 'The model whose training this belongs to.';
COMMENT ON COLUMN registry.calibration.contender IS 'Whose probabilities: network, boosted_trees, logistic_regression, or champion.';
COMMENT ON COLUMN registry.calibration.bin IS 'From 1, the least likely; bins hold about equally many examples.';
COMMENT ON COLUMN registry.calibration.predicted IS 'Mean calibrated probability in the bin.';
COMMENT ON COLUMN registry.calibration.bought IS 'Share of the bin''s examples that were followed by a purchase within the horizon.';
COMMENT ON COLUMN registry.calibration.examples IS 'How many examples lie in the bin.';
