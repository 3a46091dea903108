-- Count the events and shoppers of one kind on one clean day.
INSERT INTO quality.event_count (shop, day, event_type, events, users)
VALUES (:shop, :day, :event_type, :events, :users);
