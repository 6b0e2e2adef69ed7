"""An account of the source that the test is for, and a run on it."""

from collections.abc import Iterator
from importlib import import_module
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from include.sources import REGISTRY
from stack.new_source import refusal
from stack.postgres import Server
from stack.settings import REPOSITORY
from tests.conftest import with_staging_tables
from tests.contract.account import Account, Run


def pytest_sessionstart() -> None:
    """End here, with one line, where a source or its adapter can't be used: many tests would fail for that alone."""
    for source in REGISTRY:
        try:
            import_module(f"tests.contract.{source}")
        except pytest.Collector.CollectError as error:
            pytest.exit(str(error), returncode=1)
        except Exception as error:  # noqa: BLE001 - the author's code may fail in any way
            pytest.exit(refusal(REPOSITORY / "tests" / "contract" / f"{source}.py", error), returncode=1)


@pytest.fixture(scope="session")
def migrated(postgres: Server, migrated: str) -> Iterator[str]:
    """The template of these tests' warehouses."""
    yield from with_staging_tables(postgres, migrated)


@pytest.fixture
def account(warehouse: str, owner: psycopg.Connection, source: str) -> Iterator[Account]:
    # The application with the images makes a schema in the warehouse.
    names = map(sql.Identifier, (owner.info.dbname, urlsplit(warehouse).username))
    owner.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(*names))
    with import_module(f"tests.contract.{source}").opened(warehouse) as account:
        yield account


@pytest.fixture
def run(account: Account, conn: psycopg.Connection, source: str) -> Run:
    return Run(account, conn, f"{source}_reconcile/contract")


@pytest.fixture
def filled(run: Run) -> Run:
    """The run, after the account's first sync."""
    run.sync()
    return run
