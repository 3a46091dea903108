-- End the transactions of scorers that were stopped in the middle of a message: while reading an answer, or in a COPY.
-- Their events wait again. Postgres' own limits end only who is idle between two statements.
-- Whoever holds RowShareLock on inbox.event has claimed events; a backend that puts some holds another lock.
SELECT
    activity.pid,
    pg_terminate_backend(activity.pid) AS is_ended
FROM pg_stat_activity AS activity
INNER JOIN pg_locks AS held ON activity.pid = held.pid
WHERE
    activity.datname = current_database() AND activity.usename = current_user
    AND activity.state = 'active' AND activity.wait_event IN ('ClientRead', 'ClientWrite')
    AND activity.query_start < clock_timestamp() - make_interval(secs => cast(:seconds AS double precision))
    AND held.relation = 'inbox.event'::regclass AND held.mode = 'RowShareLock' AND held.granted;
