"""The warehouse for the web server: a few shared connections that only read."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any

import psycopg
from airflow.exceptions import AirflowNotFoundException
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowRuntimeError
from fastapi import Depends
from psycopg import Connection, errors
from psycopg_pool import ConnectionPool

from plugins.hooks import warehouse

MOST_CONNECTIONS = 4
# The most that a page waits for a connection, and for the answer to a query.
WAIT_SECONDS, QUERY_SECONDS = 3, 15

CONNECTION = f"{warehouse.READ!r}, or {warehouse.CONNECTION!r} if there is none,"
NOT_MIGRATED = (errors.InvalidSchemaName, errors.UndefinedColumn, errors.UndefinedFunction, errors.UndefinedTable)


class WarehouseUnavailable(Exception):
    """The warehouse can't be queried now. The message says what to do, and holds no secrets of the connection."""


@contextmanager
def opened() -> Iterator[Connection]:
    """Yield a read-only connection in autocommit. Raises WarehouseUnavailable, also for queries in the block."""
    try:
        with _pool().connection() as conn:
            yield conn
    except NOT_MIGRATED:
        raise WarehouseUnavailable(
            "the warehouse's schema is not the one of this version: run the DAG warehouse_migrate, then reload"
        ) from None
    except errors.InsufficientPrivilege:
        raise WarehouseUnavailable(
            f"the role of the Airflow connection {CONNECTION} may not read this: run the DAG"
            " warehouse_migrate, which grants it, then reload"
        ) from None
    except errors.QueryCanceled:
        raise WarehouseUnavailable(
            f"the warehouse did not answer within {QUERY_SECONDS} s: look at what keeps it busy, then reload"
        ) from None
    except psycopg.OperationalError:
        raise WarehouseUnavailable(
            f"the warehouse can't be reached: check the Airflow connection {CONNECTION} and its server"
        ) from None


def _each() -> Iterator[Connection]:
    with opened() as conn:
        yield conn


# The connection is given back before the answer is sent.
Warehouse = Annotated[Connection, Depends(_each, scope="function")]


class _Connected(Connection[Any]):
    """A connection of the pool, opened with what Airflow's connection says at that time."""

    @classmethod
    def connect(cls, conninfo: str = "", **_: Any) -> Connection:
        conn = warehouse.connect("sync confidence pages", warehouse.defined(warehouse.READ))
        conn.execute("SET default_transaction_read_only = on")
        conn.execute("SELECT set_config('statement_timeout', %s, false)", [f"{QUERY_SECONDS}s"])
        return conn


@cache
def _pool() -> ConnectionPool:
    """Return the pool, opened at the first call. An error is not cached: the next call tries again."""
    try:
        BaseHook.get_connection(warehouse.defined(warehouse.READ))
    except (AirflowNotFoundException, AirflowRuntimeError):
        raise WarehouseUnavailable(
            f"the Airflow connection {warehouse.READ!r} is not defined, nor is {warehouse.CONNECTION!r}: set one, or"
            f" AIRFLOW_CONN_{warehouse.READ.upper()} in the API server's environment"
        ) from None
    return ConnectionPool(
        connection_class=_Connected,
        min_size=0,
        max_size=MOST_CONNECTIONS,
        timeout=WAIT_SECONDS,
        # Not longer than a page waits: the next page begins its own attempt.
        reconnect_timeout=WAIT_SECONDS,
        # Replaces connections that the server has dropped.
        check=ConnectionPool.check_connection,
        name="sync confidence",
        open=True,
    )
