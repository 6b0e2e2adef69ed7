"""The warehouse, through the connection `warehouse`, and other Postgres databases through theirs."""

import json

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook

CONNECTION = "warehouse"


def connect(purpose: str, connection_id: str = CONNECTION, *, timeout: int | None = None) -> psycopg.Connection:
    """Open the database in autocommit: transactions are explicit. The server shows `purpose` of the session.

    `timeout`: seconds after which who can't wait gives up, where the connection says nothing else.
    """
    hook = PostgresHook(postgres_conn_id=connection_id)
    if timeout is not None:
        hook.connection.extra = json.dumps({"connect_timeout": timeout} | hook.connection.extra_dejson)
    connection = hook.get_conn()
    connection.autocommit = True
    connection.execute("SELECT set_config('application_name', %s, false)", [purpose[:63]])
    return connection


def url() -> str:
    """The libpq URL, for the migrations."""
    return PostgresHook(postgres_conn_id=CONNECTION).get_uri()
