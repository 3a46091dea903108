"""The evaluation report of a training, one click away: a link on the task, and the page it leads to.

The API server serves the reports itself, from <INTENT_HOME>/reports, to whoever may see the runs of the training.
Nothing else of the folder is served, and a page can neither run a script nor load anything.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink, conf
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

TRAINING = "retrain_classifier"
"""The DAG whose readers may read the reports."""

URL_PREFIX = "/intent-reports"
REPORT = re.compile(r"evaluation-\d{4}-\d{2}-\d{2}-[0-9a-f]{10}\.html")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class EvaluationReport(BaseOperatorLink):
    """To the report that the task's XCom `report` names; no button while there is none."""

    name = "Evaluation report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        report = XCom.get_value(ti_key=ti_key, key="report")
        base = conf.get("api", "base_url", fallback=None) or ""
        return f"{base.rstrip('/')}{URL_PREFIX}/{Path(report).name}" if report else ""


@cache
def reports_app() -> "FastAPI":
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI
    from fastapi.responses import FileResponse, PlainTextResponse, Response

    may_read = requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE, param_dag_id=TRAINING)
    app = FastAPI(title="Evaluation reports", openapi_url=None, dependencies=[Depends(may_read)])

    @app.get("/{name:path}")
    def report(name: str) -> Response:
        from intent_platform.settings import Settings

        path = Settings.from_env().home / "reports" / name
        if not REPORT.fullmatch(name) or not path.is_file():
            return PlainTextResponse(
                "There is no such evaluation report here. Reports lie in INTENT_HOME/reports, and the API server must "
                "see the same INTENT_HOME as the worker that trained.\n",
                status_code=404,
            )
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=HEADERS)

    return app


class WhenAsked:
    """The app, made at its first request: each of Airflow's processes reads this file, and FastAPI takes a second."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await reports_app()(scope, receive, send)


class IntentReports(AirflowPlugin):
    name = "intent_reports"
    fastapi_apps = [{"app": WhenAsked(), "url_prefix": URL_PREFIX, "name": "Evaluation reports"}]  # noqa: RUF012
