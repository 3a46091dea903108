-- Which days of the lake user_state knows.
SELECT
    seeded.day,
    seeded.inputs
FROM nearline.seeded_day AS seeded
WHERE seeded.shop = :shop;
