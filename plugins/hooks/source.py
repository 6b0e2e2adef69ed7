"""A source and the warehouse, ready to work with: what every step of a runbook opens first."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from airflow.sdk import BaseHook, Connection

from include.api.client import ApiClient, Limiter, NoLimit
from include.sources import get_source
from include.sources.base import Context, Source
from include.warehouse.rate_limit import SharedLimit
from plugins.hooks import warehouse

# Requests of one task that are on their way at once.
WORKERS = 4
# What one task may spend on an API, its waiting included, before it gives up.
BUDGET_SECONDS = 6 * 3600


@contextmanager
def opened(name: str, run: str) -> Iterator[Context]:
    """The context for `run` (`dag_id/run_id`) of the source `name`, through the connection of the same name.

    The connection's host is the API's (https unless it names a scheme), its password the token. Its extra
    `requests_per_minute` replaces the vendor's limit for this account; 0 lifts it.
    """
    source = get_source(name)
    connection = BaseHook.get_connection(name)
    with (
        warehouse.connect(run) as conn,
        warehouse.connect(f"{run} limit") as limit_conn,
        ApiClient(
            name,
            base_url(connection) + source.base_path,
            headers=source.authorize(connection.password or ""),
            limiter=_limiter(source, connection, limit_conn),
            budget_seconds=BUDGET_SECONDS,
            connections=WORKERS,
        ) as client,
    ):
        yield Context(source, client, conn, run, WORKERS)


def base_url(connection: Connection) -> str:
    """Scheme, host and port of a connection of type http."""
    host = (connection.host or "").rstrip("/")
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    return f"{host}:{connection.port}" if connection.port else host


def _limiter(source: Source, connection: Connection, conn: psycopg.Connection) -> Limiter:
    per_minute = float(connection.extra_dejson.get("requests_per_minute", source.per_minute or 0))
    if not per_minute:
        return NoLimit()
    return SharedLimit(conn, source.name, per_minute)
