"""Airflow for one laptop: its processes, started and stopped by us, and its REST API. Imports no Airflow."""

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intent_platform.errors import IntentError
from intent_platform.keys import write_secret
from intent_platform.paths import resource_folder
from intent_platform.settings import Settings

ADMIN = "admin"
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}
WORKERS = 4  # each a fork of about 150 MB; Airflow's own default is 32
SECONDS_TO_START = 120
SECONDS_TO_STOP = 20


class AirflowFailed(IntentError):
    """An Airflow process ended, did not start, or refused a request."""


@dataclass(kw_only=True)
class Airflow:
    """A running Airflow: `call` its API; `url`, ADMIN and `password` let a person in."""

    url: str
    password: str
    logs: Path
    processes: dict[str, subprocess.Popen]
    _token: str = field(default="", repr=False)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Answer of /api/v2/<path>, parsed."""
        self.check_alive()
        if not self._token:
            login = {"username": ADMIN, "password": self.password}
            self._token = _request("POST", f"{self.url}/auth/token", login)["access_token"]
        return _request(method, f"{self.url}/api/v2/{path}", body, token=self._token)

    def check_alive(self) -> None:
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise AirflowFailed(
                    f"Airflow's {name} ended with status {process.returncode}; the end of {self.logs / name}.log:\n"
                    + tail(self.logs / f"{name}.log")
                )

    def is_ready(self, dag_ids: set[str]) -> bool:
        """The API answers, the scheduler's heart beats, and every DAG has been parsed."""
        self.check_alive()
        try:
            health = _request("GET", f"{self.url}/api/v2/monitor/health")
            known = {dag["dag_id"] for dag in self.call("GET", "dags?limit=100")["dags"]}
        except (OSError, AirflowFailed):
            return False
        return health["scheduler"]["status"] == "healthy" and dag_ids <= known


@contextmanager
def airflow(settings: Settings, database_url: str, environment: Mapping[str, str]) -> Iterator[Airflow]:
    """Airflow with its metadata in `database_url`; its tasks see `environment`. All of it ends with the block."""
    home = settings.home.absolute() / "airflow"
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment = {**inherited, **_configuration(settings, home, database_url, port), **environment}
    _run(["db", "migrate"], environment, logs)
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(_process(name, command, environment, logs))
            for name, command in COMPONENTS.items()
        }
        server = Airflow(
            url=f"http://127.0.0.1:{port}",
            password=_secret(settings, "airflow_admin_password", secrets.token_urlsafe(9)),
            logs=logs,
            processes=processes,
        )
        dag_ids = {path.stem for path in resource_folder("dags").glob("*.py")}
        wait_until(lambda: server.is_ready(dag_ids), SECONDS_TO_START, "Airflow to start", server.check_alive)
        yield server


def wait_until(is_done: Any, seconds: float, what: str, check: Any = None, every: float = 0.5) -> None:
    """Poll until true; AirflowFailed names what was waited for."""
    deadline = time.monotonic() + seconds
    while not is_done():
        if check:
            check()
        if time.monotonic() > deadline:
            raise AirflowFailed(f"Waited {seconds:.0f} s for {what}, in vain.")
        time.sleep(every)


def free_port(preferred: int = 8080) -> int:
    """A loopback port that nobody listens on."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise AirflowFailed("No loopback port is free.")


def tail(path: Path, lines: int = 20) -> str:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def _configuration(settings: Settings, home: Path, database_url: str, port: int) -> dict[str, str]:
    passwords = home / "passwords.json"
    password = _secret(settings, "airflow_admin_password", secrets.token_urlsafe(9))
    with open(os.open(passwords, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump({ADMIN: password}, stream)
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__CORE__DAGS_FOLDER": str(resource_folder("dags")),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(resource_folder("plugins")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(WORKERS),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__FERNET_KEY": _secret(
            settings, "airflow_fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        ),
        "AIRFLOW__API__SECRET_KEY": _secret(settings, "airflow_api_secret_key", secrets.token_hex(32)),
        "AIRFLOW__API_AUTH__JWT_SECRET": _secret(settings, "airflow_jwt_secret", secrets.token_hex(32)),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        # A task's end can go unnoticed until the next heartbeat, when a sibling was forked meanwhile: 5 s by default.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _secret(settings: Settings, name: str, new: str) -> str:
    """The secret's value; made once, in a 0600 file beside the platform's own keys."""
    path = settings.home / "keys" / name
    if not path.exists():
        write_secret(settings, name, new)
    return path.read_text().strip()


def _run(command: list[str], environment: Mapping[str, str], logs: Path) -> None:
    log = logs / f"{'-'.join(command)}.log"
    with open(log, "wb") as output:
        status = subprocess.run(
            _airflow(*command), env=environment, stdout=output, stderr=output, check=False
        ).returncode
    if status:
        raise AirflowFailed(f"`airflow {' '.join(command)}` ended with status {status}; the end of {log}:\n{tail(log)}")


@contextmanager
def _process(
    name: str, command: tuple[str, ...], environment: Mapping[str, str], logs: Path
) -> Iterator[subprocess.Popen]:
    """A process in a group of its own, so that its forks end with it and Ctrl-C reaches only us."""
    with open(logs / f"{name}.log", "wb") as output:
        process = subprocess.Popen(
            _airflow(*command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen) -> None:
    """Ask the group to end, then end it; the group's id is its first process's."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            continue


def _airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def _request(method: str, url: str, body: Mapping[str, Any] | None = None, *, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data=data, headers=headers, method=method), timeout=30
        ) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")[:500]
        raise AirflowFailed(f"Airflow answered {error.code} to {method} {url}: {detail}") from error
