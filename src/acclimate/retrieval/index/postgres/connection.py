"""How a Postgres server is reached: its url, its table, and what its failures mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from pgvector.psycopg import register_vector
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from acclimate.errors import StorageError, UsageError

DEFAULT_TABLE = "acclimate"
DEFAULT_SCHEMA = "public"
CONNECT_TIMEOUT_S = 10
LEAST_PGVECTOR = (0, 8)
"""The first pgvector that goes on scanning its index until enough rows pass a filter."""
MAX_NAME_BYTES = 40
"""A name in Postgres has 63 bytes; the names of a table's indexes add to the table's."""


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """Where a table is: what `postgresql://user@host/database?schema=public&table=acclimate` says."""

    conninfo: str
    """The url without table and schema, as libpq takes it."""
    schema: str
    table: str

    def __str__(self) -> str:
        parts = urlsplit(self.conninfo)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path} table {self.schema}.{self.table}"


def parse_postgres_url(url: str) -> PostgresPlace:
    """Read a url of libpq, in which `table` (default acclimate) and `schema` (default public) are ours.

    Raises:
        UsageError: not such a url, an unusable name, or a password in it.
    """
    form = "postgresql://user@host:5432/database?table=acclimate"
    try:
        parts = urlsplit(url)
        settings = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise UsageError(f"the url of a Postgres server cannot be read: {error}", possible=form) from error
    if parts.scheme not in ("postgresql", "postgres"):
        raise UsageError(f"{parts.scheme}:// is not the place of a table in Postgres", possible=form)
    if parts.password or "password" in settings:
        raise UsageError(
            "the url of a Postgres server holds a password",
            possible=form,
            fix="Put it into the environment variable PGPASSWORD, or into the file of PGPASSFILE.",
        )
    schema, table = settings.pop("schema", DEFAULT_SCHEMA), settings.pop("table", DEFAULT_TABLE)
    for what, name in (("schema", schema), ("table", table)):
        # psycopg would take a percent sign for the beginning of a placeholder.
        if not name or "\0" in name or "%" in name or len(name.encode()) > MAX_NAME_BYTES:
            raise UsageError(
                f"{what}={name!r} in the url", possible=f"a name of 1 to {MAX_NAME_BYTES} bytes, without %"
            )
    return PostgresPlace(urlunsplit(parts._replace(query=urlencode(settings))), schema, table)


def connect(place: PostgresPlace) -> Connection[Any]:
    """Connect to the server of a place, which must have pgvector, or let this user create it in the database.

    Raises:
        StorageError: the server does not answer or refuses this user; it has no pgvector, or an old one.
    """
    with postgres_errors(place):
        given = conninfo_to_dict(place.conninfo)
        timeout_s = given.get("connect_timeout", CONNECT_TIMEOUT_S)
        connection = psycopg.connect(make_conninfo(place.conninfo, connect_timeout=timeout_s), autocommit=True)
    try:
        with postgres_errors(place):
            # Only where it is missing: who may not create extensions may still use one.
            if _pgvector(connection) is None:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            version = _pgvector(connection) or ""
            register_vector(connection)
        if tuple(int(number) for number in version.split(".")[:2]) < LEAST_PGVECTOR:
            raise StorageError(
                f"{place}: the database has pgvector {version}",
                possible=f"{'.'.join(map(str, LEAST_PGVECTOR))} or newer",
                fix="Update it: ALTER EXTENSION vector UPDATE.",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _pgvector(connection: Connection[Any]) -> str | None:
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return None if row is None else str(row[0])


@contextmanager
def postgres_errors(place: PostgresPlace) -> Iterator[None]:
    """Turn what psycopg raises into one line of ours."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise StorageError(
            f"{place}: this user may not do that ({_first_line(error)})",
            fix="Ask the database's owner for CREATE on the schema (and for CREATE EXTENSION vector, once).",
        ) from error
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        raise StorageError(
            f"{place}: {_first_line(error)}", fix="Install the extension pgvector on the server, 0.8 or newer."
        ) from error
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory) as error:
        raise StorageError(
            f"{place}: the server has no room left ({_first_line(error)})",
            fix="Nothing of this batch was written. Make room on the server, then start the command again.",
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise StorageError(
            f"{place}: the server does not answer ({_first_line(error)})",
            fix="Start it, or check the url, PGPASSWORD and the server's log. What was acknowledged is kept: "
            "start the command again.",
        ) from error
    except psycopg.Error as error:
        raise StorageError(f"{place}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).split("\n")
    return " ".join(lines[0].split())[:300] or type(error).__name__
