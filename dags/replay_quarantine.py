"""Bring quarantined rows of a day in again, after the rule or the mapping that refused them was mended.

**When**: by form only.

**What it does**: unseals the day's quarantined rows, reads them again with today's mapping and rules, and lets those
that are good now in, exactly once; the others stay in quarantine. The days that they belong to are published anew.

**What it gives**: the asset `clean_events` for each day published anew; `refresh_profiles` follows for each.

The same by hand: `intent replay 2026-08-21 --source NAME`.
"""

from datetime import date, timedelta

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from intent_assets import CLEAN_EVENTS
from intent_days import DAY, MACROS


@dag(
    schedule=None,
    max_active_runs=1,
    description="Mended quarantine rows come in, exactly once",
    doc_md=__doc__,
    tags=["intent", "intake"],
    user_defined_macros=MACROS,
    default_args={
        "owner": "intent-platform",
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=2),
    },
    params={
        "day": Param(
            "",
            type="string",
            format="date",
            title="Day",
            description="The day on which the rows were received.",
        ),
        "source": Param(
            None,
            type=["null", "string"],
            title="Source",
            description="Mapping to read the rows with: sources/NAME.toml. Empty: INTENT_SOURCE.",
        ),
    },
)
def replay_quarantine():
    @task(outlets=[CLEAN_EVENTS])
    def replay(day: str, *, params, outlet_events) -> None:
        from intent_platform import daily  # torch and faiss stay out of DAG parsing
        from intent_platform.settings import Settings

        report = daily.replay_quarantine(date.fromisoformat(day), Settings.from_env(), source=params["source"])
        if not report.days_published:
            raise AirflowSkipException("No quarantined row is good now; nothing was published.")
        outlet_events[CLEAN_EVENTS].add_partitions([str(each) for each in report.days_published])

    replay(DAY)


replay_quarantine()
