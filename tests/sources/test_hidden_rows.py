"""Row level security of an application's tables: rows that it hides from us must not look as if nobody had them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from include.api.errors import FixConfiguration
from include.simulators.flex import Simulator
from include.sources.storage import SOURCE
from include.warehouse import roles
from include.warehouse.row_security import hidden
from stack.postgres import Server
from tests.conftest import as_role
from tests.photos import Photos

from .flex import Agency

HIDDEN = r"row level security hides rows of {} from the user of connection '{}'.*BYPASSRLS"


@pytest.fixture
def role(superuser: psycopg.Connection) -> Iterator[str]:
    """Another role, which owns nothing and may read everything."""
    name = f"viewer_{uuid4().hex}"
    superuser.execute(f"CREATE ROLE {name} IN ROLE {roles.TASKS}")
    yield name
    superuser.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize(
    ("policies", "seen"),
    [
        ([], False),
        (["FOR SELECT USING (true)"], True),
        (["FOR ALL TO {role} USING (true)"], True),
        (["TO warehouse_tasks USING (true)"], True),
        (["TO warehouse_read USING (true)"], False),
        (["USING (job_type <> 'secret')"], False),
        (["FOR UPDATE USING (true)"], False),
        (["USING (job_type <> 'secret')", "USING (true)"], True),
        (["USING (true)", "AS RESTRICTIVE USING (job_type <> 'secret')"], False),
    ],
)
def test_table_shows_all_rows_only_by_a_policy_that_says_so(superuser, role, policies, seen):
    for number, policy in enumerate(policies):
        superuser.execute(f"CREATE POLICY p{number} ON flex.jobs {policy.format(role=role)}")
    superuser.execute(f"SET ROLE {role}")
    assert hidden(superuser, ["flex.profiles", "flex.jobs"]) == []
    superuser.execute("RESET ROLE; ALTER TABLE flex.jobs ENABLE ROW LEVEL SECURITY")
    assert hidden(superuser, ["flex.profiles", "flex.jobs"]) == []
    superuser.execute(f"SET ROLE {role}")
    assert hidden(superuser, ["flex.profiles", "flex.jobs"]) == ([] if seen else ["flex.jobs"])
    superuser.execute(f"RESET ROLE; ALTER ROLE {role} BYPASSRLS; SET ROLE {role}")
    assert hidden(superuser, ["flex.profiles", "flex.jobs"]) == []


@pytest.mark.parametrize("table", ["job_assignments", "flex_crew_calls", "profiles"])
def test_nobody_is_taken_off_because_assignments_are_hidden(account: Simulator, warehouse, postgres, superuser, table):
    account.control.clear()
    url = as_role(roles.TASKS, warehouse, postgres)
    with psycopg.connect(url, autocommit=True) as conn:
        agency = Agency(account, url, conn)
        booked = agency.book()
        agency.hire(booked)
        sync_id = agency.sync().sync_id
        superuser.execute(f"ALTER TABLE flex.{table} ENABLE ROW LEVEL SECURITY")
        for work in (lambda: agency.sync("full"), agency.scan, lambda: agency.roll_back(sync_id)):
            with pytest.raises(FixConfiguration, match=HIDDEN.format(f"flex.{table}", "warehouse")):
                work()
        assert len(agency.crew(booked)) == 1


@contextmanager
def connections(photos: Photos, database: psycopg.Connection) -> Iterator[Any]:
    class Connections:
        @contextmanager
        def bucket(self, name: str) -> Iterator[Any]:
            yield photos.context.bucket

        @contextmanager
        def database(self, name: str) -> Iterator[psycopg.Connection]:
            yield database

    yield Connections()


def test_images_that_are_hidden_are_not_left_out(photos, postgres: Server, images_url):
    photos.images.execute(
        "GRANT USAGE ON SCHEMA public TO warehouse_read; GRANT SELECT ON ALL TABLES IN SCHEMA public TO warehouse_read;"
        " ALTER TABLE images ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON images USING (status <> 'ready')"
    )
    opened = psycopg.connect(as_role(roles.READ, images_url, postgres), autocommit=True)
    with opened as database, connections(photos, database) as means:
        for work in (SOURCE.open(photos.conn, "run", means), SOURCE.copy(photos.conn, means)):
            with pytest.raises(FixConfiguration, match=HIDDEN.format("images", "images_db")), work:
                pass
        photos.images.execute("CREATE POLICY all_of_them ON images FOR SELECT USING (true)")
        with SOURCE.open(photos.conn, "run", means):
            pass
