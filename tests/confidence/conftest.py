"""One migrated warehouse for all tests here: nothing is ever committed, so each test finds it empty."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from include.warehouse import roles
from include.warehouse.migrate import migrate
from stack.postgres import Server


@pytest.fixture(scope="session")
def migrated_url(postgres: Server) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    postgres.create_database(name)
    migrate(postgres.url(name, roles.OWNER))
    yield postgres.url(name, roles.TASKS)
    postgres.drop_database(name)


@pytest.fixture
def conn(migrated_url: str) -> Iterator[psycopg.Connection]:
    """A transaction with a stopped writer; rolled back at the end."""
    with psycopg.connect(migrated_url) as conn:
        conn.execute(
            "UPDATE confidence.writer SET state = 'stopped', epoch = 1, run = 'tonight' WHERE source = 'repairshopr'"
        )
        yield conn
        conn.rollback()
