-- Whether a scorer was ever started for the shop, and so has states to be kept; or something waits for one.
SELECT
    EXISTS (SELECT 1 FROM nearline.seeded_day AS seeded WHERE seeded.shop = :shop)
    OR EXISTS (SELECT 1 FROM nearline.worker AS worker WHERE worker.shop = :shop)
    OR EXISTS (SELECT 1 FROM inbox.event AS event WHERE event.shop = :shop) AS is_used;
