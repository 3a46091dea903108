-- Shops of which events wait, though no scorer was ever seen for them and no release serves them: mistyped, or quite new.
-- Reads:  inbox.event, all of it; nearline.worker, registry.promotion.
SELECT DISTINCT event.shop
FROM inbox.event AS event
WHERE
    NOT EXISTS (SELECT 1 FROM nearline.worker AS worker WHERE worker.shop = event.shop)
    AND NOT EXISTS (SELECT 1 FROM registry.promotion AS promotion WHERE promotion.shop = event.shop)
ORDER BY event.shop;
