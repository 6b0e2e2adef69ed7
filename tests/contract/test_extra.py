"""What mirrors do with fields that no column reads: each is ignored by name with a reason, or kept in `extra`.

Fields are put into the vendor's answers on their way, into each object that is one of a table's records.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from typing import Any

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import sql
from psycopg.types.json import set_json_loads
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from include.api.client import ApiClient
from include.api.decoding import decode_json
from include.api.errors import ApiError
from include.api.request import Answer, Request
from include.confidence.queries.field_census import read_fields
from include.sources.base import Api, entity_of
from include.sources.mirror import second_look
from include.sources.mirror.lookup import look_up
from include.warehouse import migrate
from include.warehouse.field_path import split
from include.warehouse.migrations.extra import column_from_extra
from include.warehouse.readers import instant, integer
from include.warehouse.rollback import RollbackRefused
from include.warehouse.table import Column, Table
from tests.contract.account import Account, Run
from tests.contract.test_mirrors import ENTITIES, MIRRORS, READ, declared, inside

KEEPING = [(source, table) for source, table in READ if table.keeps_extra]
# No later source has a copy as of before them.
KNOWN_COLUMNS = import_module("include.warehouse.migrations.versions.0026_known_columns")
MORE_COLUMNS = import_module("include.warehouse.migrations.versions.0030_more_columns")
LAYERS = 40
Fields = Mapping[str, Any]


def nested(levels: int) -> Any:
    value: Any = Decimal("0.1000000000000000000000001")
    for _ in range(levels):
        value = {"inner": [value]}
    return value


# What a vendor may begin to send from one day to the next.
STRANGE: Fields = {
    "extra": {"a": None},
    "sync_id": -1,
    "deleted_at": "2026-01-01T00:00:00Z",
    "row_hash": 0,
    "a.b": "with a dot",
    "with spaces ": "",
    "Größe 😀": ["ß", '"', "\\"],
    "UPPER": True,
    "": {},
    "deep": nested(LAYERS),
    **{f"field_{number}": number for number in range(200)},
}

PUT = {*STRANGE, "new", "newer", "more"}


class Twisting(ApiClient):
    """Passes the data of each answer through `twist` of its account."""

    account: "Twisted"

    def _exchange(self, request: Request) -> Answer | ApiError:
        answer = super()._exchange(request)
        return replace(answer, data=self.account.changed(answer.data)) if isinstance(answer, Answer) else answer


class Twisted:
    """An account whose answers have other fields in the objects for which `chosen` is true."""

    def __init__(self, account: Account):
        self._account = account
        self.chosen: Callable[[Fields], bool] = lambda record: False
        self.change: Callable[[dict], dict] = lambda record: record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._account, name)

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with self._account.api(name, api) as client:
            # Each account has a client of its own kind, which goes on to count and to cut.
            kind = type("Twisted", (Twisting, type(client)), {"account": self})
            client.__class__ = kind
            yield client

    def changed(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.changed(each) for each in data]
        if not isinstance(data, dict):
            return data
        inner = {name: self.changed(each) for name, each in data.items()}
        return self.change(inner) if self.chosen(data) else inner


@pytest.fixture
def twisted(filled: Run) -> Run:
    """A run whose vendor's answers a test can change, after the first sync."""
    set_json_loads(decode_json, filled.conn)
    return replace(filled, account=Twisted(filled.account))


def record_of(source: str) -> Callable[[Fields], bool]:
    """Whether an object is one that a table may have a row of: it has a field of a key, or a name."""
    tables = [table for of, table in READ if of == source]
    names = {column.path[-1] for table in tables for column in table.columns if column.name in table.key} | {"name"}
    return lambda record: not record.keys().isdisjoint(names)


def extras(conn: psycopg.Connection, table: Table) -> dict[tuple, Fields]:
    query = sql.SQL("SELECT extra, {} FROM {} WHERE deleted_at IS NULL").format(
        sql.SQL(", ").join(map(sql.Identifier, table.key)), table.sql
    )
    return {tuple(key): extra or {} for extra, *key in conn.execute(query)}


def ours(conn: psycopg.Connection, table: Table) -> set[tuple]:
    """The key of each row, with the values that our own code adds."""
    names = sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys((*table.key, *table.added))))
    return set(conn.execute(sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL").format(names, table.sql)))


def planned(run: Run) -> dict[str, int]:
    return {summary.entity: sum(vars(summary.plan).values()) for summary in run.scan()}


@pytest.mark.parametrize(("source", "name"), ENTITIES)
class TestFields:
    def test_each_is_read_ignored_or_kept(self, account, source, name):
        """Of the records as the vendor sends them; of an object, each of the fields in it."""
        entity = declared(source, name)
        records = account.records(entity)
        for table, rows in (
            (entity.table, records),
            *((part.table, inside(part, records)) for part in entity.parts if part.table.keeps_extra),
        ):
            for row in rows:
                values = dict(zip(table.names, table.row(row), strict=True))
                kept = decode_json(values["extra"]) if values["extra"] else {}
                for path in leaves(row):
                    assert known(table, path) != (at(kept, path) is not None) or has_list(row, path), (table.name, path)

    def test_rows_inside_are_not_kept_twice(self, account, source, name):
        """The nested rows are read from other fields than those in the record's `extra`."""
        entity = declared(source, name)
        for record in account.records(entity) if entity.parts else ():
            *_, extra = entity.table.row(record)
            rest = without(record, decode_json(extra)) if extra else record
            for part in entity.parts:
                assert list(part.rows(rest)) == list(part.rows(record)) or not part.table.keeps_extra, part.table.name

    def test_the_look_up_shows_the_lists_fields(self, twisted, conn, source, name):
        """Else `extra` would change with each second look, which takes the record from its own address."""
        entity = entity_of(twisted.source, name)
        listed = [extras(conn, table) for table in entity.tables if table.keeps_extra]
        record = twisted.account.records(entity)[0]
        row = dict(zip(entity.table.names, entity.table.row(record), strict=True))
        value = tuple(row[each] for each in entity.lookup.by)
        with twisted.context() as context:
            lookups = [each for each in (entity.lookup, entity.lookup.witness) if each]
            for lookup in lookups:
                [(_, look)] = look_up(context, entity.table, lookup, [value])
                found = [(entity.table, look.rows)] if entity.lookup.by == lookup.by else []
                found += [(part.table, inside(part, look.rows)) for part in entity.parts]
                found = [(table, rows) for table, rows in found if table.keeps_extra]
                for (table, rows), expected in zip(found, listed, strict=True):
                    for each in rows:
                        *_, extra = table.row(each)
                        assert (decode_json(extra) if extra else {}) == expected[table.key_of(each)], table.name


def known(table: Table, path: tuple[str, ...]) -> bool:
    """Whether a column reads what stands there, or the table ignores it."""
    whole = {tuple(column.path) for column in table.columns if column.uses is None}
    whole |= {(*column.path, each) for column in table.columns for each in column.uses or ()}
    whole |= {tuple(split(each)) for each in table.ignored}
    return path in {tuple(column.path) for column in table.columns} or any(path[: len(e)] == e for e in whole)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths to all values of a record that are neither null nor an object with fields."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from leaves(each, (*path, name))
    elif value is not None:
        yield path


def without(record: Fields, kept: Fields) -> Fields:
    """The record without the kept fields, in its objects too."""
    inner = {
        name: without(record[name], value)
        for name, value in kept.items()
        if isinstance(value, dict) and isinstance(record.get(name), dict) and value != record[name]
    }
    return {name: value for name, value in record.items() if name not in kept} | inner


def at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def has_list(record: Fields, path: tuple[str, ...]) -> bool:
    """Whether a list stands there, of which columns may read a part and `extra` keep it all."""
    return isinstance(at(record, path), list)


@pytest.mark.parametrize("source", MIRRORS)
class TestNewFields:
    def test_strange_ones_are_kept_everywhere_and_proof_goes_on(self, twisted, conn, source):
        """In every record and every row inside one; then again without them, then rolled back."""
        before = twisted.state()
        twisted.account.chosen, twisted.account.change = record_of(source), lambda record: {**record, **STRANGE}
        with_them = twisted.sync("full")
        tables = [table for of, table in KEEPING if of == source]
        for table in tables:
            found = extras(conn, table)
            assert found, table.name
            for extra in found.values():
                assert strange(extra) == STRANGE, table.name
        assert set(planned(twisted).values()) == {0}
        twisted.resume()
        twisted.account.chosen = lambda record: False
        twisted.sync("full")
        twisted.roll_back(twisted.conn.execute("SELECT max(sync_id) FROM confidence.sync_log").fetchone()[0])
        for table in tables:
            assert all(strange(extra) for extra in extras(conn, table).values())
        twisted.roll_back(with_them.sync_id)
        assert twisted.state()["copy"] == before["copy"]

    def test_one_that_comes_and_goes_is_a_difference_that_a_repair_mends(self, twisted, conn, source):
        """Also if it is renamed, of another type, or of another value: a scan sees it, and a repair brings it."""
        tables = [table for of, table in KEEPING if of == source]
        for change in ({"new": 1}, {"newer": 1}, {"newer": "1"}, {"newer": {"a": [2]}}, {}):
            twisted.account.chosen = record_of(source)
            twisted.account.change = lambda record, change=change: {**record, **change}
            summaries = twisted.scan()
            assert all(sum(vars(summary.plan).values()) > 0 for summary in summaries), change
            assert {summary.incomplete for summary in summaries} == {""}
            twisted.repair(summaries)
            for table in tables:
                for extra in extras(conn, table).values():
                    assert strange(extra) == change, table.name
            assert set(planned(twisted).values()) == {0}

    def test_one_that_all_records_gain_is_no_reason_for_doubt(self, twisted, monkeypatch, source):
        """However many there are: a vendor has added a field, as the looks at some of them show."""
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 1)
        monkeypatch.setattr(second_look, "MANY", 1)
        twisted.account.chosen, twisted.account.change = record_of(source), lambda record: {**record, "new": 1}
        summaries = twisted.scan()
        assert {summary.metrics["unproven"] for summary in summaries} == {0}
        twisted.repair(summaries)
        assert set(planned(twisted).values()) == {0}
        twisted.resume()
        twisted.account.change = lambda record: {**record, "new": 1, "newer": 1}
        twisted.sync("full")
        assert set(planned(twisted).values()) == {0}

    def test_one_with_a_name_that_our_own_code_needs_is_kept_beside_ours(self, twisted, conn, source):
        """As a line's place in its order. The census says so, and another value of it is a difference."""
        # A record that is put together from several answers keeps each answer under a name of its own.
        tables = {table.name: table for of, table in KEEPING if of == source and table.added and not table.answers}
        names = {name for table in tables.values() for name in table.added}
        before = {name: ours(conn, table) for name, table in tables.items()}
        known = {(each.entity, field.path) for each in read_fields(conn, source) for field in each.fields}
        twisted.account.chosen = record_of(source)
        twisted.account.change = lambda record: dict.fromkeys(names, "theirs") | record
        twisted.sync("full")
        for name, table in tables.items():
            assert ours(conn, table) == before[name]
            for extra in extras(conn, table).values():
                assert {of: extra.get(of) for of in table.added} == dict.fromkeys(table.added, "theirs"), name
        assert set(planned(twisted).values()) == {0}
        states = {each.entity: {field.path: field.state for field in each.fields} for each in read_fields(conn, source)}
        for name, table in tables.items():
            assert {states[name].get(of) for of in table.added} == {"kept"}, name
            assert not any(path.startswith(tuple(table.aside)) for path in states[name])
        # Rows inside a record are no fields of it, whatever they are called.
        more = {(entity, path) for entity, paths in states.items() for path in paths} - known
        theirs = {path for _, path in more if path.endswith(tuple(names))}
        # An object of which nothing was left for `extra` has something in it now.
        around = {path.rpartition(".")[0] for path in theirs}
        assert {path for _, path in more} - theirs - around == set()
        twisted.account.change = lambda record: dict.fromkeys(names, "otherwise") | record
        entities = [each for each in twisted.source.entities if {table.name for table in each.tables} & tables.keys()]
        found = planned(twisted)
        assert all(found[entity.name] for entity in entities)

    def test_what_cannot_be_stored_is_refused_by_name(self, twisted, conn, source):
        """Only the records that hold it."""
        entity = twisted.source.entities[0]
        record = twisted.account.records(entity)[0]
        key = entity.table.key_of(record)
        # Records of a partition may not name it.
        known = dict(zip(entity.table.key[:-1], key, strict=False))
        twisted.account.chosen = lambda each: entity.table.key_of(entity.table.filled(each, known)) == key
        for value, reason in (("a\0b", "holds a NUL character"), (nested(300), "is nested too deeply")):
            twisted.account.change = lambda each, value=value: {**each, "more": value}
            summary = twisted.scan_one(entity.name)
            assert summary.metrics["rows_refused"] == 1
            reasons = conn.execute(
                "SELECT DISTINCT reason FROM confidence.quarantine WHERE entity = %s AND refused_at >= now() - interval"
                " '1 minute' ORDER BY 1",
                [entity.name],
            ).fetchall()
            assert f"extra {reason}" in [why for (why,) in reasons]


def strange(extra: Fields) -> Fields:
    """What of `extra` came with the test's own fields, wherever the record's parts are kept."""
    found: dict[str, Any] = {}
    for name, value in extra.items():
        if isinstance(value, dict) and name not in PUT:
            found |= strange(value)
    return found | {name: value for name, value in extra.items() if name in PUT}


@pytest.mark.parametrize("source", MIRRORS)
class TestAfterTheUpgrade:
    """Rows from before the column lack it, whatever the source sends."""

    @pytest.fixture
    def upgraded(self, twisted, conn, source):
        """A copy as it stood before: without extra, and the migration knows by which sync it was written."""
        twisted.account.chosen, twisted.account.change = record_of(source), lambda record: {**record, "more": 1}
        twisted.sync("full")
        (newest,) = conn.execute("SELECT max(sync_id) FROM confidence.sync_log WHERE source = %s", [source]).fetchone()
        conn.execute("INSERT INTO confidence.extra_since VALUES (%s, %s)", [source, newest])
        for table in [table for of, table in KEEPING if of == source]:
            later = [column.name for column in table.columns if column.added_later]
            since = "INSERT INTO confidence.column_since VALUES (%s, %s, %s)"
            for name in later:
                conn.execute(since, [table.full_name, name, newest])
            empty = sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(name)) for name in ("extra", *later))
            conn.execute(sql.SQL("UPDATE {} SET {}").format(table.sql, empty))
        return twisted

    @pytest.mark.drill("upgrade-in-between")
    def test_no_night_holds_and_a_full_sync_brings_it(self, upgraded, conn, source):
        for summary in upgraded.scan():
            assert (sum(vars(summary.plan).values()), summary.incomplete) == (0, "")
            assert summary.metrics["rows_due"] == summary.accounts[summary.entity].due > 0
            assert summary.metrics["rows_differing"] == 0
        upgraded.resume()
        upgraded.sync("full")
        for table in [table for of, table in KEEPING if of == source]:
            assert all("more" in strange(extra) for extra in extras(conn, table).values()), table.name
        for summary in upgraded.scan():
            assert (sum(vars(summary.plan).values()), summary.metrics["rows_due"]) == (0, 0)

    def test_other_drift_is_seen_as_ever(self, upgraded, conn, source):
        expected = upgraded.account.drift()
        plans = {summary.entity: summary.plan for summary in upgraded.scan()}
        assert plans == expected

    @pytest.mark.drill("upgrade-in-between")
    def test_the_full_sync_can_be_undone(self, upgraded, conn):
        before = upgraded.state()["copy"]
        done = upgraded.sync("full")
        assert upgraded.state()["copy"] != before
        upgraded.roll_back(done.sync_id)
        assert upgraded.state()["copy"] == before


@pytest.fixture
def becomes(owner_url: str) -> Iterator[Callable[[Table, Column, str], None]]:
    """Makes a column of what a table keeps: by the migration, then in the declaration that is in use."""
    declared_ = {}
    engine = create_engine(make_url(owner_url).set(drivername="postgresql+psycopg"))

    def become(table: Table, column: Column, type_: str) -> None:
        with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
            column_from_extra(table.full_name, column, type_)
        declared_.setdefault(id(table), (table, table.columns))
        redeclare(table, (*table.columns, column))

    yield become
    engine.dispose()
    for table, columns in declared_.values():
        redeclare(table, columns)


def redeclare(table: Table, columns: tuple[Column, ...]) -> None:
    """Give a declared table other columns, wherever it is in use, and nothing of what it has made of the old ones."""
    given = {each.name: getattr(table, each.name) for each in fields(Table)}
    vars(table).clear()
    vars(table).update(given, columns=columns)


@pytest.mark.parametrize("source", MIRRORS)
class TestMadeAColumn:
    """What was kept of all records becomes columns, as `make column` writes their migrations."""

    def test_the_next_scan_is_clean_without_a_sync(self, twisted, conn, source, becomes):
        sent = {"new": {"size": 12, "unit": "h"}, "newer": "2026-03-01T12:00:00+02:00", "more": [1]}
        twisted.account.chosen, twisted.account.change = record_of(source), lambda record: {**record, **sent}
        first = twisted.sync("full")
        tables = [table for of, table in KEEPING if of == source]
        for table in tables:
            becomes(table, Column("new_size", integer, "new.size"), "bigint")
            becomes(table, Column("newer", instant), "timestamptz")
            # Not all records of a source have the fields at their top.
            for size, newer, extra in conn.execute(sql.SQL("SELECT new_size, newer, extra FROM {}").format(table.sql)):
                assert (size is None) == ("more" not in (extra or {}))
                if size is not None:
                    assert (size, newer) == (12, datetime(2026, 3, 1, 10, tzinfo=UTC))
                    assert (extra["new"], "newer" in extra) == ({"unit": "h"}, False)
        with pytest.raises(RollbackRefused, match=r"rows have changed since: .* by hand or by a migration"):
            twisted.roll_back(first.sync_id)
        before = twisted.state()
        assert any(row["new_size"] for rows in before["copy"].values() for row in rows.values())
        for summary in twisted.scan():
            assert (sum(vars(summary.plan).values()), summary.incomplete) == (0, "")
        twisted.resume()
        changes = twisted.standing()["changes"]
        twisted.sync("full")
        assert (twisted.state()["copy"], twisted.standing()["changes"]) == (before["copy"], changes)
        twisted.account.change = lambda record: {**record, **sent, "new": {"size": 13}}
        done = twisted.sync("full")
        assert twisted.state()["copy"] != before["copy"]
        assert set(planned(twisted).values()) == {0}
        twisted.resume()
        twisted.roll_back(done.sync_id)
        assert twisted.state()["copy"] == before["copy"]

    def test_what_the_reader_refuses_stays_in_extra(self, twisted, conn, source, becomes):
        """The field is put beside the key, which may be inside an object."""
        entity = twisted.source.entities[0]
        key = next(column for column in entity.table.columns if column.name == entity.table.key[-1])
        path = [*key.path[:-1], "new"]
        twisted.account.chosen, twisted.account.change = record_of(source), lambda record: {**record, "new": "much"}
        twisted.sync("full")
        becomes(entity.table, Column("new", integer, ".".join(path)), "bigint")
        query = sql.SQL("SELECT DISTINCT new, extra #> {} FROM {}").format(sql.Literal(path), entity.table.sql)
        assert conn.execute(query).fetchall() == [(None, "much")]


@pytest.mark.drill("upgrade-in-between")
@pytest.mark.parametrize(
    "source", sorted({name.partition(".")[0] for name in (*KNOWN_COLUMNS.TABLES, *MORE_COLUMNS.TABLES)})
)
def test_columns_of_a_release_come_from_extra_and_the_next_scan_is_clean(filled, owner_url, monkeypatch, source):
    """The copy as the release before would have it, with the fields in `extra`."""
    copy, command = filled.account.copy(), migrate.command
    upgrade, downgrade = command.upgrade, command.downgrade
    monkeypatch.setattr(command, "upgrade", lambda config, _: downgrade(config, KNOWN_COLUMNS.down_revision))
    migrate.migrate(owner_url)
    monkeypatch.setattr(command, "upgrade", upgrade)
    migrate.migrate(owner_url)
    assert filled.account.copy() == copy
    for summary in filled.scan():
        assert (sum(vars(summary.plan).values()), summary.incomplete) == (0, "")
