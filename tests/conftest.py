"""Servers that the tests share: started once a session, gone at its end."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import product
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from psycopg import sql

from include.confidence import spans
from include.sources import REGISTRY, get_source
from include.sources.mirror.source import Mirror
from include.warehouse import roles
from include.warehouse.migrate import migrate
from include.warehouse.staging import Stage
from include.warehouse.table import Table
from stack.postgres import Postgres, Server
from stack.settings import SIMULATORS
from tests.folders import quick_folder
from tests.workers import REDIS

pytest_plugins = ["tests.running_platform"]

# After an interrupt pytest ends what its fixtures have started. Who ends a run from outside sends SIGTERM.
signal.signal(signal.SIGTERM, signal.default_int_handler)

# What comes with no package. In CI a missing one is an error; elsewhere its tests are left out, and it is told.
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = {
    tests: f"no {program} found: tests/{tests} is left out (Debian: apt install {package})"
    for tests, program, package, found in (
        ("browser", "Chromium", "chromium", BROWSER),
        ("scheduler/test_workers.py", "Redis", "redis-server", REDIS),
    )
    if not found
}
LEFT_OUT = {} if os.environ.get("CI") else MISSING
collect_ignore = list(LEFT_OUT)


# Of the files that run a whole stack, those that take longest: one process plays a file, so they begin first.
LONGEST = (
    "test_workers.py",
    "test_sources.py",
    "test_order.py",
    "test_fab.py",
    "test_cases.py",
    "test_crash.py",
    "test_marks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


# The collection makes 800,000 objects that stay to the end. To look through them again and again for garbage took 40 %
# of its time, and went on to take time in the tests.
def pytest_collection() -> None:
    """Let no garbage be looked for while the tests are collected."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage once, and from now on only among what the tests make."""
    gc.collect()
    gc.freeze()
    # A test makes little garbage beside what it uses, and a look is due after every 700 objects by default.
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


def pytest_report_header() -> list[str]:
    """Say what is left out."""
    stubbed = [source for source in REGISTRY if source not in SIMULATORS]
    without = [f"no simulator, so neither scenario nor lies: {', '.join(stubbed)}"] if stubbed else []
    return [*LEFT_OUT.values(), *without]


# Airflow reads its settings when it is first imported. No test may reach what the developer's shell names (a real
# account's connection or keys, say), write because the shell allows it, nor write into a home folder.
OTHERS = ("AIRFLOW", "AWS_", "FLEX_", "RECONCILE_ENABLED", "STACK_", "SYNC_CONFIDENCE_", "WAREHOUSE_")
for name in [name for name in os.environ if name.startswith(OTHERS) and name != "STACK_POSTGRES_URL"]:
    del os.environ[name]
airflow_home = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = airflow_home.name


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A Postgres for the whole session: the one that STACK_POSTGRES_URL names, else an embedded one."""
    if named := os.environ.get("STACK_POSTGRES_URL"):
        with Server(named) as server:
            yield server
    else:
        # fsync protects from a crash of the machine, which no test makes.
        with quick_folder("postgres") as folder, Postgres(folder / "postgres", settings={"fsync": "off"}) as server:
            yield server


@pytest.fixture
def warehouse_url(postgres: Server) -> Iterator[str]:
    """The libpq URL of a fresh, empty database of its own for each test."""
    name = f"test_{uuid4().hex}"
    postgres.create_database(name)
    yield postgres.url(name, roles.OWNER)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def migrated(postgres: Server) -> Iterator[str]:
    """The name of a migrated database, the template of the others."""
    name = f"template_{uuid4().hex}"
    postgres.create_database(name)
    migrate(postgres.url(name, roles.OWNER))
    yield name
    postgres.drop_database(name)


def copy_of(postgres: Server, template: str, role: str | None = None) -> Iterator[str]:
    """The URL of a copy of the database `template` for the role, or the superuser; the copy is gone afterwards."""
    name = f"test_{uuid4().hex}"
    make_copy(postgres, name, template)
    yield postgres.url(name, role)
    postgres.drop_database(name)


def make_copy(postgres: Server, name: str, template: str) -> None:
    """Create the database `name` as a copy of `template`, for the same owner."""
    owner = urlsplit(postgres.url(template, roles.OWNER)).username
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY FILE_COPY").format(
                *map(sql.Identifier, (name, template, owner))
            )
        )


def as_role(role: str | None, url: str, postgres: Server) -> str:
    """The URL of the warehouse at `url` for the role, or the superuser."""
    return postgres.url(urlsplit(url).path[1:], role)


def with_staging_tables(
    postgres: Server, migrated: str, source: str, pulls: Iterable[tuple[Table, str]]
) -> Iterator[str]:
    """The name of a template that has the staging tables of a source's `pulls` too, each a table and a purpose."""
    name = f"template_{uuid4().hex}"
    make_copy(postgres, name, migrated)
    with psycopg.connect(postgres.url(name, roles.TASKS), autocommit=True) as conn:
        for table, purpose in pulls:
            Stage.open(conn, table, source, purpose, "tests").drop()
    yield name
    postgres.drop_database(name)


def pulls_of(mirror: Mirror) -> Iterator[tuple[Table, str]]:
    """The pulls that each sync and each scan of a mirror makes."""
    yield from product((table for entity in mirror.entities for table in entity.tables), ("sync", "scan"))
    yield from ((derived.table, "derive") for derived in mirror.derived)
    needed = {need.entity for entity in mirror.entities for need in entity.needs}
    yield from ((entity.table, "need") for entity in mirror.entities if entity.name in needed)


@pytest.fixture(scope="session")
def staged(postgres: Server, migrated: str) -> Iterator[Callable[[str], str]]:
    """Gives the template with a mirror's staging tables, made when it is first asked for; of another source `migrated`.

    To create these tables takes most of a sync; to copy those of all mirrors takes as long as all else in the template.
    """
    with ExitStack() as templates:

        @cache
        def template(source: str) -> str:
            mirror = get_source(source)
            if not isinstance(mirror, Mirror):
                return migrated
            made = contextmanager(with_staging_tables)(postgres, migrated, source, pulls_of(mirror))
            return templates.enter_context(made)

        yield template


@pytest.fixture
def warehouse(postgres: Server, migrated: str) -> Iterator[str]:
    """The libpq URL of a migrated warehouse of its own for each test, for the role that tasks have."""
    yield from copy_of(postgres, migrated, roles.TASKS)


@pytest.fixture
def superuser(warehouse: str, postgres: Server) -> Iterator[psycopg.Connection]:
    """The test's warehouse in the hand of one who may do anything."""
    with psycopg.connect(as_role(None, warehouse, postgres), autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner_url(warehouse: str, postgres: Server) -> str:
    """The URL of the test's warehouse for its owner, who may do more than tasks."""
    return as_role(roles.OWNER, warehouse, postgres)


@pytest.fixture
def owner(owner_url: str) -> Iterator[psycopg.Connection]:
    """The test's warehouse in the hand of its owner."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def conn(warehouse: str) -> Iterator[psycopg.Connection]:
    """The test's warehouse, in autocommit as every task has it."""
    with psycopg.connect(warehouse, autocommit=True) as connection:
        yield connection


@pytest.fixture
def ended_spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[ReadableSpan]]:
    """Those spans that have ended since the last call, in the order of their ends."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "tracer", provider.get_tracer("tests"))

    def ended() -> list[ReadableSpan]:
        found = list(exporter.get_finished_spans())
        exporter.clear()
        return found

    return ended
