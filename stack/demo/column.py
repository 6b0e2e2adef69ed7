"""A column made of a kept field, on trial: project and warehouse stay as they are.

The command writes into a temporary copy of the project. Its migration runs in a transaction that is rolled back.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from stack.guardian import StackError
from stack.settings import REPOSITORY

# What the command reads and writes.
PARTS = ("include", "stack")


@dataclass(frozen=True)
class Trial:
    """What `make column` has written: what it tells, and the warehouse after its migration, not committed."""

    told: str
    migration: str
    warehouse: psycopg.Connection


@contextmanager
def column_on_trial(warehouse_url: str, source: str, table: str, field: str) -> Iterator[Trial]:
    """Make a column of the field and yield the trial; undo all of it at the end. Raises StackError."""
    with TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in PARTS:
            shutil.copytree(REPOSITORY / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        told = _make(copy, source, table, field)
        [migration] = _migrations(copy) - _migrations(REPOSITORY)
        path = copy / migration
        with _migrated(warehouse_url, path) as warehouse:
            yield Trial(told, path.read_text(), warehouse)


def _make(copy: Path, source: str, table: str, field: str) -> str:
    """Run the command in the copy; return what it prints."""
    command = [sys.executable, "-m", "stack.new_column", source, table, field]
    known = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=known, capture_output=True, text=True)
    if done.returncode:
        raise StackError(f"make column failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _migrations(project: Path) -> set[Path]:
    return {path.relative_to(project) for path in project.glob("include/warehouse/migrations/versions/*.py")}


@contextmanager
def _migrated(warehouse_url: str, migration: Path) -> Iterator[psycopg.Connection]:
    """Yield a connection to the warehouse as it is after the migration; roll back at the end."""
    spec = spec_from_file_location(migration.stem, migration)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    engine = create_engine(make_url(warehouse_url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            with Operations.context(MigrationContext.configure(connection)):
                module.upgrade()
            yield connection.connection.driver_connection
            transaction.rollback()
    finally:
        engine.dispose()
