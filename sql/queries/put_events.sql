-- Put one event or many into the inbox; return how many.
SELECT inbox.put(CAST(:events AS jsonb)) AS taken;
