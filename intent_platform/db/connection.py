"""One transaction at a time: `with connect(settings) as connection` commits at the end or rolls everything back."""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache

import psycopg2
import pyarrow as pa
import pyarrow.csv as pa_csv
import sqlalchemy as sa
from psycopg2 import errors as pg_errors
from psycopg2 import sql as pg_sql
from sqlalchemy.dialects import postgresql

from intent_platform.errors import DatabaseUnavailable
from intent_platform.paths import resource_folder
from intent_platform.settings import Settings

COPY_BATCH_ROWS = 50_000

PLANS_LAST_S = 10.0
"""A plan that was made while a table was empty reads it whole when it is full, until somebody analyses it."""

UNPREPARED = (pg_errors.InvalidSqlStatementName, pg_errors.DuplicatePreparedStatement, pg_errors.FeatureNotSupported)
"""Of a statement that another session has prepared, or none, or before a migration."""


@contextmanager
def connect(settings: Settings) -> Iterator[sa.Connection]:
    """A connection inside one transaction. DatabaseUnavailable says which server, without the password."""
    with _explained(settings), _engine(settings.database_url).begin() as connection:
        yield connection


def keep_connection(settings: Settings) -> sa.Connection:
    """One for many transactions, which then need not be tested whether it still stands: a trip to the server each."""
    with _explained(settings):
        return _engine(settings.database_url).connect()


@contextmanager
def transaction(kept: sa.Connection, settings: Settings) -> Iterator[None]:
    """As `connect`, on a kept connection; after a DatabaseUnavailable, close it."""
    with _explained(settings), kept.begin():
        yield


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    if not settings.database_url:
        raise DatabaseUnavailable(
            "No database is set: give INTENT_DATABASE_URL, or run the command through `intent`, which starts "
            "the embedded Postgres."
        )
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, psycopg2.OperationalError) as error:
        raise _unavailable(settings, error) from error
    except psycopg2.DatabaseError as error:
        if error.pgcode is None:  # not what the server said, but that it went away in the middle of a COPY
            raise _unavailable(settings, error) from error
        raise
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:  # the server went away in the middle of a statement
            raise _unavailable(settings, error) from error
        if isinstance(error.orig, pg_errors.UndefinedTable | pg_errors.InvalidSchemaName | pg_errors.UndefinedColumn):
            raise DatabaseUnavailable(
                f"Postgres at {_without_password(settings.database_url)} is not at this version's schema: "
                f"{first_line(error)}. Run `intent migrate`."
            ) from error
        raise


def _unavailable(settings: Settings, error: Exception) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"Postgres at {_without_password(settings.database_url)} failed: {first_line(error)}.",
        "Nothing of this transaction was kept; start the server or mend INTENT_DATABASE_URL, then run the step again.",
    )


def is_lost(connection: sa.Connection) -> bool:
    """Whether the server ended it: whatever failed on it failed for that reason."""
    if connection.invalidated:
        return True
    driver = connection.connection.dbapi_connection
    return driver is None or bool(driver.closed)


def query(connection: sa.Connection, name: str, *then: str, **parameters: object) -> Sequence[sa.RowMapping]:
    """Run sql/queries/<name>.sql, and others after it in the same trip to the server, with their :named parameters.

    Returns the last one's rows, or none for a statement without.
    """
    result = connection.execute(_statement(name, *then), parameters)
    return result.mappings().all() if result.returns_rows else ()


def prepared(connection: sa.Connection, *names: str, **parameters: object) -> Sequence[sa.RowMapping]:
    """As `query`, for statements that are sent all day: each is prepared once per connection, and after five runs
    Postgres may keep a plan for any values; anew every PLANS_LAST_S. Where the best plan depends on the values, `query`
    is right.

    The type of each parameter must follow from the statement: by a cast, or by what it is compared with.
    """
    known: dict[str, float] = connection.connection.info.setdefault("prepared", {})  # name → monotonic s
    statements = [_prepared(each) for each in names]
    executing = "; ".join(each.executing for each in statements)
    given = tuple(parameters[parameter] for each in statements for parameter in each.parameters)
    try:
        for each in statements:
            _prepare(connection, each, known)
        result = connection.exec_driver_sql(executing, given)
    except sa.exc.DBAPIError as error:
        if isinstance(error.orig, UNPREPARED):
            connection.invalidate(error)
            raise DatabaseUnavailable(
                f"A statement that was prepared is not there any more, or not as it was: {first_line(error)}. If it "
                "comes again, a pooler stands before Postgres that gives a session now this server connection and now "
                "that: let it pool by session.",
                "Nothing of this transaction was kept; run the step again.",
            ) from error
        raise
    return result.mappings().all() if result.returns_rows else ()


def _prepare(connection: sa.Connection, statement: "_Prepared", known: dict[str, float]) -> None:
    now = time.monotonic()
    if statement.name in known and now - known[statement.name] < PLANS_LAST_S:
        return
    if statement.name in known:
        connection.exec_driver_sql(f"DEALLOCATE {statement.name}")
        del known[statement.name]
    connection.exec_driver_sql(statement.preparing)
    known[statement.name] = now


def stream(
    connection: sa.Connection, name: str, rows_each: int, **parameters: object
) -> Iterator[Sequence[sa.RowMapping]]:
    """Rows of sql/queries/<name>.sql, rows_each at a time through a cursor of the server: memory stays flat."""
    result = connection.execution_options(stream_results=True, max_row_buffer=rows_each).execute(
        _statement(name), parameters
    )
    yield from result.mappings().partitions(rows_each)


def execute_many(connection: sa.Connection, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Run sql/queries/<name>.sql once for each row of parameters."""
    if rows:
        connection.execute(_statement(name), list(rows))


def exclusive(connection: sa.Connection, *names: str) -> None:
    """Wait for and hold a named lock (say "lake", shop) until this transaction ends."""
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": "/".join(("intent", *names))}
    )


def copy_rows(connection: sa.Connection, table: str, rows: pa.Table) -> None:
    """COPY an Arrow table into `table` (schema.name or a temporary table); Arrow's column names choose the columns."""
    statement = pg_sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv)").format(
        pg_sql.Identifier(*table.split(".")), pg_sql.SQL(", ").join(map(pg_sql.Identifier, rows.column_names))
    )
    with closing(connection.connection.cursor()) as cursor:
        for batch in rows.to_batches(max_chunksize=COPY_BATCH_ROWS):
            stream = io.BytesIO()
            pa_csv.write_csv(batch, stream, pa_csv.WriteOptions(include_header=False))
            stream.seek(0)
            cursor.copy_expert(statement, stream)


def array_columns(rows: pa.Table, prefix: str = "") -> dict[str, str]:
    """Each column under its name as a parameter for unnest(CAST(:name AS type []), …).

    Saves a temporary table where COPY could go: up to some thousand rows, as all of it is part of the statement.
    """
    return {prefix + name: _array(each) for name, each in zip(rows.column_names, rows.itercolumns(), strict=True)}


def _array(values: pa.ChunkedArray) -> str:
    """A Postgres array literal. Joined by Python, which for few rows beats a chain of Arrow's functions by far."""
    if not pa.types.is_primitive(values.type):
        return _text_array(values.to_pylist())
    zone = ""
    if pa.types.is_timestamp(values.type):  # Arrow looks the zone up for each moment, unless there is none
        values, zone = values.cast(pa.timestamp("us")), "Z"
    texts = values.cast(pa.string()).to_pylist()
    if values.null_count:
        return "{" + ",".join(["NULL" if text is None else text + zone for text in texts]) + "}"
    return "{" + f"{zone},".join(texts) + (zone if texts else "") + "}"


def _text_array(texts: list[str | None]) -> str:
    """All are escaped at once: Postgres has no text with a NUL, so it can part them."""
    given = [text for text in texts if text is not None]
    joined = "\0".join(given)
    if joined.count("\0") != max(len(given) - 1, 0):
        raise ValueError("Postgres takes no text with a NUL character, and there is one among these.")
    escaped = joined.replace("\\", "\\\\").replace('"', '\\"')
    if len(given) == len(texts):
        return '{"' + escaped.replace("\0", '","') + '"}' if texts else "{}"
    quoted = iter(escaped.split("\0"))
    return "{" + ",".join(["NULL" if text is None else f'"{next(quoted)}"' for text in texts]) + "}"


@lru_cache(maxsize=8)
def _engine(url: str) -> sa.Engine:
    # A log must not tell what shoppers typed, so an error does not show the parameters of its statement.
    return sa.create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args={"connect_timeout": 10})


@lru_cache(maxsize=256)
def _statement(*names: str) -> sa.TextClause:
    files = (resource_folder("sql") / "queries" / f"{name}.sql" for name in names)
    return sa.text("".join(each.read_text(encoding="utf-8") for each in files))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    name: str
    preparing: str
    executing: str  # with a %s for each parameter
    parameters: Sequence[str]


@lru_cache(maxsize=256)
def _prepared(name: str) -> _Prepared:
    compiled = _statement(name).compile(dialect=postgresql.dialect(paramstyle="numeric_dollar"))
    parameters = tuple(compiled.positiontup or ())
    return _Prepared(
        name=name,
        preparing=f"PREPARE {name} AS {compiled}".replace("%", "%%"),
        executing=f"EXECUTE {name} ({', '.join(['%s'] * len(parameters))})" if parameters else f"EXECUTE {name}",
        parameters=parameters,
    )


def libpq_url(settings: Settings) -> str:
    """The database's address as libpq takes it, with the password."""
    return sa.make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)


def _without_password(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)


def first_line(error: Exception) -> str:
    """What the driver said, without SQLAlchemy's copy of the statement and its values."""
    original = getattr(error, "orig", None) or error
    return next(iter(str(original).strip().splitlines()), type(original).__name__)
