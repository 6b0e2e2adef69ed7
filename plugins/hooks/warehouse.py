"""The warehouse, through the connection `warehouse`, and other Postgres databases through theirs."""

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook

CONNECTION = "warehouse"


def connect(purpose: str, connection_id: str = CONNECTION) -> psycopg.Connection:
    """Open the database in autocommit: transactions are explicit. The server shows `purpose` of the session."""
    connection = PostgresHook(postgres_conn_id=connection_id).get_conn()
    connection.autocommit = True
    connection.execute("SELECT set_config('application_name', %s, false)", [purpose[:63]])
    return connection


def url() -> str:
    """The libpq URL, for the migrations."""
    return PostgresHook(postgres_conn_id=CONNECTION).get_uri()
