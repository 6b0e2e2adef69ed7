"""Bring the warehouse's tables up to date: `python -m include.warehouse.migrate`."""

import os
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from include.warehouse import roles


class NewerWarehouse(Exception):
    """A newer version has migrated the warehouse. Nothing was changed. The message says what to do."""


# An advisory lock: if start-up and the DAG migrate at the same moment, one waits and then finds nothing to do.
LOCK = 7_205_759_403


def migrate(url: str) -> str:
    """Run all missing migrations on the warehouse at the libpq URL `url`; return the revision that it has then.

    Grants the roles of `roles` what they need. The URL's role becomes the owner of all that is made. Raises
    NewerWarehouse if the warehouse has a revision that this version does not know.
    """
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            connection.execute(text("CREATE SCHEMA IF NOT EXISTS confidence"))
            config.attributes["connection"] = connection
            _refuse_newer(connection, config)
            command.upgrade(config, "head")
            revision = connection.execute(text("SELECT version_num FROM confidence.alembic_version")).scalar_one()
            _ensure(connection, config, revision)
            roles.grant(connection)
            return revision
    finally:
        engine.dispose()


def _refuse_newer(connection: Connection, config: Config) -> None:
    current = MigrationContext.configure(connection, opts={"version_table_schema": "confidence"})
    revision = current.get_current_revision()
    if revision not in (None, *(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())):
        raise NewerWarehouse(
            f"the warehouse is at revision {revision}, which this version does not know: a newer version has migrated"
            " it. Nothing was changed. Start the newer version again, or restore the backup from before the upgrade"
        )


def _ensure(connection: Connection, config: Config, revision: str) -> None:
    """Call `ensure()` of each migration up to `revision` that defines it. It is called on every run of migrations."""
    scripts = list(ScriptDirectory.from_config(config).iterate_revisions(revision, "base"))
    with Operations.context(MigrationContext.configure(connection)):
        for script in reversed(scripts):
            if ensure := getattr(script.module, "ensure", None):
                ensure()


def main() -> None:
    """Migrate the warehouse that the environment's AIRFLOW_CONN_WAREHOUSE_OWNER names, else AIRFLOW_CONN_WAREHOUSE."""
    url = os.environ.get("AIRFLOW_CONN_WAREHOUSE_OWNER") or os.environ.get("AIRFLOW_CONN_WAREHOUSE")
    if not url:
        sys.exit(
            "AIRFLOW_CONN_WAREHOUSE is not set: give the warehouse as postgresql://user:password@host:port/database"
        )
    try:
        print(f"warehouse is at revision {migrate(url)}")
    except NewerWarehouse as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
