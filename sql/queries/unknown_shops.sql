-- Which of these shops nobody knows: no scorer was ever seen for them and no release serves them. Mistyped, or quite new.
SELECT given.shop
FROM unnest(cast(:shops AS text[])) AS given (shop)
WHERE
    NOT EXISTS (SELECT 1 FROM nearline.worker AS worker WHERE worker.shop = given.shop)
    AND NOT EXISTS (SELECT 1 FROM registry.promotion AS promotion WHERE promotion.shop = given.shop)
ORDER BY given.shop;
