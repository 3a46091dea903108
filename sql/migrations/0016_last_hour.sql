-- What each scorer did lately, so that the rejected share is of the last hour; and comments that were not true.

ALTER TABLE nearline.worker ADD COLUMN recent_events bigint NOT NULL DEFAULT 0;
ALTER TABLE nearline.worker ADD COLUMN recent_rejected bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN nearline.worker.recent_events IS 'Of its events, those of the hour before its last beat, whole minutes.';
COMMENT ON COLUMN nearline.worker.recent_rejected IS 'Of those, rejected.';
COMMENT ON COLUMN nearline.worker.stopped_at IS 'When it ended in order, the batch at hand committed; NULL also where it ended with an error.';

COMMENT ON TABLE profiles.user_profile_history IS 'What was known, append-only: a row for each time a refresh changed a profile''s content, and of nearline moves the first of each shopper and hour. Ask it through profile_as_of.';
COMMENT ON COLUMN inbox.rejected.broken_rule IS 'The first rule it broke, as docs/contract.md explains them; event_id_missing; or not_scorable: none, but scoring it alone fails, and the scorer''s log says how.';
COMMENT ON COLUMN nearline.user_state.valid_at IS 'Moment up to which the profile was told when this row was written last; a refresh without a new event of the shopper moves the profile alone. NULL while the first event is on its way in.';
COMMENT ON COLUMN nearline.user_state.events IS 'What is remembered of the last INTENT_HISTORY_DAYS before valid_at: an Arrow record batch, compressed; schema in intent_platform/inbox/states.py.';
