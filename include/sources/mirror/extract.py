"""What a pull has staged of an entity: its records, and the rows inside them, with one resume point for all."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import sql

from include.api.errors import RefuseData
from include.api.paginators import Page
from include.sources.mirror.entity import Context, Entity, Part
from include.sources.mirror.lookup import Completed, Row, Skipped, rows_of
from include.warehouse import compare
from include.warehouse.compare import Repeats
from include.warehouse.staging import Stage, staged, too_many_refused
from include.warehouse.table import Table, among, identifiers, pairs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extract:
    """The stage of an entity's own rows, and those of its parts in the order in which they are declared."""

    entity: Entity
    stage: Stage
    parts: tuple[tuple[Part, Stage], ...]

    @classmethod
    def open(cls, context: Context, entity: Entity, purpose: str, ticket: str) -> "Extract":
        """Resume the unfinished pull of this ticket, or start anew."""

        def stage(table: Table) -> Stage:
            return Stage.open(context.conn, table, context.source.name, purpose, ticket)

        extract = cls(entity, stage(entity.table), tuple((part, stage(part.table)) for part in entity.parts))
        if len({each.pull.pages for each in extract.stages}) == 1:
            return extract
        # One that failed for its refused rows starts anew, and the others with it.
        extract.drop()
        return cls.open(context, entity, purpose, ticket)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage, *(stage for _, stage in self.parts))

    def append(
        self, page: Page, next_position: Any, found: Completed | None = None, number: int = 0, partition: str = ""
    ) -> None:
        """Store a page's records with their parts, and the next resume point: all or nothing.

        `found` is what became of the page's other records; `number` and `partition` are of the page's list.
        """
        # No list knows what comes after the source's own clock.
        info = {"source_time": min(filter(None, (page.as_of, page.date)), default=None)}
        info |= {"total_entries": page.total_entries, "total_pages": page.total_pages}
        inside, refuse = self._inside(page.rows)
        before = self._counts
        with self.stage.conn.transaction():
            for part, stage in self.parts:
                rows, places = [row for _, row in inside[part]], [place for place, _ in inside[part]]
                stage.store(rows, next_position=next_position, page_info=info, places=places)
            self.stage.store(page.rows, next_position=next_position, page_info=info, refuse=refuse)
            self.stage.save_progress(lists=self._lists(number, partition, page, before))
            if found:
                self.stage.remember_refused([(each.key, True, each.reason) for each in found.skipped if each.failed])
                self.stage.save_progress(
                    deleted=[*self._progress("deleted"), *map(list, found.deleted)],
                    delete_events=[*self._progress("delete_events"), *map(list, found.delete_events)],
                    skipped=[*self._progress("skipped"), *map(asdict, found.skipped)],
                    absent=[*self._progress("absent"), *(list(map(str, key)) for key in found.absent)],
                    known=self.progress.get("known", 0) + found.known,
                )

    def _inside(self, records: Sequence[Row]) -> tuple[Mapping[Part, list[tuple[int, Row]]], Mapping[int, str]]:
        """The nested rows with the places of their records, and why records at some places are refused.

        A record without a key is refused, and has no nested rows that could be told from others.
        """
        inside: dict[Part, list[tuple[int, Row]]] = {part: [] for part, _ in self.parts}
        refuse: dict[int, str] = {}
        for place, record in enumerate(records):
            if not self.parts or not self.entity.table.key_of(record):
                continue
            try:
                found = {part: nested(part, record) for part, _ in self.parts}
            except RefuseData as error:
                refuse[place] = str(error)
                continue
            for part, rows in found.items():
                inside[part] += [(place, row) for row in rows]
        return inside, refuse

    @property
    def progress(self) -> Mapping[str, Any]:
        return self.stage.pull.progress or {}

    def _progress(self, name: str) -> list:
        return self.progress.get(name, [])

    @property
    def _counts(self) -> list[tuple[int, int]]:
        """Of each stage, how many rows were read, and how many of those refused."""
        return [(stage.pull.rows_read, stage.pull.rows_refused) for stage in self.stages]

    @property
    def _none(self) -> list[tuple[int, int]]:
        return [(0, 0) for _ in self.stages]

    @property
    def lists(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each list, by its number."""
        return self.progress.get("lists") or {}

    def list_state(self, number: int) -> Mapping[str, Any]:
        """The same of one list: empty before its first page."""
        return self.lists.get(str(number), {})

    def save_list_state(self, number: int, **state: Any) -> None:
        self.stage.save_progress(lists={**self.lists, str(number): {**self.list_state(number), **state}})

    def start_again(self, number: int, **state: Any) -> None:
        """Count the rows of a list anew."""
        self.save_list_state(number, counts=self._none, **state)

    def _lists(
        self, number: int, partition: str, page: Page, counts: Sequence[tuple[int, int]]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Of each list by its number: its first page in staging, and how many rows it says that it has.

        The largest counts: of a list that becomes shorter while it is read nobody knows whether it left out the others.
        `counts`: those before the page.
        """
        before = self.list_state(number) or {
            "partition": partition,
            "first_page": self.stage.pull.pages,
            "promised": None,
            "largest": 0,
            "counts": self._none,
        }
        largest = max(before["largest"], len(page.rows))
        promised = least_rows(page, largest)
        added = [(read - r, refused - f) for (read, refused), (r, f) in zip(self._counts, counts, strict=True)]
        total = [(r + read, f + refused) for (r, f), (read, refused) in zip(before["counts"], added, strict=True)]
        promised = max(filter(None, (before["promised"], promised)), default=None)
        return {**self.lists, str(number): {**before, "promised": promised, "largest": largest, "counts": total}}

    def require_stored(self, *partitions: str, ended: bool = False) -> None:
        """Raise TooManyRefused if so many rows of these partitions can't be stored that the others are no evidence."""
        for stage, (read, refused) in zip(self.stages, self.stored(*partitions), strict=True):
            if too_many_refused(read, refused, ended=ended):
                raise stage.refusal(read, refused)

    def stored(self, *partitions: str) -> list[tuple[int, int]]:
        """Of each stage, how many rows of these partitions were read, and how many of those refused."""
        counts = [state["counts"] for state in self.lists.values() if state["partition"] in (partitions or [""])]
        return [tuple(map(sum, zip(*each, strict=True))) for each in zip(self._none, *counts, strict=True)]

    @property
    def deleted(self) -> list[list]:
        """The keys of the records that a list has shown and that say themselves that they are deleted."""
        return self._progress("deleted")

    @property
    def delete_events(self) -> list[list]:
        """The keys of the records of which a feed of changes says that they are deleted."""
        return self._progress("delete_events")

    @property
    def absent(self) -> list[list[str]]:
        """The keys of the records that a list has shown and that are not at their own address, as texts."""
        return self._progress("absent")

    @property
    def skipped(self) -> list[Skipped]:
        """The records that were not read, nor by another list that shows them too."""
        skipped = {tuple(each["key"]): Skipped(**each) for each in self._progress("skipped")}
        found = staged(self.stage, skipped) if skipped else set()
        return [each for key, each in skipped.items() if key not in found]

    @property
    def partitions(self) -> Sequence[str]:
        """What a pull of everything has asked for."""
        return self._progress("partitions")

    @property
    def failed(self) -> Mapping[str, str]:
        """The partitions whose lists could not be read, each with the reason."""
        return self.progress.get("failed", {})

    def leave_out(self, partition: str, why: str) -> None:
        """Remember that a partition's lists can't be read: nobody knows what they would have shown."""
        log.error("%s of %s is left out: %s", partition, self.entity.name, why)
        self.stage.save_progress(failed={**self.failed, partition: why})
        self.stage.remember_refused([([f"the list of {partition}"], False, why)])

    @property
    def cut(self) -> Mapping[str, str]:
        """The partitions of which a list was too short to show all that changed, each with the reason."""
        return self.progress.get("cut", {})

    def shortage(self, number: int) -> int:
        """How many rows the list of that number says that it has, and has not shown."""
        state = self.list_state(number)
        if not state or not state["promised"]:
            return 0
        key = identifiers(self.entity.table.key)
        query = sql.SQL("SELECT count(*) FROM (SELECT DISTINCT {key} FROM {stage} WHERE _page >= %s) s").format(
            key=key, stage=self.stage.sql
        )
        (shown,) = self.stage.conn.execute(query, [state["first_page"]]).fetchone()
        return max(0, state["promised"] - shown - state["counts"][0][1])

    def drop_repeats(self, standing: Sequence[tuple] = ()) -> Repeats:
        """Deduplicate by key, then drop nested rows whose record was dropped, and rows that fall.

        `standing`: the rows that others fall with in the copy alone, not at the source.
        """
        repeats = compare.drop_repeats(self.stage)
        fallen = 0
        if self.entity.falls:
            query = sql.SQL("DELETE FROM {} t WHERE {} AND NOT {}")
            stand = among(self.entity.falls.by, standing, "t")
            fallen = self.stage.conn.execute(query.format(self.stage.sql, self.falls, stand)).rowcount
        self.stage.save_progress(repeats=asdict(repeats), fallen=fallen)
        for part, stage in self.parts:
            dropped = stage.conn.execute(
                sql.SQL(
                    "DELETE FROM {part} p WHERE NOT EXISTS (SELECT FROM {whole} w WHERE {same}"
                    " AND w._page = p._page AND w._place = p._place)"
                ).format(part=stage.sql, whole=self.stage.sql, same=self.of_record(part, "p", "w"))
            ).rowcount
            stage.save_progress(repeats=asdict(compare.drop_repeats(stage)), fallen=dropped)
        return repeats

    def drop(self) -> None:
        for stage in self.stages:
            stage.drop()

    def fresh(self, context: Context) -> "Extract":
        """The same pull from its beginning."""
        pull = self.stage.pull
        self.drop()
        return Extract.open(context, self.entity, pull.purpose, pull.ticket)

    @property
    def falls(self) -> sql.Composable | None:
        """The condition on rows `t` that fall with another."""
        return sql.SQL(f"({self.entity.falls.condition})") if self.entity.falls else None

    def of_record(self, part: Part, rows: str, records: str) -> sql.Composed:
        """The condition that `rows` of the part belong to `records`."""
        return pairs(part.by, rows, self.entity.table.key, records)


def nested(part: Part, record: Row) -> list[Row]:
    """The rows of a part inside a record. Raises RefuseData where they have no such shape, or one comes twice."""
    rows = rows_of(part.rows, record)
    keys = Counter(key for row in rows if (key := part.table.key_of(row)))
    if any(count > 1 for count in keys.values()):
        raise RefuseData(f"the record lists one of its {part.table.name} twice")
    return rows


def least_rows(page: Page, largest: int) -> int | None:
    """How many rows the list has at least, as the page says; None where it says nothing. `largest`: rows of a page."""
    if page.total_entries is None and page.total_pages and page.total_pages > 1:
        # All pages but the last are full.
        return (page.total_pages - 1) * largest + 1
    return page.total_entries
