"""Columns of a vendor that are called as the names in our own SQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from include.api.client import ApiClient
from include.api.errors import ApiError, NotFound
from include.api.paginators import PageNumber
from include.api.request import Answer, Request
from include.sources.base import NOTHING
from include.sources.mirror.changes import Since
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Listed, Part
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.repair import repair_entities, verify_repair
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence
from include.warehouse.migrations.ddl import create_mirror
from include.warehouse.readers import instant
from include.warehouse.rollback import roll_back
from include.warehouse.table import Column, Table, add
from include.warehouse.table_rollback import Tables

NAMES = (
    *(
        "c",
        "d",
        "i",
        "n",
        "o",
        "p",
        "q",
        "r",
        "s",
        "t",
        "u",
        "w",
        "after",
        "asked",
        "at",
        "before",
        "changes",
        "copy",
        "count",
    ),
    *(
        "element",
        "elsewhere",
        "entity",
        "field",
        "found",
        "from_page",
        "gone",
        "identical",
        "key",
        "kept",
        "known",
        "last",
        "listed",
        "looked",
    ),
    *(
        "mine",
        "missing",
        "moment",
        "name",
        "new",
        "old",
        "older",
        "operation",
        "order_by",
        "outdated",
        "place",
        "plan",
        "rank",
        "recent",
    ),
    *(
        "reason",
        "records",
        "run",
        "shown",
        "source",
        "stage",
        "status",
        "theirs",
        "turn",
        "unlike",
        "usable",
        "value",
        "why",
    ),
)
WORDS = tuple(map(Column, NAMES))
EVENTS = Table(
    "words",
    "events",
    (Column("id"), *WORDS, Column("updated_at", instant)),
    required=("updated_at",),
    ignored={"parts": "they are rows of parts"},
)
PARTS = Table(
    "words", "parts", (Column("id"), Column("event_id"), *WORDS), version=None, added=("event_id",), keeps_extra=False
)
LOOKUP = Lookup(lambda id_: Request(f"/events/{quote(id_, safe='')}", check=names(id_, "id")), lambda data: [data])
SOURCE = Mirror(
    name="words",
    base_path="",
    authorize=lambda token: {},
    every=timedelta(minutes=5),
    entities=(
        Listed(
            table=EVENTS,
            listing=Request("/events"),
            paginator=PageNumber("events"),
            lookup=LOOKUP,
            changes=Since("since"),
            parts=(
                Part(PARTS, lambda event: [add(row, event_id=event["id"]) for row in event["parts"]], ("event_id",)),
            ),
            leaves_out=NOTHING,
        ),
    ),
)


class Vendor(ApiClient):
    """Answers without a network."""

    def __init__(self) -> None:
        super().__init__("words", "http://words.example")
        self.events: dict[str, dict[str, Any]] = {}

    def put(self, id_: str, word: str, days: int = 0) -> None:
        words, moment = dict.fromkeys(NAMES, word), datetime.now(UTC) - timedelta(days=days)
        parts = [{"id": f"{id_}-{number}", **words} for number in range(2)]
        self.events[id_] = {"id": id_, **words, "updated_at": moment.isoformat(), "parts": parts}

    def _exchange(self, request: Request) -> Answer | ApiError:
        _, _, id_ = request.path[1:].partition("/")
        if id_ and id_ not in self.events:
            return NotFound("404")
        rows = list(self.events.values())
        total = {"total_pages": 1, "total_entries": len(rows)}
        return Answer(self.events[id_] if id_ else {"events": rows, "meta": total}, datetime.now(UTC))


@pytest.fixture
def context(conn: psycopg.Connection, warehouse: str) -> Iterator[MirrorContext]:
    engine = create_engine(make_url(warehouse).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        op.execute("CREATE SCHEMA words")
        words = dict.fromkeys(NAMES, "text")
        create_mirror("words", "events", {"id": "text"}, {**words, "updated_at": "timestamptz", "extra": "jsonb"})
        create_mirror("words", "parts", {"id": "text"}, {"event_id": "text", **words})
        connection.execute(text("INSERT INTO confidence.writer (source) VALUES ('words')"))
    engine.dispose()
    with Vendor() as vendor:
        yield MirrorContext(SOURCE, vendor, conn, "words_reconcile/test")


def copied(conn: psycopg.Connection) -> list[tuple]:
    query = 'SELECT e.id, e."t", p."old" FROM words.events e JOIN words.parts p ON p.event_id = e.id'
    return conn.execute(f"{query} WHERE e.deleted_at IS NULL AND p.deleted_at IS NULL GROUP BY 1, 2, 3 ORDER BY 1")


def test_columns_may_be_called_as_anything(context, conn):
    vendor, true = context.client, [("a", "first", "first"), ("b", "second", "second"), ("d", "new", "new")]
    vendor.put("a", "first", days=3)
    vendor.put("b", "first", days=3)
    vendor.put("c", "first", days=3)
    sync_entities(context)
    vendor.put("b", "second", days=2)
    sync_entities(context)
    vendor.put("d", "new", days=2)
    del vendor.events["c"]
    conn.execute("UPDATE words.events SET \"n\" = 'spoilt' WHERE id = 'a'")
    conn.execute("UPDATE words.parts SET \"s\" = 'spoilt' WHERE event_id = 'a'")
    writer = fence.stop(conn, "words", context.run, timeout=5)
    summary = scan_entity(context, SOURCE.entities[0], writer.epoch, Scope.of({"progress_every": 250}))
    sync_id, counts = repair_entities(context, [summary])
    assert (counts["events"].inserted, counts["events"].updated, counts["events"].deleted) == (1, 1, 1)
    assert not [check for check in verify_repair(context, [summary], sync_id) if check.worse]
    assert list(copied(conn)) == true
    audit = "SELECT before ->> 'n', after ->> 'n' FROM confidence.change_log WHERE sync_id = %s AND before ? 'id'"
    assert ("spoilt", "first") in conn.execute(audit, [sync_id]).fetchall()
    fence.resume(conn, "words", context.run)
    roll_back(conn, Tables(conn), sync_id, run="a person", reason="a test", dry_run=False)
    assert [id_ for id_, *_ in copied(conn)] == ["a", "b", "c"]
