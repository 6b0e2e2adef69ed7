"""Bring the databases up to what the code needs: `python -m stack.prepare`.

That is Airflow's metadata, the warehouse's tables, and the pools of the installed sources that don't exist yet. Safe at
every start.

If ROLES_FILE is set, the databases and their roles are made first. The file is JSON: `superuser`, the libpq URL of the
server's superuser, and `passwords`, by role.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg

from include.sources.installed import WrongSources
from include.sources.pools import declared_pools
from include.warehouse.roles import OWNER
from stack import roles
from stack.postgres import Server

AIRFLOW_MIGRATION = [sys.executable, "-m", "airflow", "db", "migrate"]
WAREHOUSE_MIGRATION = [sys.executable, "-m", "include.warehouse.migrate"]


def setting(environment: Mapping[str, str], name: str) -> str:
    """Airflow's setting of that variable: its value, or what the command of its variable `_CMD` prints."""
    if value := environment.get(name):
        return value
    command = shlex.split(environment[f"{name}_CMD"])
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def metadata_url(environment: Mapping[str, str]) -> str:
    """The libpq URL of Airflow's metadata database."""
    url = setting(environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    return urlsplit(url)._replace(scheme="postgresql").geturl()


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


def _set_up_roles(file: Path) -> dict[str, str]:
    """Make the roles and databases; return the variable with the warehouse's URL for its owner."""
    given = json.loads(file.read_text())
    server, passwords = Server(given["superuser"]), given["passwords"]
    roles.set_up(server.url, passwords)
    url = urlsplit(server.url("warehouse"))
    place = url.netloc.rpartition("@")[2]
    login = f"{OWNER}:{quote(passwords[OWNER], safe='')}"
    return {"AIRFLOW_CONN_WAREHOUSE_OWNER": url._replace(netloc=f"{login}@{place}").geturl()}


def main() -> None:
    """Prepare both databases for the stack: the roles if a file has them, the migrations, the pools."""
    try:
        pools = declared_pools()
    except WrongSources as error:
        sys.exit(f"prepare: {error}")
    owner_login = _set_up_roles(Path(os.environ["ROLES_FILE"])) if "ROLES_FILE" in os.environ else {}
    subprocess.run(AIRFLOW_MIGRATION, check=True)
    subprocess.run(WAREHOUSE_MIGRATION, env={**os.environ, **owner_login}, check=True)
    create_missing_pools(metadata_url(os.environ), pools)


if __name__ == "__main__":
    main()
