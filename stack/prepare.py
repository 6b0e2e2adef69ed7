"""Bring the databases up to what the code needs: `python -m stack.prepare`.

That is Airflow's metadata, the warehouse's tables, and the pools of the installed sources that don't exist yet. Safe at
every start.

If ROLES_FILE is set, the databases and their roles are made first. The file is JSON: `superuser`, the libpq URL of the
server's superuser, and `passwords`, by role.
"""

import argparse
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

AIRFLOW_MIGRATION = [sys.executable, "-m", "stack.command", "db", "migrate"]
WAREHOUSE_MIGRATION = [sys.executable, "-m", "include.warehouse.migrate"]

METADATA_SETTING = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
ROLES_SETTING = "ROLES_FILE"


class NotPrepared(Exception):
    """What is missing or wrong, in one line. Nothing was changed."""


def setting(environment: Mapping[str, str], name: str) -> str:
    """Return Airflow's setting of that variable: its value, or what the command of its variable `_CMD` prints."""
    if value := environment.get(name):
        return value
    command = shlex.split(environment[f"{name}_CMD"])
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def metadata_url(environment: Mapping[str, str]) -> str:
    """Return the libpq URL of Airflow's metadata database."""
    url = setting(environment, METADATA_SETTING)
    return urlsplit(url)._replace(scheme="postgresql").geturl()


def metadata_version(url: str) -> str:
    """Return what tells one state of Airflow's schema from another: installed version and database revision."""
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
    try:
        given = json.loads(file.read_text())
        server, passwords = Server(given["superuser"]), given["passwords"]
        owner_password = passwords[OWNER]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotPrepared(
            f"{ROLES_SETTING}={file} can't be read as JSON with `superuser` and `passwords` ({type(error).__name__});"
            " docs/deploy.md shows one"
        ) from error
    try:
        roles.set_up(server.url, passwords)
    except psycopg.OperationalError as error:
        raise NotPrepared(f"the superuser that {ROLES_SETTING}={file} names can't connect: {error}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPrepared(f"who {ROLES_SETTING}={file} names is no superuser: {error.diag.message_primary}") from error
    url = urlsplit(server.url("warehouse"))
    place = url.netloc.rpartition("@")[2]
    login = f"{OWNER}:{quote(owner_password, safe='')}"
    return {"AIRFLOW_CONN_WAREHOUSE_OWNER": url._replace(netloc=f"{login}@{place}").geturl()}


def _check_metadata(environment: Mapping[str, str]) -> None:
    """Refuse to go on without a database of Airflow's: it would make one in SQLite, in the home folder."""
    if not environment.keys() & {METADATA_SETTING, f"{METADATA_SETTING}_CMD"}:
        raise NotPrepared(f"{METADATA_SETTING} is not in the environment: set it to Airflow's database in Postgres")


def main() -> None:
    """Prepare both databases for the stack: the roles if a file has them, the migrations, the pools."""
    about = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser("python -m stack.prepare", description=__doc__, formatter_class=about).parse_args()
    try:
        pools = declared_pools()
        _check_metadata(os.environ)
        owner_login = _set_up_roles(Path(os.environ[ROLES_SETTING])) if ROLES_SETTING in os.environ else {}
    except (WrongSources, NotPrepared) as error:
        sys.exit(f"prepare: {error}")
    subprocess.run(AIRFLOW_MIGRATION, check=True)
    subprocess.run(WAREHOUSE_MIGRATION, env={**os.environ, **owner_login}, check=True)
    create_missing_pools(metadata_url(os.environ), pools)


if __name__ == "__main__":
    main()
