"""The wheel alone: its own sql/, sources/, dags/ and plugins/ serve an existing Airflow and Postgres."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that holds the unpacked wheel, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("intent_platform-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def run(installed: Path, *arguments: str, **environment: str) -> str:
    """Run Python outside the checkout, the wheel's files before all others."""
    environment = {**os.environ, "PYTHONPATH": str(installed), **environment}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=installed.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_migrates_an_existing_database(installed, settings):
    with sa.create_engine(settings.database_url).begin() as connection:
        for schema in ("inbox", "nearline", "profiles", "quality", "registry"):
            connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
        connection.execute(sa.text("DROP TABLE alembic_version"))
    output = run(installed, "-m", "intent_platform.cli", "migrate", INTENT_DATABASE_URL=settings.database_url)
    assert "The schema is at version" in output


def test_the_wheels_dags_parse_in_an_existing_airflow(installed, tmp_path):
    folder = run(installed, "-m", "intent_platform.cli", "folder", "dags").strip()
    assert Path(folder).is_relative_to(installed)
    parse = (
        "from airflow.dag_processing.dagbag import DagBag;"
        f"bag = DagBag({folder!r}); assert not bag.import_errors, bag.import_errors; print(*sorted(bag.dags))"
    )
    plugins = run(installed, "-m", "intent_platform.cli", "folder", "plugins").strip()
    airflow = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": plugins,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    dags = run(installed, "-c", parse, **airflow).split("\n")[-2].split()
    assert {"validate_events", "refresh_profiles", "retrain_classifier", "rebuild_item_index"} <= set(dags)
