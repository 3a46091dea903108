"""Train the purchase model again from what was bought, and promote it when it beats its opponents.

**When**: after each published day (`clean_events`), when the newest model is older than `INTENT_TRAINING_EVERY_DAYS`;
otherwise its one task is skipped within seconds. By form at any time.

**What it does**: examples with matured labels → train in a child process (the pool `gpu` lets one run at a time) →
evaluate beside simple opponents and the champion → gate → model, index, promotion. A candidate that loses is kept with
its figures and the reason, and the champion stays. With `INTENT_REQUIRE_APPROVAL=1` a person is asked before the
promotion: the run waits under *Required Actions* and shows the reasons and the figures; either answer is written down.
The button *Evaluation report* of the task opens its report, a candidate's that was refused too; the file is named in
the task's XCom `report` and in its log.

**What it gives**: the asset `intent_model`, keyed by the newest clean day it knew, when another model serves.
`refresh_profiles` follows.

**When it fails or is stopped**: run it again; training goes on from its last checkpoint.

The same by hand: `intent train 2026-08-21`.
"""

import os
from datetime import date, timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param, PartitionedAssetTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from intent_assets import CLEAN_EVENTS, INTENT_MODEL
from intent_days import DAY, MACROS
from intent_reports import EvaluationReport
from intent_retries import RETRY_WHAT_MAY_PASS

APPROVE = "Approve"
REQUIRE_APPROVAL = os.environ.get("INTENT_REQUIRE_APPROVAL", "").lower() in ("1", "true", "yes")


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
    outlets = [] if REQUIRE_APPROVAL else [INTENT_MODEL]

    @task(pool="gpu", outlets=outlets)
    def retrain(day: str, *, params, outlet_events, ti) -> str:
        from intent_platform import training  # torch and faiss stay out of DAG parsing
        from intent_platform.settings import Settings

        report = training.retrain(date.fromisoformat(day), Settings.from_env(), is_forced=params["is_forced"])
        if report.report:
            ti.xcom_push(key="report", value=report.report)
            print(f"The evaluation is in {report.report}.")
        if report.is_promoted:
            outlet_events[INTENT_MODEL].add_partitions(day)
        elif not report.awaits_approval:
            raise AirflowSkipException(report.reason)
        return report.release_id

    @task
    def describe(release_id: str) -> str:
        from intent_platform import approval
        from intent_platform.settings import Settings

        return approval.question(Settings.from_env(), release_id)

    @task(outlets=[INTENT_MODEL])
    def settle(day: str, release_id: str, answer: dict, *, outlet_events) -> None:
        from datetime import UTC, datetime

        from intent_platform import approval
        from intent_platform.settings import Settings

        promotion = approval.answer(
            Settings.from_env(),
            release_id,
            is_approved=answer["chosen_options"] == [APPROVE],
            decided_by=(answer["responded_by_user"] or {}).get("name", "airflow"),
            clock=datetime.now(UTC),
        )
        if promotion is None:
            raise AirflowSkipException(f"{release_id} was refused; what served before still does.")
        outlet_events[INTENT_MODEL].add_partitions(day)

    release_id = retrain(DAY)
    release_id.operator.operator_extra_links = [EvaluationReport()]
    if REQUIRE_APPROVAL:
        approve = HITLOperator(
            task_id="approve",
            subject="Shall this release serve?",
            body=describe(release_id),
            options=[APPROVE, "Refuse"],
            execution_timeout=None,
        )
        settle(DAY, release_id, approve.output)


retrain_classifier()
