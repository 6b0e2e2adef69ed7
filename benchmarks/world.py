"""What is measured against: a Postgres of the benchmarks' own, and simulated accounts, each in its process."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.measure import REPOSITORY
from include.simulators.repairshopr import Config, Control, Simulator
from include.warehouse.migrate import migrate
from stack.postgres import Postgres

TEMPLATE = "template_warehouse"


@contextmanager
def database_server() -> Iterator[Postgres]:
    """A fresh embedded Postgres with the stack's settings; nothing of it is left afterwards."""
    parent = REPOSITORY / ".stack"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder, Postgres(Path(folder) / "pg") as postgres:
        postgres.create_database(TEMPLATE)
        migrate(postgres.url(TEMPLATE))
        yield postgres


@contextmanager
def warehouse(postgres: Postgres, name: str) -> Iterator[str]:
    """The URL of a migrated, empty warehouse."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as conn:
        names = [sql.Identifier(name), sql.Identifier(TEMPLATE)]
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    yield postgres.url(name)
    postgres.drop_database(name)


@contextmanager
def account(*, limit: int | None = None, **sizes: int) -> Iterator[Simulator]:
    """A simulated account with these numbers of rows and a few of what they point to; `limit`: requests a minute."""
    rows = {"customers": 100, "products": 100, "payments": 0, "tickets": 0, "estimates": 0} | sizes
    options = [f"--{name.replace('_', '-')}={count}" for name, count in rows.items()]
    options.append(f"--invoices={max(1, rows.get('line_items', 0) // 4)}")
    options.append("--no-limit" if limit is None else f"--rate-limit={limit}")
    command = [sys.executable, "-m", "include.simulators.repairshopr", *options]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[-1]
        yield Simulator(url, Config().token, Control(url))
    finally:
        process.kill()
        process.communicate()
