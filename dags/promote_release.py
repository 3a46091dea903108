"""Let a release serve: a newer one, or an earlier one again (a rollback).

**When**: by form only. `SELECT * FROM registry.release` lists what there is; `registry.promotion` is the audit trail.
Without a release the one that served before the current one serves again.

**What it does**: checks the release's parts against their digests, then moves the shop's one pointer and writes who
did it, when and why. A rollback is a promotion too: it takes the next number, so its profiles win.

**What it gives**: the asset `intent_model`, keyed by the newest clean day; `refresh_profiles` follows and scores
everyone with the release.

The same by hand: `intent promote RELEASE --reason "…"`, `intent rollback --reason "…"`.
"""

from datetime import timedelta

from airflow.sdk import Param, dag, task
from intent_assets import INTENT_MODEL
from intent_days import newest_clean_day
from intent_retries import RETRY_WHAT_MAY_PASS


@dag(
    schedule=None,
    max_active_runs=1,
    description="Promote a release, or roll back to an earlier one, with an audit row",
    doc_md=__doc__,
    tags=["intent", "release"],
    default_args={
        "owner": "intent-platform",
        "retries": 1,
        "retry_delay": timedelta(minutes=1),
        "retry_policy": RETRY_WHAT_MAY_PASS,
        "execution_timeout": timedelta(minutes=30),
    },
    params={
        "release_id": Param(
            "",
            type="string",
            title="Release",
            description="A release_id of registry.release; empty: the one that served before the current one.",
        ),
        "reason": Param(
            "",
            type="string",
            minLength=1,
            title="Reason",
            description="Why this release shall serve now; kept in registry.promotion.",
        ),
    },
)
def promote_release():
    @task(outlets=[INTENT_MODEL])
    def promote(*, params, dag_run, outlet_events) -> None:
        from datetime import UTC, datetime

        from intent_platform import training  # torch and faiss stay out of DAG parsing
        from intent_platform.settings import Settings

        decided = {
            "reason": params["reason"],
            "decided_by": dag_run.triggering_user_name or "airflow",
            "clock": datetime.now(UTC),
        }
        if params["release_id"]:
            training.promote(Settings.from_env(), params["release_id"], **decided)
        else:
            training.rollback(Settings.from_env(), **decided)
        outlet_events[INTENT_MODEL].add_partitions(newest_clean_day())

    promote()


promote_release()
