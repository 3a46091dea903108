-- Note that user_state knows a day of the lake.
INSERT INTO nearline.seeded_day AS known (shop, day, inputs) VALUES (:shop, :day, :inputs)
ON CONFLICT (shop, day) DO UPDATE SET inputs = excluded.inputs WHERE known.inputs <> excluded.inputs;
