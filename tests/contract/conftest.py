"""An account of the source that the test is for, and a run on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from include.sources import REGISTRY, get_source
from include.sources.mirror.source import Mirror
from include.warehouse import roles
from stack.new_source import refusal
from stack.postgres import Server
from stack.settings import REPOSITORY
from tests.conftest import copy_of
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
def first_sync(postgres: Server, staged: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """Gives a mirror's first sync: the name of a template, made when a source is first asked for."""
    with ExitStack() as templates:

        @cache
        def synced(source: str) -> str:
            url = templates.enter_context(contextmanager(copy_of)(postgres, staged(source), roles.TASKS))
            opened = import_module(f"tests.contract.{source}").opened
            with opened(url) as account, psycopg.connect(url, autocommit=True) as conn:
                Run(account, conn, run_of(source)).sync()
            return urlsplit(url).path[1:]

        yield synced


@pytest.fixture
def synced_before(request: pytest.FixtureRequest) -> bool:
    """Whether the test's warehouse has the first sync from the start. Accounts of a mirror are all alike."""
    return "filled" in request.fixturenames and isinstance(get_source(request.getfixturevalue("source")), Mirror)


@pytest.fixture
def warehouse(
    request: pytest.FixtureRequest, postgres: Server, migrated: str, staged: Callable[[str], str], synced_before: bool
) -> Iterator[str]:
    """The libpq URL of a warehouse of its own for each test, for the role that tasks have."""
    template = migrated
    if "source" in request.fixturenames:
        templates = request.getfixturevalue("first_sync") if synced_before else staged
        template = templates(request.getfixturevalue("source"))
    yield from copy_of(postgres, template, roles.TASKS)


@pytest.fixture
def account(warehouse: str, owner: psycopg.Connection, source: str) -> Iterator[Account]:
    # The application with the images makes a schema in the warehouse.
    names = map(sql.Identifier, (owner.info.dbname, urlsplit(warehouse).username))
    owner.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(*names))
    with import_module(f"tests.contract.{source}").opened(warehouse) as account:
        yield account


@pytest.fixture
def run(account: Account, conn: psycopg.Connection, source: str) -> Run:
    return Run(account, conn, run_of(source))


@pytest.fixture
def filled(run: Run, synced_before: bool) -> Run:
    """The run, after the first sync. A mirror's was that of another account: this one has not been asked yet."""
    if not synced_before:
        run.sync()
    return run


def run_of(source: str) -> str:
    return f"{source}_reconcile/contract"
