from collections.abc import Mapping

import psycopg
import pytest

from include.sources.pools import declared_pools
from stack.prepare import create_missing_pools, metadata_version

# As Airflow's migration makes it.
SLOT_POOL = """
CREATE TABLE slot_pool (
    id serial PRIMARY KEY, pool varchar(256) UNIQUE, slots integer, description text,
    include_deferred boolean NOT NULL, team_name varchar(50)
)
"""


@pytest.fixture
def declared() -> Mapping[str, Mapping]:
    pool = {"slots": 1, "include_deferred": True, "description": "new"}
    return {"a_writer": pool, "b_writer": pool}


def test_missing_pools_are_created_and_a_stopped_writer_stays_stopped(warehouse_url: str, declared: Mapping):
    with psycopg.connect(warehouse_url) as connection:
        connection.execute(SLOT_POOL)
        connection.execute(
            "INSERT INTO slot_pool (pool, slots, description, include_deferred)"
            " VALUES ('b_writer', 0, 'STOPPED epoch=7', true)"
        )
    for _ in range(2):
        create_missing_pools(warehouse_url, declared)
    with psycopg.connect(warehouse_url) as connection:
        pools = connection.execute("SELECT pool, slots, description, include_deferred FROM slot_pool ORDER BY pool")
        assert pools.fetchall() == [("a_writer", 1, "new", True), ("b_writer", 0, "STOPPED epoch=7", True)]


def test_declared_pools_have_one_slot_and_count_deferred_tasks():
    for name, pool in declared_pools().items():
        assert name.endswith("_writer")
        assert (pool["slots"], pool["include_deferred"]) == (1, True)


def test_metadata_version_changes_with_the_schema(warehouse_url: str):
    assert metadata_version(warehouse_url) == "none"
    seen = set()
    for revision in ("one", "two"):
        with psycopg.connect(warehouse_url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num text)")
            connection.execute("DELETE FROM alembic_version")
            connection.execute("INSERT INTO alembic_version VALUES (%s)", [revision])
        seen.add(metadata_version(warehouse_url))
    assert len(seen) == 2
