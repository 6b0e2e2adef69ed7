"""The warehouse for the web server: a few shared connections that only read, and one clear line where there is none."""

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
# A page waits no longer: for a connection, and for the answer to a query.
WAIT_SECONDS, QUERY_SECONDS = 3, 15

NOT_MIGRATED = (errors.InvalidSchemaName, errors.UndefinedColumn, errors.UndefinedFunction, errors.UndefinedTable)


class WarehouseUnavailable(Exception):
    """The warehouse can't be asked now. The message says what to do, and nothing of the connection's secrets."""


@contextmanager
def opened() -> Iterator[Connection]:
    """A connection in autocommit that reads only. Raises WarehouseUnavailable, for queries within the block too."""
    try:
        with _pool().connection() as conn:
            yield conn
    except NOT_MIGRATED:
        raise WarehouseUnavailable(
            "the warehouse's schema is not the one of this version: run the DAG warehouse_migrate, then reload"
        ) from None
    except errors.QueryCanceled:
        raise WarehouseUnavailable(
            f"the warehouse did not answer within {QUERY_SECONDS} s: look at what keeps it busy, then reload"
        ) from None
    except psycopg.OperationalError:
        raise WarehouseUnavailable(
            f"the warehouse can't be reached: check the Airflow connection {warehouse.CONNECTION!r} and its server"
        ) from None


def _each() -> Iterator[Connection]:
    with opened() as conn:
        yield conn


# Given back before the answer is sent.
Warehouse = Annotated[Connection, Depends(_each, scope="function")]


class _Connected(Connection[Any]):
    """Opened through Airflow's connection, whatever it says by then."""

    @classmethod
    def connect(cls, conninfo: str = "", **_: Any) -> Connection:
        conn = warehouse.connect("sync confidence pages")
        conn.execute("SET default_transaction_read_only = on")
        conn.execute("SELECT set_config('statement_timeout', %s, false)", [f"{QUERY_SECONDS}s"])
        return conn


@cache
def _pool() -> ConnectionPool:
    """Opened by the first who needs it; what raises here is not kept."""
    try:
        BaseHook.get_connection(warehouse.CONNECTION)
    except (AirflowNotFoundException, AirflowRuntimeError):
        raise WarehouseUnavailable(
            f"the Airflow connection {warehouse.CONNECTION!r} is not defined: set it, or"
            f" AIRFLOW_CONN_{warehouse.CONNECTION.upper()} in the API server's environment"
        ) from None
    return ConnectionPool(
        connection_class=_Connected,
        min_size=0,
        max_size=MOST_CONNECTIONS,
        timeout=WAIT_SECONDS,
        # Given up as soon as who waits has: the next one begins anew, instead of waiting for a late attempt.
        reconnect_timeout=WAIT_SECONDS,
        # A connection that the server has dropped meanwhile is replaced.
        check=ConnectionPool.check_connection,
        name="sync confidence",
        open=True,
    )
