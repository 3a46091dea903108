-- The weights of a shopper's kept categories sum to 1.
-- Must return no rows. A row names the shopper, with the sum.
SELECT shop, user_id, sum(weight) AS total_weight
FROM profiles.user_interest
GROUP BY shop, user_id
HAVING abs(sum(weight) - 1) > 0.000001
ORDER BY shop, user_id;
