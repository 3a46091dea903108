"""Postgres: connections, SQL by file name, COPY, locks, migrations, and the embedded server."""

from intent_platform.db.connection import (
    array_columns,
    connect,
    copy_rows,
    exclusive,
    execute_many,
    first_line,
    is_lost,
    keep_connection,
    libpq_url,
    prepared,
    query,
    stream,
    transaction,
)
from intent_platform.db.embedded import serve
from intent_platform.db.migrations import migrate

__all__ = [
    "array_columns",
    "connect",
    "copy_rows",
    "exclusive",
    "execute_many",
    "first_line",
    "is_lost",
    "keep_connection",
    "libpq_url",
    "migrate",
    "prepared",
    "query",
    "serve",
    "stream",
    "transaction",
]
