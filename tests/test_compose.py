"""docker-compose.yml, as far as one can tell without a Docker engine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
LONG_RUNNING = {"api-server", "scheduler", "scheduler-gpu", "dag-processor", "triggerer"}


@pytest.fixture(scope="module")
def compose():
    return YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def test_the_file_is_a_compose_file_by_the_specifications_own_schema():
    command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_service_that_stays_up_is_watched_and_starts_after_the_set_up(compose):
    for name in LONG_RUNNING:
        service = compose["services"][name]
        assert service["healthcheck"]["test"], name
        assert service["depends_on"] == {"set-up": {"condition": "service_completed_successfully"}}, name


def test_set_up_waits_for_postgres_18_and_makes_the_pool_of_the_gpu(compose):
    set_up, postgres = compose["services"]["set-up"], compose["services"]["postgres"]
    assert postgres["image"] == "postgres:18"
    assert postgres["healthcheck"]["test"]
    assert set_up["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "airflow pools set gpu 1" in set_up["command"][-1]


def test_the_gpu_is_reserved_for_the_scheduler_whose_tasks_train(compose):
    service = compose["services"]["scheduler-gpu"]
    assert service["profiles"] == ["gpu"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert service["build"]["args"] == {"FAISS": "gpu"}


def test_tasks_run_beside_the_scheduler_with_databases_apart(compose):
    environment = compose["services"]["scheduler"]["environment"]
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith("@postgres/airflow")
    assert environment["INTENT_DATABASE_URL"].endswith("@postgres/intent")


def test_no_secret_stands_in_the_file_and_each_variable_is_in_the_example():
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = re.findall(r"(?<!\$)\$\{(\w+)(:[?-][^}]*)?\}", text)
    example = {line.split("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line}
    assert {name for name, _ in used} - {"INTENT_VERSION"} <= example
    for name, otherwise in used:
        if name.endswith(("PASSWORD", "SECRET", "SECRET_KEY", "FERNET_KEY", "PSEUDONYM_KEY")):
            assert otherwise.startswith(":?"), f"{name} must be given"


def test_every_named_volume_is_declared(compose):
    mounted = [volume for service in compose["services"].values() for volume in service["volumes"]]
    assert {volume.split(":")[0] for volume in mounted if volume[0] not in "./$"} == set(compose["volumes"])
