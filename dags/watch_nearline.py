"""Look after the nearline door: what waits in the inbox, who scores it, how much is rejected.

**When**: every five minutes. Skipped for a shop that does not use the inbox.

**What it does**: fails, and so alerts, when events wait longer than `INTENT_NEARLINE_MAX_LAG_S`, when a scorer went
silent, or when more than `INTENT_MAX_REJECTED_RATIO` of the last hour's events were rejected. When events wait and no
scorer is alive it scores them itself, once. It forgets ids and rows that were kept long enough. Each newly refreshed
day is replayed through the scorer's code, out of order and partly twice; a profile that differs from the batch's fails
the task.

**What it gives**: nothing but its verdicts; the figures are in `nearline.worker` and `quality.parity`.

The same by hand: `intent watch`, `intent parity 2026-08-21`.
"""

from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.timetables.trigger import CronTriggerTimetable
from intent_retries import RETRY_WHAT_MAY_PASS


@dag(
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    description="Lag, backlog, rejected share and dead scorers of the inbox",
    doc_md=__doc__,
    tags=["intent", "nearline"],
    default_args={
        "owner": "intent-platform",
        "retries": 1,
        "retry_delay": timedelta(minutes=1),
        "retry_policy": RETRY_WHAT_MAY_PASS,
        "execution_timeout": timedelta(hours=1),
    },
)
def watch_nearline():
    @task
    def watch() -> None:
        from datetime import UTC, datetime

        from intent_platform import watching  # torch and faiss stay out of DAG parsing
        from intent_platform.settings import Settings

        settings = Settings.from_env()
        if not watching.is_used(settings):
            raise AirflowSkipException("Nothing ever came through the inbox of this shop.")
        watching.watch(settings, datetime.now(UTC))

    @task
    def compare() -> None:
        from intent_platform import parity
        from intent_platform.settings import Settings

        settings = Settings.from_env()
        day = parity.day_to_check(settings)
        if day is None:
            raise AirflowSkipException("No day was refreshed since the last comparison, or no scorer was ever started.")
        parity.check_parity(day, settings)

    watch()
    compare()


watch_nearline()
