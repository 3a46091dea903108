-- The newest refreshed day, if the nearline code was not compared with it since; nothing where no scorer ever ran.
SELECT refreshed.day
FROM profiles.refreshed_day AS refreshed
LEFT JOIN quality.parity AS parity ON refreshed.shop = parity.shop AND refreshed.day = parity.day
WHERE
    refreshed.shop = :shop
    AND refreshed.day = (SELECT max(newest.day) FROM profiles.refreshed_day AS newest WHERE newest.shop = :shop)
    AND coalesce(parity.checked_at < refreshed.finished_at, TRUE)
    AND EXISTS (SELECT 1 FROM nearline.worker AS worker WHERE worker.shop = :shop);
