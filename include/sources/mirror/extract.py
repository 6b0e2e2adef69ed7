"""Extracts: an entity's records in staging, with their nested rows and one resume point for all."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import sql

from include.api.errors import RefuseData
from include.api.paginators import Page
from include.confidence.census import Census
from include.sources.mirror.brief import CompletePage, listed_versions
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity, Part
from include.sources.mirror.entity_census import censuses, count_page
from include.sources.mirror.lookup import Row, read_rows
from include.sources.mirror.lookup_results import LookupResults
from include.sources.mirror.same_value import is_earlier
from include.warehouse import compare
from include.warehouse.compare import Repeats
from include.warehouse.pull import PullError, too_many_refused
from include.warehouse.sql_fragments import among, identifiers, pairs
from include.warehouse.staging import Stage
from include.warehouse.table import Table

log = logging.getLogger(__name__)

# How long a source may lag behind: as long it may show two states of a record, and going back to an older one is not
# believed.
MAY_LAG = timedelta(days=1)
# Under it the states of settled lists are kept, added up.
SETTLED = "*"


@dataclass(frozen=True)
class Extract:
    """The staging table of an entity's records, and one for each table of its nested rows, as they are declared.

    `censuses`: the census of the fields of each table.
    """

    entity: Entity
    stage: Stage
    parts: tuple[tuple[Part, Stage], ...]
    censuses: Mapping[str, Census]

    @classmethod
    def open(cls, context: MirrorContext, entity: Entity, purpose: str, ticket: str) -> "Extract":
        """Resume the unfinished pull of this ticket, or start a new one."""

        def stage(table: Table) -> Stage:
            return Stage.open(context.conn, table, context.source.name, purpose, ticket)

        whole, parts = stage(entity.table), tuple((part, stage(part.table)) for part in entity.parts)
        counted = (whole.pull.progress or {}).get("fields", {})
        extract = cls(entity, whole, parts, censuses(entity, context.source.enumerations, counted))
        if len({each.pull.pages for each in extract.stages}) == 1:
            return extract
        # A stage with too many refused rows was not resumed, so all of them start again.
        extract.drop()
        return cls.open(context, entity, purpose, ticket)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage, *(stage for _, stage in self.parts))

    def append(
        self,
        page: Page,
        next_position: Any,
        looked_up: CompletePage | None = None,
        number: int = 0,
        partition: str = "",
    ) -> None:
        """Store a page's records, their nested rows and the next resume point in one transaction.

        - `looked_up`: the outcome of the look-ups, for a list in brief; its `page` is `page`
        - `number`, `partition`: of the list that the page belongs to
        """
        # A list can't be complete beyond the source's own clock.
        info = {"source_time": min(filter(None, (page.as_of, page.date)), default=None)}
        info |= {"total_entries": page.total_entries, "total_pages": page.total_pages}
        inside, refuse = self._read_nested(page.rows)
        before = self._counts
        with self.stage.conn.transaction():
            for part, stage in self.parts:
                rows, places = [row for _, row in inside[part]], [place for place, _ in inside[part]]
                stage.store(rows, next_position=next_position, page_info=info, places=places)
            self.stage.store(page.rows, next_position=next_position, page_info=info, refuse=refuse)
            self._count_fields(page.rows, inside, refuse)
            states = self._states_after(number, partition, page, before, looked_up.shown if looked_up else ())
            figures = {"lists": states, "clock": self._oldest_clock(page)}
            if any(census.is_due for census in self.censuses.values()):
                figures["fields"] = {name: census.to_json() for name, census in self.censuses.items()}
            self.stage.save_progress(**figures)
            if looked_up:
                self.lookups.save(looked_up)

    def _oldest_clock(self, page: Page) -> str | None:
        """Return the earliest server time of all answers so far, in ISO 8601; None if none named one.

        `page`: the newest.
        """
        sent = page.date and page.date.astimezone(UTC).isoformat()
        return min(filter(None, (self.progress.get("clock"), sent)), key=datetime.fromisoformat, default=None)

    @property
    def clock(self) -> datetime:
        """The source's clock when the pull began; ours if that is earlier, or if the source tells no time.

        It goes on even if nothing changes, unlike `source_time`: that is also bounded by what a list calls its newest
        change.
        """
        told, now = self.progress.get("clock"), datetime.now(UTC)
        return min(datetime.fromisoformat(told), now) if told else now

    def _count_fields(
        self, records: Sequence[Row], inside: Mapping[Part, list[tuple[int, Row]]], refuse: Mapping[int, str]
    ) -> None:
        """Count the fields of a page's records and nested rows, without records whose nested rows can't be read."""
        if refuse:
            records = [record for place, record in enumerate(records) if place not in refuse]
        nested = {part.table.name: [row for _, row in rows] for part, rows in inside.items()}
        count_page(self.censuses, self.entity, records, nested)

    def _read_nested(self, records: Sequence[Row]) -> tuple[Mapping[Part, list[tuple[int, Row]]], Mapping[int, str]]:
        """Return the nested rows, each with its record's place on the page, and {place: reason} of refused records.

        A record without a key has no nested rows here: the stage refuses the record itself.
        """
        inside: dict[Part, list[tuple[int, Row]]] = {part: [] for part, _ in self.parts}
        refuse: dict[int, str] = {}
        for place, record in enumerate(records):
            key = self.entity.table.key_of(record) if self.parts else None
            if not key:
                continue
            try:
                found = {part: nested_rows(part, record, key) for part, _ in self.parts}
            except RefuseData as error:
                refuse[place] = str(error)
                continue
            for part, rows in found.items():
                inside[part] += [(place, row) for row in rows]
        return inside, refuse

    @property
    def lookups(self) -> LookupResults:
        return LookupResults(self.stage)

    @property
    def progress(self) -> Mapping[str, Any]:
        return self.stage.pull.progress or {}

    @property
    def _counts(self) -> list[tuple[int, int]]:
        """(rows read, rows refused) of each stage."""
        return [(stage.pull.rows_read, stage.pull.rows_refused) for stage in self.stages]

    @property
    def _zero_counts(self) -> list[tuple[int, int]]:
        return [(0, 0) for _ in self.stages]

    @property
    def lists(self) -> Mapping[str, Mapping[str, Any]]:
        """The state of each list that was begun, by its number."""
        return self.progress.get("lists") or {}

    def list_state(self, number: int) -> Mapping[str, Any]:
        """Return the state of one list; empty before its first page."""
        return self.lists.get(str(number), {})

    def save_list_state(self, number: int, **state: Any) -> None:
        self.stage.save_progress(lists={**self.lists, str(number): {**self.list_state(number), **state}})

    def reset_counts(self, number: int, **state: Any) -> None:
        """Count the rows of a list from zero again, and save `state` with it."""
        self.save_list_state(number, counts=self._zero_counts, reading_from=self.stage.pull.pages + 1, **state)

    def _states_after(
        self, number: int, partition: str, page: Page, counts_before: Sequence[tuple[int, int]], shown: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Return the states of all lists, that of list `number` with this page added.

        `counts_before`: `_counts` before the page was stored. `shown`: as in `CompletePage`. Of a list's state this
        sets:

        - `promised`: the largest total that the list has claimed, None if it claims none. If the list becomes shorter
          while it is read, nobody knows whether it left out the other rows, so the largest one counts
        - `counted`: whether it has claimed a number of rows, and not only of pages
        - `largest`: the number of rows on its largest page
        - `shown`: of a list in brief, the number of different rows on its pages, ignored ones included
        - `names`: their names, while such a list is read that claims a total
        - `counts`: (rows read, rows refused) of each stage
        """
        state = dict(self.list_state(number)) or {
            "partition": partition,
            "first_page": self.stage.pull.pages,
            "reading_from": self.stage.pull.pages,
            "promised": None,
            "counted": False,
            "largest": 0,
            "counts": self._zero_counts,
        }
        largest = max(state["largest"], len(page.rows))
        promised = max(filter(None, (state["promised"], least_total(page, largest))), default=None)
        counts = [
            (of_list[0] + after[0] - before[0], of_list[1] + after[1] - before[1])
            for of_list, before, after in zip(state["counts"], counts_before, self._counts, strict=True)
        ]
        counted = state["counted"] or page.total_entries is not None
        state |= {"promised": promised, "counted": counted, "largest": largest, "counts": counts}
        names = {*state.get("names", []), *shown}
        state["shown"] = state.get("shown", 0) + len(names) - len(state.get("names", []))
        state["names"] = sorted(names) if promised else []
        return {**self._lists_to_keep(partition), str(number): state}

    def _lists_to_keep(self, partition: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the states of the lists, without the names of their rows, and with settled lists added up to one.

        There may be a list for each parent, and all states are stored with each page.
        """
        settled = {number: state for number, state in self.lists.items() if self._is_settled(state, partition)}
        kept = {number: {**state, "names": []} for number, state in self.lists.items() if number not in settled}
        if not settled:
            return kept
        of_stages = zip(*(state["counts"] for state in settled.values()), strict=True)
        counts = [tuple(map(sum, zip(*of_stage, strict=True))) for of_stage in of_stages]
        return {**kept, SETTLED: {"partition": SETTLED, "unseen": 0, "counts": counts}}

    def _is_settled(self, state: Mapping[str, Any], partition: str) -> bool:
        """Return whether nothing of a list is told or read any more. `partition`: the one that is read now."""
        open_partitions = {"", partition, *self.failed_partitions, *self.short_partitions}
        refused = any(refused for _, refused in state["counts"])
        return state["partition"] not in open_partitions and state.get("unseen") == 0 and not refused

    def mark_unlisted_page(self) -> None:
        """Mark the page that is stored next: no list shows its records."""
        self.stage.save_progress(unlisted_pages=[*self.unlisted_pages, self.stage.pull.pages + 1])

    @property
    def unlisted_pages(self) -> Sequence[int]:
        """The numbers of the staged pages whose records no list shows."""
        return self.progress.get("unlisted_pages", [])

    def check_refused(self, *partitions: str, ended: bool = False) -> None:
        """Raise TooManyRefused if so many rows of these partitions were refused that the rest is no evidence.

        `ended`: no more rows of them will come. A few nested rows, though all are refused, tell nothing of the records.
        """
        for stage, (read, refused) in zip(self.stages, self.row_counts(*partitions), strict=True):
            if too_many_refused(read, refused, ended=ended and stage is self.stage):
                raise stage.refusal(read, refused)

    def require_rows(self) -> None:
        """Raise PullError where a whole list shows no rows though the copy has some: an empty list is no evidence."""
        rows = compare.live_rows(self.stage)
        if rows and not self.stage.pull.rows_read:
            raise PullError(
                f"the list of {self.entity.name} shows nothing, and the copy has {rows} rows. Run the task again; if it"
                " stays so, look at the list at the source"
            )

    def row_counts(self, *partitions: str) -> list[tuple[int, int]]:
        """Return (rows read, rows refused) of each stage, over the lists of these partitions."""
        counts = [state["counts"] for state in self.lists.values() if state["partition"] in (partitions or [""])]
        return [tuple(map(sum, zip(*each, strict=True))) for each in zip(self._zero_counts, *counts, strict=True)]

    def flagged_deleted(self, keys: Collection[tuple]) -> set[tuple]:
        """Return the keys of staged records that the list flags as deleted."""
        table = self.entity.table
        if table.tombstone is None or not keys:
            return set()
        query = sql.SQL("SELECT {} FROM {} WHERE {} AND {}").format(
            identifiers(table.key), self.stage.sql, sql.Identifier(table.tombstone), among(table.key, keys)
        )
        return set(self.stage.conn.execute(query).fetchall())

    @property
    def partitions(self) -> Sequence[str]:
        """The partitions that a whole reading has requested."""
        return self.progress.get("partitions", [])

    @property
    def failed_partitions(self) -> Mapping[str, str]:
        """The partitions whose lists could not be read, with the reason of each."""
        return self.progress.get("failed", {})

    def mark_failed(self, partition: str, why: str, *, needs_person: bool = False) -> None:
        """Mark a partition as failed: nobody knows what its lists would have shown. `needs_person`: as in `Problem`."""
        log.error("%s of %s is left out: %s", partition, self.entity.name, why)
        refused = [*self.progress.get("needs_person", []), *([partition] if needs_person else [])]
        self.stage.save_progress(failed={**self.failed_partitions, partition: why}, needs_person=refused)
        self.stage.remember_refused([([f"the list of {partition}"], False, why)])

    @property
    def short_partitions(self) -> Mapping[str, str]:
        """The partitions with an incomplete list, with the reason of each."""
        return self.progress.get("cut", {})

    def drop_repeats(self, possibly_alive: Sequence[tuple] = (), *, newest_first: bool = False) -> Repeats:
        """Deduplicate by key, drop outdated and implicitly deleted rows, then nested rows whose record was dropped.

        `possibly_alive`: keys of the other entity's rows that are deleted in the copy, but perhaps not at the source.
        No row is dropped because of these. `newest_first`: see `compare.drop_repeats`. Return how many repeats of
        records were dropped; all counts are kept with the pull.
        """
        repeats = compare.drop_repeats(
            self.stage, newest_first=newest_first, changed_after=self.clock - MAY_LAG, place=self.entity.place
        )
        outdated, deleted = self._drop_outdated(), 0
        if self.entity.cascade:
            query = sql.SQL("DELETE FROM {} t WHERE {} AND NOT {}")
            alive = among(self.entity.cascade.by, possibly_alive, "t")
            deleted = self.stage.conn.execute(query.format(self.stage.sql, self.implicitly_deleted, alive)).rowcount
        self.stage.save_progress(repeats=asdict(repeats), fallen=outdated + deleted)
        for part, stage in self.parts:
            dropped = stage.conn.execute(
                sql.SQL(
                    "DELETE FROM {part} p WHERE NOT EXISTS (SELECT FROM {whole} w WHERE {same}"
                    " AND w._page = p._page AND w._place = p._place)"
                ).format(part=stage.sql, whole=self.stage.sql, same=self.belongs_to_record(part, "p", "w"))
            ).rowcount
            contested = self._contesting_records(part, stage)
            stage.save_progress(repeats=asdict(compare.drop_repeats(stage)), fallen=dropped, contested=contested)
        return repeats

    def _contesting_records(self, part: Part, stage: Stage) -> list[list]:
        """Return the keys of the staged records that show a nested row which another one shows too.

        One record alone can have such a row. Call it while all of them are staged.
        """
        query = sql.SQL(
            "SELECT DISTINCT {by} FROM {stage} WHERE ({key}) IN"
            " (SELECT {key} FROM {stage} GROUP BY {key} HAVING count(DISTINCT ({by})) > 1)"
        ).format(key=identifiers(stage.table.key), stage=stage.sql, by=identifiers(part.by))
        return [list(key) for key in stage.conn.execute(query)]

    def _drop_outdated(self) -> int:
        """Drop records in an older version than a list has shown: they count as not read. Return how many."""
        listed, table = listed_versions(self.lookups.all_skipped), self.entity.table
        if not (listed and table.version):
            return 0
        query = sql.SQL("SELECT {}, {} FROM {} WHERE {}").format(
            sql.Identifier(table.version), identifiers(table.key), self.stage.sql, among(table.key, listed)
        )
        read = {tuple(key): version for version, *key in self.stage.conn.execute(query)}
        outdated = [key for key, version in read.items() if version and is_earlier(version, listed[key])]
        if outdated:
            query = sql.SQL("DELETE FROM {} WHERE {}").format(self.stage.sql, among(table.key, outdated))
            self.stage.conn.execute(query)
        return len(outdated)

    def drop(self) -> None:
        for stage in self.stages:
            stage.drop()

    def restart(self, context: MirrorContext) -> "Extract":
        """Drop what is staged and return the same pull at its beginning."""
        pull = self.stage.pull
        self.drop()
        return Extract.open(context, self.entity, pull.purpose, pull.ticket)

    @property
    def implicitly_deleted(self) -> sql.Composable | None:
        """SQL over rows `t`, true if the row is implicitly deleted because another was. None if the entity has none."""
        return sql.SQL(f"({self.entity.cascade.condition})") if self.entity.cascade else None

    def belongs_to_record(self, part: Part, rows: str, records: str) -> sql.Composed:
        """Return the SQL condition that a nested row belongs to a record. Both arguments are table aliases."""
        return pairs(part.by, rows, self.entity.table.key, records)


def nested_rows(part: Part, record: Row, key: tuple) -> list[Row]:
    """Return the rows of a part inside the record with this key.

    Raises RefuseData where the record has another shape, lists a row twice, or has a row that names another record:
    such a row would belong to none.
    """
    rows = read_rows(part.rows, record)
    if any(part.table.named(row, part.by) != key for row in rows):
        raise RefuseData(f"one of its {part.table.name} doesn't name it by {', '.join(part.by)}")
    keys = Counter(key for row in rows if (key := part.table.key_of(row)))
    if any(count > 1 for count in keys.values()):
        raise RefuseData(f"the record lists one of its {part.table.name} twice")
    return rows


def least_total(page: Page, largest: int) -> int | None:
    """Return the least number of rows that the list has by this page's totals, or None without totals.

    `largest`: the number of rows on a full page.
    """
    if page.total_entries is None and page.total_pages and page.total_pages > 1:
        # All pages but the last are full.
        return (page.total_pages - 1) * largest + 1
    return page.total_entries
