"""The evaluation report in Airflow's pages: the task's button, and the page that it opens, for whom."""

import subprocess
import sys

import pytest
from airflow.dag_processing.dagbag import DagBag
from fastapi.testclient import TestClient
from received import DAY

from intent_platform import training
from intent_platform.paths import resource_folder

NAME = "evaluation-2026-08-21-0123456789.html"
URL = f"/intent-reports/{NAME}"


@pytest.fixture(scope="module")
def dag():
    """The training's DAG beside a metadata database of its own."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    return DagBag(str(resource_folder("dags"))).dags["retrain_classifier"]


@pytest.fixture(scope="module")
def server(dag):  # noqa: ARG001 - the database
    """Airflow's own API server, with the plugin as it loads it."""
    from airflow.api_fastapi.app import create_app

    with TestClient(create_app(apps="core"), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def login(server):  # noqa: ARG001 - makes the auth manager
    """Headers of a person whom Airflow knows."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="eve", role="viewer"))
    return {"Cookie": f"_token={token}"}


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.setenv("INTENT_HOME", str(tmp_path))
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "notes.html").write_text("notes")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "intent_sealing_private_key").write_text("secret")
    path = tmp_path / "reports" / NAME
    path.write_text("<!doctype html><title>Evaluation</title>准")
    return path


def test_the_link_of_a_run_leads_to_its_report(dag, monkeypatch, server, login, report):
    refused = training.TrainingReport(
        day=DAY, is_promoted=False, reason="Behind the champion.", report=f"/elsewhere/{NAME}"
    )
    monkeypatch.setattr(training, "retrain", lambda *_, **__: refused)
    ran = dag.test(logical_date=None, run_conf={"day": str(DAY)})
    links = f"/api/v2/dags/{dag.dag_id}/dagRuns/{ran.run_id}/taskInstances/retrain/links"
    answer = server.get(links, headers=login).json()
    assert answer["extra_links"] == {"Evaluation report": URL}
    assert server.get(answer["extra_links"]["Evaluation report"], headers=login).text == report.read_text()


def test_without_a_training_there_is_no_link(dag, monkeypatch, server, login):
    monkeypatch.setattr(
        training, "retrain", lambda *_, **__: training.TrainingReport(day=DAY, is_promoted=False, reason="Not due.")
    )
    ran = dag.test(logical_date=None, run_conf={"day": str(DAY)})
    links = f"/api/v2/dags/{dag.dag_id}/dagRuns/{ran.run_id}/taskInstances/retrain/links"
    assert server.get(links, headers=login).json()["extra_links"] == {"Evaluation report": None}


def test_a_report_is_a_page_that_loads_and_runs_nothing(server, login, report):
    answer = server.get(URL, headers=login)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text == report.read_text()
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("headers", [{}, {"Cookie": "_token=made-up"}], ids=["nobody", "a made-up token"])
def test_whoever_is_not_logged_in_sees_no_report(server, report, headers):  # noqa: ARG001 - it is there
    for url in (URL, "/intent-reports/", "/intent-reports/docs"):
        answer = server.get(url, headers=headers)
        assert answer.status_code in (401, 403)
        assert "Evaluation" not in answer.text


def test_whoever_may_not_see_the_training_sees_no_report(server, login, report, monkeypatch):  # noqa: ARG001
    from airflow.api_fastapi.app import get_auth_manager

    asked = []

    def refuse(*, method, user, access_entity, details):
        asked.append((method, user.username, access_entity.value, details.id))
        return False

    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", refuse)
    assert server.get(URL, headers=login).status_code == 403
    assert asked == [("GET", "eve", "TASK_INSTANCE", "retrain_classifier")]


@pytest.mark.parametrize(
    "path",
    [
        "evaluation-2026-08-22-0123456789.html",
        "notes.html",
        "",
        "..%2Fkeys%2Fintent_sealing_private_key",
        "%2Fetc%2Fpasswd",
        f"..%2freports%2f{NAME}",
        f"{NAME}%00",
        f"{NAME}%0A",
        f".%2F{NAME}",
        "openapi.json",
    ],
)
def test_nothing_but_reports_of_that_folder_is_served(server, login, report, path):  # noqa: ARG001
    answer = server.get(f"/intent-reports/{path}", headers=login)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("There is no such evaluation report here.")
