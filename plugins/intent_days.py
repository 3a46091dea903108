"""Which day a run is about: decided here, once, for every DAG.

1. the day in the form, when a person gave one;
2. the run's partition key: the scheduled day, the backfilled day, or the day that came with an asset;
3. the logical date, which only runs started by hand or by API carry: the last day that was finished then.

The wall clock is never asked, so a run that waits, retries or is cleared next week is still about its own day.
"""

from datetime import date, timedelta
from typing import Any

from airflow.sdk import CronPartitionTimetable
from airflow.sdk.exceptions import AirflowFailException

KEY_FORMAT = "%Y-%m-%d"
"""Days travel between DAGs as asset partition keys of this form."""

DAY = "{{ run_day(dag_run, params) }}"
"""Template for a task's `day` argument; needs `user_defined_macros=MACROS` on the DAG."""


def run_day(dag_run: Any, params: Any) -> str:
    """The day, as YYYY-MM-DD, that `dag_run` is about."""
    if given := params.get("day"):
        return date.fromisoformat(given).isoformat()
    if dag_run.partition_key:
        return date.fromisoformat(dag_run.partition_key).isoformat()
    if dag_run.logical_date is None:
        raise AirflowFailException(  # another try would know no more
            f"Run {dag_run.run_id} of {dag_run.dag_id} is about no day: it has no partition key and no logical date. "
            "Give the day in the form (YYYY-MM-DD), or a partition key."
        )
    return (dag_run.logical_date.astimezone(_shop_zone()).date() - timedelta(days=1)).isoformat()


MACROS = {"run_day": run_day}


def daily_for_the_finished_day() -> CronPartitionTimetable:
    """At midnight in the shop's time zone, for the day that just ended; backfills name days, both ends included."""
    return CronPartitionTimetable("0 0 * * *", timezone=_shop_zone().key, run_offset=-1, key_format=KEY_FORMAT)


def newest_clean_day() -> str:
    """The newest day published in the lake: which profiles to refresh when a release changed and no day did."""
    from intent_platform.lake import Lake
    from intent_platform.settings import Settings

    settings = Settings.from_env()
    return Lake(settings.lake_root, settings.shop).snapshot().partitions("clean")[-1].removeprefix("day=")


def _shop_zone() -> Any:
    from intent_platform.settings import Settings

    return Settings.from_env().zone
