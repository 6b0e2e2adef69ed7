"""The warehouse, through Airflow's connections to it, and other Postgres databases through theirs."""

import json

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from psycopg.types.json import Jsonb

# For tasks; for migrations; for the pages, which only read. In place of a missing one `warehouse` does its work.
CONNECTION, OWNER, READ = "warehouse", "warehouse_owner", "warehouse_read"
# Limits of each session. By default Postgres takes two hours to notice that a machine is gone, and keeps its locks for
# as long; now it takes a minute. It notices within ten seconds that a task was killed while its statement waits; else
# the statement would go on waiting, and the next tries would fail on the locks that it has. Only `fence.exclusive` may
# leave a transaction idle for a quarter of an hour, and nothing waits as long for a lock: another step that does so
# fails and says it.
SESSION = {
    "tcp_keepalives_idle": "30s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60s",
    "client_connection_check_interval": "10s",
    "idle_in_transaction_session_timeout": "15min",
    "lock_timeout": "15min",
    # In another zone a time of the year 9999, which vendors write for "never", is one that Python can't read.
    "TimeZone": "UTC",
}


def connect(purpose: str, connection_id: str = CONNECTION, *, timeout: int | None = None) -> psycopg.Connection:
    """Open the database in autocommit: transactions are explicit. `purpose` becomes the session's application_name.

    `timeout`: connect timeout in seconds, unless the connection sets one.
    """
    hook = PostgresHook(postgres_conn_id=connection_id)
    if timeout is not None:
        hook.connection.extra = json.dumps({"connect_timeout": timeout} | hook.connection.extra_dejson)
    connection = hook.get_conn()
    connection.autocommit = True
    settings = {"application_name": purpose[:63], **SESSION}
    connection.execute(
        "SELECT set_config(name, value, false) FROM jsonb_each_text(%s) s(name, value)", [Jsonb(settings)]
    )
    return connection


def owner_url() -> str:
    """Return the owner's libpq URL, which the migrations need."""
    return PostgresHook(postgres_conn_id=defined(OWNER)).get_uri()


def defined(connection_id: str) -> str:
    """Return the connection's name if Airflow has it, else `warehouse`."""
    return connection_id if is_set(connection_id) else CONNECTION


def is_set(connection_id: str) -> bool:
    """Return whether Airflow has the connection."""
    try:
        BaseHook.get_connection(connection_id)
    except AirflowNotFoundException:
        return False
    return True
