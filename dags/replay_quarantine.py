"""Bring quarantined rows of a day in again, after the rule or the mapping that refused them was mended.

**When**: by form only.

**What it does**: unseals the day's quarantined rows, reads them again with today's mapping and rules, and lets those
that are good now in, exactly once; the others stay in quarantine. The days that they belong to are published anew.

**What it gives**: the asset `clean_events` for each day published anew, and for the newest day, whose profiles count
the rows; `refresh_profiles` follows for each.

With the source `inbox` it does the same for events that the inbox rejected (`inbox.rejected`). Of a day that is not
published yet nothing is: `validate_events` takes them with the day.

The same by hand: `intent replay 2026-08-21 --source NAME`.
"""

from datetime import date, timedelta
from pathlib import Path

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from intent_assets import CLEAN_EVENTS
from intent_days import DAY, MACROS, newest_clean_day
from intent_retries import RETRY_WHAT_MAY_PASS


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
        "retry_policy": RETRY_WHAT_MAY_PASS,
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
            description="Mapping to read the rows with: sources/NAME.toml. Empty: INTENT_SOURCE. inbox: rejected "
            "events of the inbox, whose profiles move at once.",
        ),
        "fixed": Param(
            None,
            type=["null", "string"],
            title="Rows mended by hand",
            description="JSON Lines as `intent quarantine` writes them. Empty: the quarantined rows as they came.",
        ),
    },
)
def replay_quarantine():
    @task(outlets=[CLEAN_EVENTS])
    def replay(day: str, *, params, outlet_events) -> None:
        from datetime import UTC, datetime

        from intent_platform import daily, replaying  # torch and faiss stay out of DAG parsing
        from intent_platform.inbox.door import NAME
        from intent_platform.settings import Settings

        fixed = Path(params["fixed"]) if params["fixed"] else None
        settings, received_on = Settings.from_env(), date.fromisoformat(day)
        if params["source"] == NAME:
            published = replaying.replay_inbox(received_on, settings, datetime.now(UTC), fixed=fixed).days_published
        else:
            report = daily.replay_quarantine(received_on, settings, source=params["source"], fixed=fixed)
            published = report.days_published
        if not published:
            raise AirflowSkipException("Nothing that is good now belongs to a published day; none was published.")
        outlet_events[CLEAN_EVENTS].add_partitions([*map(str, published), newest_clean_day()])

    replay(DAY)


replay_quarantine()
