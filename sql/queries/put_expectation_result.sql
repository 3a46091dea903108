-- Write down one finding of Great Expectations; an equal one keeps its time.
INSERT INTO quality.expectation_result AS known (shop, received_on, expectation, severity, is_met, observed)
VALUES (:shop, :received_on, :expectation, :severity, :is_met, :observed)
ON CONFLICT (shop, received_on, expectation) DO UPDATE SET
    severity = excluded.severity,
    is_met = excluded.is_met,
    observed = excluded.observed,
    recorded_at = now()
WHERE
    (known.severity, known.is_met, known.observed)
    IS DISTINCT FROM (excluded.severity, excluded.is_met, excluded.observed);
