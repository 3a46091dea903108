"""Train the purchase model again from what was bought, and promote it when it beats its opponents.

**When**: after each published day (`clean_events`), when the newest model is older than `INTENT_TRAINING_EVERY_DAYS`;
otherwise its one task is skipped within seconds. By form at any time.

**What it does**: examples with matured labels → train in a child process (the pool `gpu` lets one run at a time) →
evaluate beside simple opponents → gate → model, index, promotion. A candidate that loses is kept with its figures and
the reason, and the champion stays.

**What it gives**: the asset `intent_model`, keyed by the newest clean day it knew, when another model serves.
`refresh_profiles` follows.

**When it fails or is stopped**: run it again; training goes on from its last checkpoint.

The same by hand: `intent train 2026-08-21`.
"""

from datetime import date, timedelta

from airflow.sdk import Param, PartitionedAssetTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from intent_assets import CLEAN_EVENTS, INTENT_MODEL
from intent_days import DAY, MACROS
from intent_retries import RETRY_WHAT_MAY_PASS


@dag(
    schedule=PartitionedAssetTimetable(assets=CLEAN_EVENTS),
    max_active_runs=1,
    description="Purchases are the labels: train, evaluate, gate, promote",
    doc_md=__doc__,
    tags=["intent", "training"],
    user_defined_macros=MACROS,
    default_args={
        "owner": "intent-platform",
        "retries": 1,
        "retry_delay": timedelta(minutes=10),
        "retry_policy": RETRY_WHAT_MAY_PASS,
        "execution_timeout": timedelta(hours=12),
    },
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day",
            description="Newest published day to learn from. Empty: the last finished one.",
        ),
        "is_forced": Param(
            False,
            type="boolean",
            title="Train now",
            description="Train even if the newest model is younger than INTENT_TRAINING_EVERY_DAYS.",
        ),
    },
)
def retrain_classifier():
    @task(pool="gpu", outlets=[INTENT_MODEL])
    def retrain(day: str, *, params, outlet_events) -> None:
        from intent_platform import training  # torch and faiss stay out of DAG parsing
        from intent_platform.settings import Settings

        report = training.retrain(date.fromisoformat(day), Settings.from_env(), is_forced=params["is_forced"])
        if not report.is_promoted:
            raise AirflowSkipException(report.reason)
        outlet_events[INTENT_MODEL].add_partitions(day)

    retrain(DAY)


retrain_classifier()
