-- Remove what was found in an earlier validation of a received day and is not judged any more.
DELETE FROM quality.expectation_result
WHERE shop = :shop AND received_on = :received_on AND expectation <> ALL(:kept);
