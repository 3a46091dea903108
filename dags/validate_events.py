"""Turn a day's raw event file into a published clean day.

**When**: every midnight in the shop's time zone (`INTENT_TIME_ZONE`), for the day that just ended. By form for any day.
Backfill this DAG and no other: each published day starts `refresh_profiles` and `retrain_classifier` as itself.

**What it does**: waits for the files (`INTENT_EVENTS_PATH`, looked at every five minutes for up to twelve hours);
accounts for every row as accepted, quarantined or duplicate; publishes the clean day whole, or refuses it and leaves
what was published before. Beside that it loads the catalogue, when the file is another one than last time.

**What it gives**: the assets `clean_events` and, with a new catalogue, `catalogue`; both keyed by the day.

**When it fails**: the message says how many rows broke which rule and where they are. Fix the file, or allow more bad
rows in the form, and run the day again: a rerun counts nothing twice.

The same by hand: `intent day 2026-08-21 --source NAME --path FILE`.
"""

from datetime import date, timedelta

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from intent_assets import CATALOGUE, CLEAN_EVENTS
from intent_days import DAY, MACROS, daily_for_the_finished_day
from intent_files import WaitForFiles
from intent_retries import RETRY_WHAT_MAY_PASS


@dag(
    schedule=daily_for_the_finished_day(),
    catchup=False,
    max_active_runs=1,
    description="Raw event file → every row accounted for → clean day",
    doc_md=__doc__,
    tags=["intent", "daily", "intake"],
    user_defined_macros=MACROS,
    default_args={
        "owner": "intent-platform",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "retry_policy": RETRY_WHAT_MAY_PASS,
        "execution_timeout": timedelta(hours=2),
    },
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day",
            description="Day to validate, in the shop's time zone. Empty: the last finished one.",
        ),
        "source": Param(
            None,
            type=["null", "string"],
            title="Source",
            description="Mapping of the shop's own columns and words: sources/NAME.toml. Empty: INTENT_SOURCE.",
        ),
        "path": Param(
            None,
            type=["null", "string"],
            title="File or folder",
            description="Local path or s3://… address; {day} in it stands for the day. Empty: INTENT_EVENTS_PATH.",
        ),
        "max_rejected_ratio": Param(
            None,
            type=["null", "number"],
            minimum=0,
            exclusiveMaximum=1,
            title="Allowed share of bad rows",
            description="Above it the day is refused; 0.05 means 5 %. Empty: INTENT_MAX_REJECTED_RATIO.",
        ),
    },
)
def validate_events():
    wait_for_files = WaitForFiles(
        task_id="wait_for_files",
        day=DAY,
        path="{{ params.path or '' }}",
        poke_interval=timedelta(minutes=5).total_seconds(),
        timeout=timedelta(hours=12).total_seconds(),
    )

    @task(outlets=[CLEAN_EVENTS])
    def validate(day: str, *, params, outlet_events) -> None:
        from intent_platform import daily  # torch and faiss stay out of DAG parsing
        from intent_platform.settings import Settings

        form = {name: params[name] for name in ("source", "path", "max_rejected_ratio")}
        daily.validate_events(date.fromisoformat(day), Settings.from_env(), **form)
        outlet_events[CLEAN_EVENTS].add_partitions(day)

    @task(outlets=[CATALOGUE])
    def load_catalogue(day: str, *, outlet_events) -> None:
        from intent_platform import daily
        from intent_platform.settings import Settings

        settings = Settings.from_env()
        if not settings.catalogue_path:
            raise AirflowSkipException("INTENT_CATALOGUE_PATH is not set; items are known from events alone.")
        if not daily.load_catalogue(settings).is_new:
            raise AirflowSkipException("The catalogue holds nothing that is not known already.")
        outlet_events[CATALOGUE].add_partitions(day)

    wait_for_files >> validate(DAY) >> load_catalogue(DAY)


validate_events()
