"""Sources that a test declares, and the vendor of each: a function that answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import sql
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from include.api.client import ApiClient
from include.api.request import Request
from include.confidence.summary import ForensicSummary
from include.simulators import serving
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.repair import repair_entities
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence, readers
from include.warehouse.migrations.ddl import create_mirror

TYPES = {
    readers.text: "text",
    readers.integer: "bigint",
    readers.identifier: "bigint",
    readers.boolean: "boolean",
    readers.instant: "timestamptz",
}
# What the vendor answers: JSON, None for a 404, or a whole response.
Answers = Callable[[Sequence[str], Mapping[str, str]], Any]


def mirror(*entities: Entity) -> Mirror:
    return Mirror("vendor", "", lambda token: {}, entities, every=timedelta(minutes=5))


def own(path: str) -> Lookup:
    """The look-up of a record that is the answer itself."""
    return Lookup(
        request=lambda id_: Request(f"/{path}/{quote(str(id_), safe='')}", check=names(id_, "id")),
        rows=lambda data: [data],
    )


@dataclass
class Mirrored:
    """A declared source with its warehouse. `asked`: the path and the params of each request."""

    source: Mirror
    context: MirrorContext
    asked: list[tuple[str, Mapping[str, str]]]
    nights: int = 0

    def sync(self, **how: bool) -> None:
        sync_entities(self.context, **how)

    def night(self, *, repair: bool = False) -> dict[str, ForensicSummary]:
        """Stop the writer, scan all entities, perhaps repair them, and resume."""
        self.nights += 1
        context = replace(self.context, run=f"vendor_reconcile/{self.nights}")
        writer = fence.stop(context.conn, "vendor", context.run, timeout=5)
        scope = Scope.of({"progress_every": 250})
        found = {each.name: scan_entity(context, each, writer.epoch, scope) for each in self.source.entities}
        if repair:
            repair_entities(context, list(found.values()))
        fence.resume(context.conn, "vendor", context.run)
        return found

    def live(self, table: str, column: str) -> set[Any]:
        """The values of a column of the copy's live rows."""
        names = sql.Identifier(column), sql.Identifier("vendor", table)
        query = sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL").format(*names)
        return {value for (value,) in self.context.conn.execute(query)}

    def unproven(self) -> dict[str, str]:
        """Why which rows are unproven, by the first value of their keys."""
        return dict(self.context.conn.execute("SELECT key ->> 0, why FROM confidence.unproven").fetchall())


def _create(source: Mirror, warehouse: str) -> None:
    engine = create_engine(make_url(warehouse).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        op.execute("CREATE SCHEMA vendor")
        for table in (table for entity in source.entities for table in entity.tables):
            types = {column.name: TYPES[column.read] for column in table.columns}
            key = {name: types.pop(name) for name in table.key}
            create_mirror("vendor", table.name, key, {**types, "extra": "jsonb"})
        connection.execute(text("INSERT INTO confidence.writer (source) VALUES ('vendor')"))
    engine.dispose()


@contextmanager
def mirrored(conn: psycopg.Connection, warehouse: str, source: Mirror, answers: Answers) -> Iterator[Mirrored]:
    """The declared source, of which nothing is mirrored yet. `answers` takes the steps of a path, and the params."""
    _create(source, warehouse)
    asked: list[tuple[str, Mapping[str, str]]] = []

    async def answer(request: Asked) -> Response:
        asked.append((request.url.path, dict(request.query_params)))
        found = answers(request.url.path.strip("/").split("/"), request.query_params)
        if isinstance(found, Response):
            return found
        return JSONResponse({}, 404) if found is None else JSONResponse(found)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    with serving.in_thread(app) as url, ApiClient("vendor", url, attempts=2, backoff=(0.01, 0.02)) as client:
        yield Mirrored(source, MirrorContext(source, client, conn, "vendor_reconcile/test"), asked)
