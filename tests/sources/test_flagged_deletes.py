"""A source whose list goes on to show deleted records with a flag, while their own addresses say 404."""

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import quote

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from include.api.client import ApiClient
from include.api.paginators import Single
from include.api.request import Request
from include.confidence import unproven
from include.simulators import serving
from include.sources.base import NOTHING, SyncFailed
from include.sources.mirror.changes import FullList
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Listed
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.lookup_results import LISTED_ONLY
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence
from include.warehouse.migrations.ddl import create_mirror
from include.warehouse.readers import boolean, instant
from include.warehouse.table import Column, Table
from tests.stub import Store, Stub

LOANS = Table(
    "library",
    "loans",
    (Column("id"), Column("tool"), Column("is_deleted", boolean), Column("changed", instant)),
    version="changed",
    tombstone="is_deleted",
)
ENTITY = Listed(
    LOANS,
    Lookup(request=lambda id_: Request(f"/loans/{quote(id_, safe='')}"), rows=lambda data: [data]),
    Request("/loans"),
    Single(),
    changes=FullList(),
    leaves_out=NOTHING,
)
SOURCE = Mirror("library", "", lambda token: {}, (ENTITY,), timedelta(minutes=5))


class Hiding(Stub):
    """Answers 404 to look-ups of the records in `hidden`, also while the list shows them."""

    hidden: tuple[str, ...] = ()

    def _look(self, route, request, values):
        if any(value in self.hidden for (value,) in values):
            return 404, {"error": "not found"}
        return super()._look(route, request, values)


@pytest.fixture
def stub() -> Hiding:
    return Hiding(
        Store(
            SOURCE, {"loans": [{"id": "a", "tool": "Hammer", "is_deleted": False, "changed": "2026-03-01T08:00:00Z"}]}
        )
    )


@pytest.fixture
def context(stub: Hiding, conn: psycopg.Connection, warehouse: str) -> Iterator[MirrorContext]:
    """The source, synced once."""
    engine = create_engine(make_url(warehouse).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        op.execute("CREATE SCHEMA library")
        columns = {"tool": "text", "is_deleted": "boolean", "changed": "timestamptz", "extra": "jsonb"}
        create_mirror("library", "loans", {"id": "text"}, columns)
        connection.execute(text("INSERT INTO confidence.writer (source) VALUES ('library')"))
    engine.dispose()
    with serving.in_thread(stub) as url, ApiClient("library", url, attempts=1) as client:
        context = MirrorContext(SOURCE, client, conn, "library_reconcile/test")
        sync_entities(context)
        yield context


def flag(stub: Hiding, *ids: str) -> None:
    for place, row in enumerate(stub.store.rows["loans"]):
        if row["id"] in ids:
            stub.store.rows["loans"][place] = {**row, "is_deleted": True, "changed": "2026-03-02T08:00:00Z"}
    stub.hidden = ids


def flagged(conn: psycopg.Connection) -> set[str]:
    return {id_ for (id_,) in conn.execute("SELECT id FROM library.loans WHERE is_deleted AND deleted_at IS NULL")}


def test_a_sync_believes_the_flag(context, stub, conn):
    flag(stub, "a-1", "a-2")
    sync_entities(context)
    assert flagged(conn) == {"a-1", "a-2"}


def test_a_scan_plans_the_flag_and_a_new_flagged_record(context, stub, conn):
    flag(stub, "a-1", "a-2")
    # What changed before the last sync is drift.
    conn.execute("UPDATE confidence.sync_state SET watermark = now() WHERE source = 'library'")
    conn.execute("DELETE FROM library.loans WHERE id = 'a-2'")
    writer = fence.stop(conn, "library", context.run, timeout=1)
    summary = scan_entity(context, ENTITY, writer.epoch, Scope())
    assert (vars(summary.plan), summary.metrics["unproven"]) == ({"insert": 1, "update": 1, "delete": 0}, 0)


def test_a_living_record_that_only_the_list_shows_stays_unproven(context, stub, conn):
    stub.hidden = ("a-3",)
    conn.execute("UPDATE library.loans SET tool = 'Saw' WHERE id = 'a-3'")
    with pytest.raises(SyncFailed, match="its own address shows it as deleted or not at all"):
        sync_entities(context)
    writer = fence.stop(conn, "library", context.run, timeout=1)
    summary = scan_entity(context, ENTITY, writer.epoch, Scope())
    assert summary.plan.update == 0
    assert [(row.key, row.why) for row in unproven.of(conn, "library", "loans")] == [(["a-3"], LISTED_ONLY)]
