"""The contract's adapter of a mirror without a simulator: a stub of its API, made from its declaration and answers.

`tests/contract/<name>.py` of such a source has recorded answers alone:

    ANN = {"id": 1, "name": "Ann", "updated_at": "2026-03-01T08:00:00Z"}
    ANSWERS = {"customers": Recorded(listing={"data": [ANN], "next": "MQ"}, lookup={"customer": ANN})}
    Account, opened = stubbed("<name>", ANSWERS)

The records in a list's answer are examples: more records are made from them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from include.api.client import ApiClient
from include.api.paginators import PageNumber, Single
from include.api.request import Request
from include.confidence.summary import Plan
from include.simulators import serving
from include.sources.base import Api, entity_of
from include.sources.mirror.changes import FullList
from include.sources.mirror.entity import Discovered, Entity
from include.sources.mirror.source import Mirror
from include.warehouse.readers import text, unix_time
from include.warehouse.table import Table
from stack.new_source import WrongDeclaration, declaration
from tests.contract.account import Asking, Questions
from tests.contract.recorded import Recorded, read_examples
from tests.stub import Fault, NotServed, Store, Stub, WrongExamples, WrongLookup, require_served
from tests.stub.declared import value_of
from tests.stub.server import PAGE, TOKEN, Gone
from tests.stub.store import Record, Telling, TellingDelete
from tests.stub.template import said

ABSENT = 987_654_321
# An SQL value that differs from the column's, which may be null.
OTHER_VALUE: Mapping[str, LiteralString] = {
    "text": "'spoilt'",
    "bigint": "coalesce({}, 0) + 1",
    "numeric": "coalesce({}, 0) + 1",
    "boolean": "coalesce(NOT {}, true)",
    "timestamp with time zone": "coalesce({} - interval '1 day', '2020-01-01T00:00:00Z')",
    "date": "coalesce({} - 1, '2020-01-01')",
    "jsonb": "jsonb_build_array({})",
}


class Stubbed:
    """A few rows a page. `stubbed` makes the class of a source."""

    source: Mirror
    spoilt: Mapping[str, str]
    given: Mapping[str, Any]
    computed: frozenset[str]
    atomic = True
    params: Mapping[str, Any]
    part: Mapping[str, Any] | None
    shapes: Mapping[str, Callable[[Any], Any]]

    def __init__(self, stub: Stub, url: str, conn: psycopg.Connection):
        self.questions = Questions()
        self.stub, self._url, self._conn = stub, url, conn
        self._listing = False

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        url, headers = self._url + api.base_path, api.authorize(TOKEN)
        # No second attempt: it would hide the failure that `fail` orders.
        with Asking(
            self._asked, name, url, headers=headers, timeout=(2, 10), attempts=1, error_policy=api.error_policy
        ) as client:
            yield client

    def settings(self, name: str) -> Mapping[str, Any]:
        return self.given

    def copy(self) -> Mapping[str, Mapping]:
        tables = [table for entity in self.source.entities for table in entity.tables]
        return {table.name: self._rows(table) for table in (*tables, *(d.table for d in self.source.derived))}

    def change(self) -> None:
        """A new record, one that has changed, and one that is deleted, in each list that is asked for changes."""
        for entity in self.source.entities:
            if entity.changes is None:
                continue
            self.stub.store.insert(entity)
            if column := self._text(entity):
                # Twice, so that a feed has an older state of it too.
                self.stub.store.update(entity, 0, column, "changed once")
                self.stub.store.update(entity, 0, column, "changed")
            if self._deletes(entity):
                self.stub.store.delete(entity, 1)

    def drift(self) -> Mapping[str, Plan]:
        """A record that the copy lacks, one that differs, and one that the source hasn't any more.

        So it is with the rows inside records. What is asked for by parts gets a new part in place of the last.
        """
        updates = {entity.name: self._spoil_some(entity) for entity in self.source.entities}
        for entity in self.source.entities:
            if self._lists_parts(entity):
                self.stub.store.insert(entity, silent=True)
            elif self._deletes(entity):
                self.stub.store.delete(entity, 2, silent=True)
        return {entity.name: self._planned(entity, updates[entity.name]) for entity in self.source.entities}

    def _spoil_some(self, entity: Entity) -> int:
        """Lose and spoil rows of the copy; return how many were spoilt."""
        first, second, _, *others = self.records(entity)
        if not self._lists_parts(entity):
            self._lose(entity.table, entity.table.key_of(first))
        self._spoil(entity.table, entity.table.key_of(second))
        for part in entity.parts:
            inside = [part.table.key_of(row) for record in others for row in part.rows(record)]
            self._lose(part.table, inside[0])
            self._spoil(part.table, inside[1], fixed=set(part.by))
        return 1 + len(entity.parts)

    def _planned(self, entity: Entity, updates: int) -> Plan:
        truth, copy = self._truth(entity), {table.name: set(self._rows(table)) for table in entity.tables}
        missing = sum(len(truth[name] - copy[name]) for name in copy)
        surplus = 0 if entity.history else sum(len(copy[name] - truth[name]) for name in copy)
        return Plan(insert=missing, update=updates, delete=surplus)

    def fail(self) -> None:
        # A list that is refused is read again from its start, in case that its cursor has expired; a record that
        # can't be looked up now is left for later.
        self.stub.fault(Fault(503 if self._listing else 401))

    @contextmanager
    def down(self) -> Iterator[None]:
        self.stub.fault(Fault(503, times=None))
        yield
        self.stub.clear()

    def records(self, entity: Entity) -> list[Mapping[str, Any]]:
        """Every record that belongs into the mirror, as the API sends it."""
        return list(self.stub.store.rows[entity.name])

    def pages(self, entity: Entity) -> int:
        """How many pages the entity's list has, in all of its requests."""
        rows, parts = self.records(entity), entity.partitions
        page = len(rows) if isinstance(entity.paginator, Single) else PAGE
        if parts is None:
            return len(entity.views) * -(-len(rows) // page)
        listed = self.records(entity_of(self.source, parts.listed_by))
        values = [str(entity_of(self.source, parts.listed_by).table.key_of(record)[0]) for record in listed]
        handfuls = [values[at : at + parts.size] for at in range(0, len(values), parts.size)]
        sizes = [sum(str(value_of(entity, row, parts.column)) in some for row in rows) for some in handfuls]
        return len(entity.views) * sum(max(1, -(-size // page)) for size in sizes)

    def cut(self, entity: Entity, page: int) -> None:
        """Let the page of the whole list fail once, for good."""
        self.stub.fault(Fault(503, entity=entity.name, after=page - 1))

    def absent(self, entity: Entity) -> tuple:
        """Values to look up that the source has nothing for."""
        known = dict(zip(entity.table.names, entity.table.row(self.records(entity)[0]), strict=True))
        return tuple(ABSENT if isinstance(known[name], int) else str(ABSENT) for name in entity.lookup.by)

    def _asked(self, request: Request) -> None:
        self._listing = self.stub.is_list(said(request))
        self.questions.ask()

    def _lists_parts(self, entity: Entity) -> bool:
        """Whether its records are what other lists are asked for by. Those of a part fall with it."""
        return any(each.partitions and each.partitions.listed_by == entity.name for each in self.source.entities)

    def _deletes(self, entity: Entity) -> bool:
        return not entity.history and not self._lists_parts(entity)

    def _text(self, entity: Entity) -> str | None:
        """A column of text that may hold anything, None if there is none."""
        if entity.name in self.spoilt:
            return self.spoilt[entity.name]
        fixed = {*entity.lookup.by, *(name for need in entity.needs for name in need.by)}
        fixed |= {entity.partitions.column} if entity.partitions else set()
        return _free_text(entity.table, fixed)

    def _truth(self, entity: Entity) -> Mapping[str, set[tuple]]:
        """The keys of what the source has, by table."""
        records = self.records(entity)
        inside = {p.table.name: {p.table.key_of(row) for r in records for row in p.rows(r)} for p in entity.parts}
        return {entity.name: {entity.table.key_of(record) for record in records}, **inside}

    def _rows(self, table: Table) -> Mapping[tuple, Mapping]:
        rows = self._conn.execute(sql.SQL("SELECT to_jsonb(t) FROM {} t").format(table.sql))
        return {tuple(row[name] for name in table.key): row for (row,) in rows}

    def _lose(self, table: Table, key: tuple) -> None:
        self._do("DELETE FROM {table} t WHERE {same}", table, key)

    def _spoil(self, table: Table, key: tuple, fixed: Collection[str] = ()) -> None:
        column = self.spoilt.get(table.name) or _free_text(table, fixed)
        spoilt = {"column": sql.Identifier(column), "other": self._other(table, column)}
        self._do("UPDATE {table} t SET {column} = {other} WHERE {same}", table, key, **spoilt)

    def _other(self, table: Table, column: str) -> sql.Composable:
        """Another value for a column of any kind."""
        query = "SELECT data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
        (kind,) = self._conn.execute(f"{query} AND column_name = %s", [table.schema, table.name, column]).fetchone()
        return sql.SQL(OTHER_VALUE[kind]).format(sql.Identifier(column))

    def _do(self, query: str, table: Table, key: tuple, **more: sql.Composable) -> None:
        same = [
            sql.SQL("t.{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in zip(table.key, key, strict=True)
        ]
        parts = {"table": table.sql, "same": sql.SQL(" AND ").join(same), **more}
        written = self._conn.execute(sql.SQL(query).format(**parts)).rowcount
        assert written == 1, f"{table.name}: {written} rows for {key}"


def _free_text(table: Table, fixed: Collection[str] = ()) -> str | None:
    """The first column of text that nothing hangs on; `fixed`: columns that point to other rows."""
    fixed = {*fixed, *table.key, *filter(None, (table.version, table.changed, table.tombstone))}
    free = (c.name for c in table.columns if c.read is text and c.name in table.compared and c.name not in fixed)
    return next(free, None)


def _hasty(entity: Entity) -> Entity:
    """The entity without its pauses."""
    if isinstance(entity.changes, FullList):
        return replace(entity, changes=replace(entity.changes, every=timedelta(0)))
    if isinstance(entity, Discovered):
        return replace(entity, read_every=timedelta(0))
    return entity


def _require_drift(source: Mirror, rows: Mapping[str, Sequence[Record]], spoilt: Mapping[str, str]) -> None:
    """Raise WrongExamples where no rows could be lost and spoilt."""
    for entity in source.entities:
        # A nested row that points to another record would be another record's.
        pointing = {part.table.name: part.by for part in entity.parts}
        for table in entity.tables:
            if not (spoilt.get(table.name) or _free_text(table, pointing.get(table.name, ()))):
                raise WrongExamples(
                    f"{table.full_name} has no column of text that the tests may spoil: name another column of it,"
                    f" stubbed(..., spoilt={{{table.name!r}: <column>}})"
                )
        for part in entity.parts:
            if sum(len(list(part.rows(record))) for record in rows[entity.name][3:]) < 2:
                raise WrongExamples(
                    f"the examples of {entity.table.full_name} have too few rows of {part.table.name} inside them:"
                    " give an example with some"
                )


def _unix_times(source: Mirror) -> Mapping[str, Callable[[str], str]]:
    """What a moment comes in, for each column whose reader takes seconds since 1970."""
    tables = [table for entity in source.entities for table in entity.tables]
    names = [column.name for table in tables for column in table.columns if column.read is unix_time]
    return dict.fromkeys(names, lambda moment: f"{datetime.fromisoformat(moment).timestamp():.6f}")


@contextmanager
def _told_as_one_line(name: str) -> Iterator[None]:
    """Let pytest tell one line about what is wrong, and no traceback."""
    try:
        yield
    except WrongDeclaration as error:
        raise pytest.Collector.CollectError(str(error)) from error
    except (NotServed, WrongExamples, WrongLookup) as error:
        raise pytest.Collector.CollectError(f"tests/contract/{name}.py: {error}") from error


def stubbed(
    name: str,
    answers: Mapping[str, Recorded],
    *,
    events: Mapping[str, Telling] | None = None,
    deletes: Mapping[str, TellingDelete] | None = None,
    oldest_first: Collection[str] = (),
    gone: Mapping[str, Gone] | None = None,
    unique: Collection[str] = (),
    spoilt: Mapping[str, str] | None = None,
    shapes: Mapping[str, Callable[[Any], Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> tuple[type[Stubbed], Callable[[str], AbstractContextManager[Stubbed]]]:
    """Return the account's class and the function `opened` that the contract needs.

    Raises CollectError if the declaration is refused or can't be served. Its message is one line that says what to do.

    - `answers`: by entity, what the API answers
    - `events`: by entity with a `Feed`, what makes the event of a change from its kind (created, updated, deleted), the
      record and the time (a datetime in UTC)
    - `deletes`: by entity with `Deletes`, what makes their entry from the deleted record and the time
    - `oldest_first`: the entities whose feed begins with the oldest event; others begin with the newest one
    - `gone`: for each entity, a function that makes the answer about a deleted record, if it is not a 404
    - `unique`: the tables of nested rows whose ids are unique over all records
    - `spoilt`: for each table, the column that the tests may change, if it is not the first text column
    - `shapes`: for each column, a function that wraps a value as the API does, if the reader unwraps it
    - `settings`: the extra of the connection
    - `params`: the run's params, if the source has some of its own
    """

    def store() -> Store:
        """Each account has rows of its own."""
        return Store(source, examples, telling=events, telling_deletes=deletes, unique=unique)

    with _told_as_one_line(name):
        declared = declaration(name)
        source = replace(declared, entities=tuple(map(_hasty, declared.entities)))
        require_served(source)
        examples = read_examples(source, answers)
        tried = store()
        _require_drift(source, tried.rows, spoilt or {})
        Stub(tried, gone=gone, oldest_first=oldest_first)
    # Only lists with page numbers have parts that can be asked for.
    numbered = all(isinstance(e.paginator, PageNumber) and not e.partitions for e in source.entities)
    of_class = {
        "source": source,
        "spoilt": spoilt or {},
        "given": settings or {},
        "shapes": {**_unix_times(source), **(shapes or {})},
        "computed": frozenset(derived.table.name for derived in source.derived),
        "params": {"progress_every": 250, **(params or {})},
        "part": {"page_end": 1, "compute_db_not_in_api": False} if numbered else None,
    }
    account = type(f"{name.title()}Account", (Stubbed,), of_class)

    @contextmanager
    def opened(warehouse: str) -> Iterator[Stubbed]:
        """An account; server and connections are gone afterwards."""
        stub = Stub(store(), gone=gone, oldest_first=oldest_first)
        with serving.in_thread(stub) as url, psycopg.connect(warehouse, autocommit=True) as conn:
            yield account(stub, url, conn)

    return account, opened
