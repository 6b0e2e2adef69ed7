"""Bring the databases up to what the code needs: `python -m stack.prepare`.

That is Airflow's metadata, the warehouse's tables, and the pools of the installed sources that don't exist yet. Safe at
every start.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import psycopg

from include.sources.installed import WrongSources
from include.sources.pools import declared_pools

AIRFLOW_MIGRATION = [sys.executable, "-m", "airflow", "db", "migrate"]
WAREHOUSE_MIGRATION = [sys.executable, "-m", "include.warehouse.migrate"]


def metadata_url(environment: Mapping[str, str]) -> str:
    """The libpq URL of Airflow's metadata database."""
    return urlsplit(environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])._replace(scheme="postgresql").geturl()


def metadata_version(url: str) -> str:
    """What tells one state of Airflow's schema from another: installed version and database revision."""
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return "none"
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return f"{version('apache-airflow-core')} {revision}"


def create_missing_pools(url: str, declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Create the declared pools that the metadata database at `url` lacks.

    An existing pool is never touched: one with 0 slots is a stopped writer, and stays so over a restart.
    """
    with psycopg.connect(url) as connection:
        connection.cursor().executemany(
            """
            INSERT INTO slot_pool (pool, slots, description, include_deferred)
            VALUES (%(name)s, %(slots)s, %(description)s, %(include_deferred)s)
            ON CONFLICT (pool) DO NOTHING
            """,
            [{"name": name, **pool} for name, pool in declared.items()],
        )


def main() -> None:
    try:
        pools = declared_pools()
    except WrongSources as error:
        sys.exit(f"prepare: {error}")
    for command in (AIRFLOW_MIGRATION, WAREHOUSE_MIGRATION):
        subprocess.run(command, check=True)
    create_missing_pools(metadata_url(os.environ), pools)


if __name__ == "__main__":
    main()
