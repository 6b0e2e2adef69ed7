"""The warehouse, through the connection `warehouse`, and other Postgres databases through theirs."""

import json

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook

CONNECTION = "warehouse"


def connect(purpose: str, connection_id: str = CONNECTION, *, timeout: int | None = None) -> psycopg.Connection:
    """Open the database in autocommit: transactions are explicit. `purpose` becomes the session's application_name.

    `timeout`: connect timeout in seconds, unless the connection sets one.
    """
    hook = PostgresHook(postgres_conn_id=connection_id)
    if timeout is not None:
        hook.connection.extra = json.dumps({"connect_timeout": timeout} | hook.connection.extra_dejson)
    connection = hook.get_conn()
    connection.autocommit = True
    connection.execute("SELECT set_config('application_name', %s, false)", [purpose[:63]])
    return connection


def url() -> str:
    """Return the libpq URL, which the migrations need."""
    return PostgresHook(postgres_conn_id=CONNECTION).get_uri()
