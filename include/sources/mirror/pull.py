"""Records on their way into staging: those of an entity, and the rows inside them, with one resume point for all."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from include.api.client import Request
from include.api.errors import FixConfiguration
from include.api.fetch import pages
from include.api.paginators import Page
from include.sources.mirror.entity import Context, Entity, Part
from include.warehouse import compare
from include.warehouse.compare import Repeats
from include.warehouse.staging import Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulled:
    """The stage of an entity's own rows, and those of its parts in the order in which they are declared."""

    entity: Entity
    stage: Stage
    parts: tuple[tuple[Part, Stage], ...]

    @classmethod
    def open(cls, context: Context, entity: Entity, purpose: str, ticket: str) -> "Pulled":
        """Resume the unfinished pull of this ticket, or start anew."""

        def stage(table: Any) -> Stage:
            return Stage.open(context.conn, table, context.source.name, purpose, ticket)

        return cls(entity, stage(entity.table), tuple((part, stage(part.table)) for part in entity.parts))

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage, *(stage for _, stage in self.parts))

    def append(self, page: Page, next_position: Any) -> None:
        """Store a page's records with their parts, and the next resume point: all or nothing."""
        info = {"source_time": page.as_of or page.date}
        info |= {"total_entries": page.total_entries, "total_pages": page.total_pages}
        with self.stage.conn.transaction():
            for part, stage in self.parts:
                found = [(place, row) for place, record in enumerate(page.rows) for row in part.rows(record)]
                rows, places = [row for _, row in found], [place for place, _ in found]
                stage.append(rows, next_position=next_position, page_info=info, places=places)
            self.stage.append(page.rows, next_position=next_position, page_info=info)

    def drop_repeats(self) -> Repeats:
        """Keep one record a key, leave out those that fall, and keep of the parts those of the kept records."""
        repeats = compare.drop_repeats(self.stage)
        if self.entity.falls:
            self.stage.conn.execute(sql.SQL("DELETE FROM {} t WHERE {}").format(self.stage.sql, self.falls))
        for part, stage in self.parts:
            stage.conn.execute(
                sql.SQL(
                    "DELETE FROM {part} p WHERE NOT EXISTS (SELECT FROM {whole} w WHERE w.{key} = p.{by}"
                    " AND w._page = p._page AND w._place = p._place)"
                ).format(part=stage.sql, whole=self.stage.sql, key=self.key, by=sql.Identifier(part.by))
            )
            compare.drop_repeats(stage)
        return repeats

    def drop(self) -> None:
        for stage in self.stages:
            stage.drop()

    def fresh(self, context: Context) -> "Pulled":
        """The same pull from its beginning."""
        pull = self.stage.pull
        self.drop()
        return Pulled.open(context, self.entity, pull.purpose, pull.ticket)

    @property
    def falls(self) -> sql.Composable | None:
        """The condition on rows `t` that fall with another."""
        return sql.SQL(f"({self.entity.falls})") if self.entity.falls else None

    @property
    def key(self) -> sql.Identifier:
        """The column that parts point to."""
        return sql.Identifier(self.entity.table.key[0])


Progress = Callable[[Pulled], None]


def read(
    context: Context,
    pulled: Pulled,
    requests: Sequence[Request],
    *,
    first: int | None = None,
    last: int | None = None,
    progress: Progress = lambda _: None,
) -> Pulled:
    """Append all pages of the requests, one request after the other, from where the pull has come to.

    `first`, `last`: page numbers to begin and to end with, for a single list. A list whose token is not accepted any
    more is read again from its start, with everything before it: what was staged may have changed meanwhile.
    """
    if pulled.stage.pull.complete:
        return pulled
    number, position = pulled.stage.pull.position or (0, first)
    try:
        _append(context, pulled, _walk(context, pulled.entity, requests, number, position, last), progress)
    except FixConfiguration as error:
        if not (pulled.entity.paginator.expires and pulled.stage.resumed):
            raise
        log.warning("%s In case that its token has expired, the list is read again from its start", error)
        pulled = pulled.fresh(context)
        _append(context, pulled, _walk(context, pulled.entity, requests, 0, first, last), progress)
    return pulled


def _append(context: Context, pulled: Pulled, feed: Iterator[tuple[Page, Any]], progress: Progress) -> None:
    for page, following in feed:
        pulled.append(page, following)
        progress(pulled)


def _walk(
    context: Context, entity: Entity, requests: Sequence[Request], number: int, position: Any, last: int | None
) -> Iterator[tuple[Page, tuple[int, Any] | None]]:
    """The pages from a resume point on, each with the resume point behind it, None at the end."""
    for index in range(number, len(requests)):
        feed = pages(
            context.client,
            requests[index],
            entity.paginator,
            position=position,
            stop=last,
            workers=context.workers,
        )
        for page in feed:
            ended = page.next is None or (last is not None and page.position == last)
            if not ended:
                yield page, (index, page.next)
            else:
                yield page, (index + 1, None) if index + 1 < len(requests) else None
        position = None


def plan_parts(pulled: Pulled, *, surplus: bool = False) -> None:
    """Plan the parts of the records that are staged, each record's as a set, by the status of the record's own plan.

    The parts of a record that is older than the copy count for nothing. A part that could not be read may be any of
    those that seem to have gone: then none counts as gone. `surplus`: parts whose record neither list nor copy has
    count as gone too, whatever the source has: a record that comes brings its parts.
    """
    for part, stage in pulled.parts:
        names = {
            "part": stage.sql,
            "plan": stage.plan,
            "whole": pulled.stage.sql,
            "whole_plan": pulled.stage.plan,
            "key": pulled.key,
            "by": sql.Identifier(part.by),
        }
        stage.conn.execute(sql.SQL(DROP_OLDER).format(**names))
        compare.plan_writes(stage)
        status = "unconfirmed" if stage.pull.rows_refused else "confirmed"
        within = None if surplus else sql.SQL(OF_RECORDS).format(**names)
        compare.plan_deletes(stage, status=status, within=within)
        stage.conn.execute(sql.SQL(AS_THE_RECORD).format(**names))


def replace(pulled: Pulled, record: Mapping[str, Any]) -> None:
    """Put a fresher reading of a record in place of what the pull saw, and plan it anew. Raises RowRefused."""
    key = pulled.entity.table.key_of(record)
    pulled.stage.replace_row(record)
    compare.replan(pulled.stage, [key])
    for part, stage in pulled.parts:
        of_record = sql.SQL("{} = {}").format(sql.Identifier(part.by), sql.Literal(key[0]))
        stage.replace_rows(of_record, list(part.rows(record)))
        stage.conn.execute(sql.SQL("DELETE FROM {} WHERE {}").format(stage.plan, of_record))
        compare.plan_writes(stage, only=of_record)
        compare.plan_deletes(stage, status="confirmed", within=of_record)


DROP_OLDER = "DELETE FROM {part} p USING {whole_plan} w WHERE w.{key} = p.{by} AND w._status = 'stale'"

# One set, so that it is joined: an OR of several would search each for every row once memory is short.
OF_RECORDS = """t.{by} IN (
  SELECT {key} FROM {whole} EXCEPT SELECT {key} FROM {whole_plan} WHERE _status = 'stale'
  UNION SELECT {key} FROM {whole_plan} WHERE _operation = 'delete')
"""

AS_THE_RECORD = """
UPDATE {plan} p SET _status = w._status FROM {whole_plan} w
WHERE w.{key} = p.{by} AND w._status IN ('candidate', 'young', 'unconfirmed') AND p._status = 'confirmed'
"""
