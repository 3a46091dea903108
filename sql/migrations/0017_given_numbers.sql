-- Comments that were not true, or did not say enough.

COMMENT ON COLUMN inbox.event.seq IS 'Order of arrival; leave it out: under a number that is taken, an event is set aside.';
COMMENT ON TABLE inbox.seen_event IS 'Ids of accepted events, so that one that is put twice counts once. Kept until an event could no longer be late enough to come again, which then breaks occurred_outside_window, and as long as inbox.accepted has it.';
