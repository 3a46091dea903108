-- Lock waiting events that no other scorer has locked, in order of arrival.
-- Locks: the rows, until the transaction ends; nobody waits for them.
SELECT event.*
FROM inbox.event AS event
WHERE event.shop = :shop AND event.seq > :after
ORDER BY event.seq
LIMIT :most
FOR UPDATE SKIP LOCKED;
