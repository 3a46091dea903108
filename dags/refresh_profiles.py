"""Score every shopper as of the end of a day, and bring the result into Postgres.

**When**: after each published day (`clean_events`), whether or not anything was trained; after another model or index
serves (`intent_model`, `item_index`); by form for any published day.

**What it does**: one time-ordered sequence per shopper; the release that serves scores all of them; one upsert brings
`profiles.user_profile`, its interests, recommendations and history forward.

**What it gives**: the asset `user_profiles`, keyed by the day.

**Order does not matter**: a refresh of an earlier day after a later one moves no profile backwards, and a rerun
changes no row.

The same by hand: `intent refresh 2026-08-21`.
"""

from datetime import date, timedelta

from airflow.sdk import Param, PartitionedAssetTimetable, dag, task
from intent_assets import CLEAN_EVENTS, INTENT_MODEL, ITEM_INDEX, USER_PROFILES
from intent_days import DAY, MACROS
from intent_retries import RETRY_WHAT_MAY_PASS


@dag(
    schedule=PartitionedAssetTimetable(assets=CLEAN_EVENTS | INTENT_MODEL | ITEM_INDEX),
    max_active_runs=1,
    description="Clean days → sequences → scores → profile rows in Postgres",
    doc_md=__doc__,
    tags=["intent", "daily", "profiles"],
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
            description="Profiles as of the end of this published day. Empty: the last finished one.",
        ),
    },
)
def refresh_profiles():
    @task(outlets=[USER_PROFILES])
    def refresh(day: str, *, outlet_events) -> None:
        from intent_platform import daily  # torch and faiss stay out of DAG parsing
        from intent_platform.priority import give_way
        from intent_platform.settings import Settings

        settings = Settings.from_env()
        give_way(settings.niceness)
        daily.build_sequences(date.fromisoformat(day), settings)
        daily.refresh_profiles(date.fromisoformat(day), settings)
        outlet_events[USER_PROFILES].add_partitions(day)

    refresh(DAY)


refresh_profiles()
