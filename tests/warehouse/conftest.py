"""Warehouses with the tests' own source beside the registered ones."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from include.warehouse import roles
from include.warehouse.migrations.ddl import create_mirror
from stack.postgres import Server
from tests.conftest import copy_of, make_copy
from tests.warehouse.shop import FAMILY, SOURCE, TABLES


@pytest.fixture(scope="session")
def with_shop(postgres: Server, migrated: str) -> Iterator[str]:
    """The name of a migrated database with the tables of the tests' source."""
    name = f"template_{uuid4().hex}"
    make_copy(postgres, name, migrated)
    add_shop(postgres.url(name, roles.OWNER))
    yield name
    postgres.drop_database(name)


def add_shop(url: str) -> None:
    """Create the source's tables as a migration would."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        op.execute(f"CREATE SCHEMA {SOURCE}")
        for table, (key, columns) in TABLES.items():
            create_mirror(SOURCE, table.name, key, columns)
        for table, (key, columns, constraints) in FAMILY.items():
            create_mirror(SOURCE, table.name, key, columns, constraints=constraints)
        connection.execute(text("INSERT INTO confidence.writer (source) VALUES (:source)"), {"source": SOURCE})
        roles.grant(connection)
    engine.dispose()


@pytest.fixture
def warehouse(postgres: Server, with_shop: str) -> Iterator[str]:
    """The superuser's URL of a warehouse of its own for each test: many of them make or change tables."""
    yield from copy_of(postgres, with_shop)


@pytest.fixture
def connect(warehouse: str) -> Iterator[Callable[..., psycopg.Connection]]:
    """Opens further sessions on the test's warehouse, named as given."""
    opened = []

    def connect_(name: str = "") -> psycopg.Connection:
        opened.append(psycopg.connect(warehouse, autocommit=True, application_name=name))
        return opened[-1]

    yield connect_
    for connection in opened:
        connection.close()
