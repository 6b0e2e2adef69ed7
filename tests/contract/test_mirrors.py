"""What mirrored sources promise besides; their accounts also have `records`, `pages`, `cut`, `absent` and `shapes`.

`shapes`, known of the class, are for columns, by name, in whose field a value doesn't come as itself: what it comes in.

What is said of a table holds for an entity's own, those of its parts, and the computed ones.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from importlib import import_module
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb, set_json_loads

from include.api import fetch
from include.api.decoding import decode_json
from include.api.errors import ApiError, FixConfiguration, NotFound, TryLater
from include.api.paginators import Page
from include.api.request import Request
from include.confidence.field_changes import RECORD, State
from include.confidence.field_store import known_fields
from include.sources import REGISTRY, get_source
from include.sources.base import SyncFailed, entity_of
from include.sources.mirror import read
from include.sources.mirror.changes import FullList, Since, Window
from include.sources.mirror.derive import Derived
from include.sources.mirror.entity import Discovered, Entity, Part
from include.sources.mirror.lookup import look_up
from include.sources.mirror.partitions import all_listings, known_partitions, state_partitions
from include.sources.mirror.source import Mirror
from include.warehouse import roles
from include.warehouse.sql_fragments import identifiers
from include.warehouse.staging import Stage
from include.warehouse.table import Column, Table
from stack.postgres import Server
from tests.conftest import copy_of

MIRRORS = {source: declared for source in REGISTRY if isinstance(declared := get_source(source), Mirror)}
ENTITIES = [(source, entity.name) for source in MIRRORS for entity in MIRRORS[source].entities]
# The tables of lists, whose records are read, and the computed ones.
READ = [(source, table) for source, name in ENTITIES for table in entity_of(MIRRORS[source], name).tables]
COMPUTED = [(source, derived.table) for source in MIRRORS for derived in MIRRORS[source].derived]
COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND (attgenerated = '' OR attname = 'row_hash')
"""
NIGHT = datetime(2026, 3, 29, 1, tzinfo=UTC)
PLACE = {"location_id": "x"}
OWN_COLUMNS = {"row_hash": "bigint", "deleted_at": "timestamp with time zone", "sync_id": "bigint"}

# For each column type what a source may send at the edges; no two of them are the same value.
SAMPLES = {
    "bigint": [1, -1, 2**63 - 1, -(2**63)],
    "numeric": ["0.00", "0.01", "-0.01", "12345678901234567890.123456789", "-12345678901234567890.123456789"],
    "numeric(12,4)": ["0.0000", "0.0001", "-0.0001", "99999999.9999"],
    "text": ["", "x", "X", "x ", "Zoë 😀\t\\N\n\\."],
    "text[]": [[], [""], ["x"], ["x", "x"], ["Zoë 😀\t\\N\n\\.", "{,}", '"', "NULL"]],
    "boolean": [True, False],
    "timestamp with time zone": [
        "2026-03-29T01:59:59.999999+01:00",
        "2026-03-29T00:59:59.999998Z",
        "1970-01-01T00:00:00Z",
    ],
    "date": ["2026-03-29", "2026-03-30"],
    "jsonb": [{}, [], [1], [-1], {"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "c": 2}}, ["0.10", ""], [PLACE]],
}


def declared(source: str, name: str) -> Entity:
    return entity_of(get_source(source), name)


def expires(entity: Entity) -> bool:
    """Whether the token to go on by may be one that the vendor no longer takes."""
    return not isinstance(entity, Discovered) and entity.paginator.expires


def name_of(value: Any) -> str | None:
    return value.name if isinstance(value, Table) else None


def types(conn: psycopg.Connection, table: Table) -> dict[str, str]:
    """The columns of the migrated table with their types; what Postgres computes beside the hash is nobody's."""
    return dict(conn.execute(COLUMNS, [table.full_name]).fetchall())


def required(conn: psycopg.Connection, table: Table) -> set[str]:
    """The columns that are never null."""
    query = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnotnull"
    return {name for (name,) in conn.execute(query, [table.full_name])}


@pytest.mark.parametrize("source", MIRRORS)
def test_copy_is_the_schema_of_its_name(source):
    tables = [table for of, table in READ + COMPUTED if of == source]
    assert {table.schema for table in tables} == {source}
    assert [name for name, count in Counter(table.name for table in tables).items() if count > 1] == []


@pytest.fixture(scope="module")
def migrated_tables(postgres: Server, migrated: str) -> Iterator[psycopg.Connection]:
    """A warehouse in the hand of its owner, one for several tests: they leave nothing behind."""
    for url in copy_of(postgres, migrated, roles.OWNER):
        with psycopg.connect(url, autocommit=True) as conn:
            yield conn


@pytest.mark.parametrize(("source", "table"), READ + COMPUTED, ids=name_of)
class TestTable:
    def test_columns_are_the_migrated_tables(self, migrated_tables, source, table):
        found = types(migrated_tables, table)
        assert {column: found.get(column) for column in OWN_COLUMNS} == OWN_COLUMNS
        assert set(found) - set(OWN_COLUMNS) == set(table.names)
        assert len(set(table.names)) == len(table.names)

    def test_key_is_the_primary_key(self, migrated_tables, source, table):
        key = migrated_tables.execute(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid"
            " AND a.attnum = ANY (i.indkey) WHERE i.indisprimary AND i.indrelid = %s::regclass",
            [table.full_name],
        ).fetchall()
        assert {column for (column,) in key} == set(table.key)
        assert {table.version, table.changed} - {None} <= set(table.names)

    def test_every_column_is_part_of_the_hash(self, migrated_tables, source, table):
        """One that is left out would drift unseen, unless it isn't compared. The key tells rows apart without it."""
        conn, found = migrated_tables, types(migrated_tables, table)
        data = [name for name in table.names if name not in table.key]
        always = {name: SAMPLES[found[name]][0] for name in required(conn, table).intersection(data)}
        edges = [always | {name: sample} for name in data for sample in SAMPLES[found[name]]]
        with conn.transaction(force_rollback=True):
            drop_constraints(conn, table)
            for number, edge in enumerate(edges, 1):
                written = {name: Jsonb(value) if found[name] == "jsonb" else value for name, value in edge.items()}
                insert(conn, table, {key: key_value(found[key], number) for key in table.key} | written)
            hashes = {hash_ for (hash_,) in conn.execute(sql.SQL("SELECT row_hash FROM {}").format(table.sql))}
        # Some are the same row: what is always there has its first sample in each.
        distinct = {repr([(name, edge[name]) for name in sorted(edge) if name in table.compared]) for edge in edges}
        assert len(hashes) == len(distinct) > 0


def drop_constraints(conn: psycopg.Connection, table: Table) -> None:
    """Let the table take any row of its types."""
    query = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('c', 'f')"
    for (name,) in conn.execute(query, [table.full_name]).fetchall():
        conn.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table.sql, sql.Identifier(name)))


def insert(conn: psycopg.Connection, table: Table, row: Mapping[str, Any]) -> None:
    names, values = identifiers(list(row)), sql.SQL(", ").join(map(sql.Literal, row.values()))
    conn.execute(sql.SQL("INSERT INTO {} ({}, sync_id) VALUES ({}, 0)").format(table.sql, names, values))


@pytest.mark.parametrize(("source", "table"), READ, ids=name_of)
def test_every_column_takes_its_types_edges(conn, source, table):
    """Through COPY and back, unchanged in value; what a reader takes for no value of its column is left out."""
    set_json_loads(decode_json, conn)
    found, shapes = types(conn, table), import_module(f"tests.contract.{source}").Account.shapes
    samples = {
        column: [shaped for sample in SAMPLES[found[column.name]] if takes(column, shaped := shape(sample))]
        for column in table.columns
        for shape in [shapes.get(column.name, lambda sample: sample)]
    }
    assert {column.name: few for column, few in samples.items() if len(few) < 2} == {}
    keys = [column for column in table.columns if column.name in table.key]
    always = {*required(conn, table), *table.required}
    filled = {column: samples[column][0] for column in table.columns if column.name in always}
    records = []
    for column in table.columns:
        for sample in samples[column]:
            numbered = {key: key_value(found[key.name], len(records)) for key in keys}
            records.append(record_of(filled | {column: sample} | numbered))
    assert_stored(conn, table, records)


def key_value(type_: str, number: int) -> Any:
    """A value for a column of that type, another one in each row."""
    if type_ == "boolean":
        return bool(number % 2)
    if type_ == "text":
        return f"Zoë 😀\t\\N\n\\. {number}"
    if type_ == "date":
        return str(NIGHT.date() + timedelta(days=number))
    return str(NIGHT + timedelta(microseconds=number)) if type_ == "timestamp with time zone" else number + 1


def takes(column: Column, sample: Any) -> bool:
    try:
        return column.read(sample) is not None
    except ValueError:
        return False


def record_of(fields: Mapping[Column, Any]) -> dict[str, Any]:
    """A record as the source sends it, with values in the columns' fields."""
    record: dict[str, Any] = {}
    for column, value in fields.items():
        *outer, last = (column.field or column.name).split(".")
        reduce(lambda inside, name: inside.setdefault(name, {}), outer, record)[last] = value
    return record


@pytest.mark.parametrize(("source", "name"), ENTITIES)
class TestDeclared:
    def test_asks_for_less_where_the_list_has_a_filter(self, source, name):
        """Both ends of a window, and its start, go into the request; the rest of it stays as it was."""
        entity = declared(source, name)
        hour = timedelta(hours=1)
        readings = {Since: ["request"], Window: ["request", "late"]}.get(type(entity.changes), [])
        for reading in filter(None, (getattr(entity.changes, reading) for reading in readings)):
            ends = [(NIGHT,), (NIGHT + hour,)]
            if isinstance(entity.changes, Window):
                ends = [(NIGHT, NIGHT + hour), (NIGHT, NIGHT + 2 * hour), (NIGHT + hour, NIGHT + 2 * hour)]
            listing = entity.listing
            requests = [reading(listing, *moments) for moments in ends]
            for request in requests:
                assert (request.path, request.method) == (listing.path, listing.method)
                assert request.params.keys() >= listing.params.keys()
                assert (request.body or {}).keys() >= (listing.body or {}).keys()
            assert all(request not in [listing, *requests[:place]] for place, request in enumerate(requests))

    def test_partitions_go_into_the_request(self, source, name):
        entity = declared(source, name)
        if entity.partitions and not isinstance(entity, Discovered):
            assert entity.partitions.size > 0
            some = [str(7001 + number) for number in range(entity.partitions.size)]
            text = text_of(entity.partitions.request(entity.listing, some))
            assert [value for value in some if value not in text] == []


@pytest.mark.parametrize(("source", "name"), ENTITIES)
def test_lists_are_asked_for_what_they_would_leave_out(filled, source, name):
    """By scans and full syncs, and by syncs of what changed: no request drops a parameter of the list."""
    entity = entity_of(filled.source, name)
    wanted = set(entity.leaves_out.asked_for.values())
    with filled.context() as opened:
        context = replace(opened, params=filled.account.params)
        listings = all_listings(context, entity, known_partitions(context, entity))
        requests = [listing.request for listing in listings if listing.request]
        told = f"{entity.table.full_name}: leaves_out names a parameter that"
        lost = wanted - set().union(*(request.param_names for request in requests))
        assert not lost, f"{told} no request of its lists has: {lost}. Put it into listing, views or partitions"
        if isinstance(entity.changes, Since | Window):
            ends = (NIGHT,) if isinstance(entity.changes, Since) else (NIGHT, NIGHT + timedelta(hours=1))
            readings = [entity.changes.request, getattr(entity.changes, "late", None)]
            for request, reading in itertools.product(requests, filter(None, readings)):
                lost = wanted & request.param_names - reading(request, *ends).param_names
                assert not lost, (
                    f"{told} the request for what changed lacks: {lost}. Let `changes` keep what it is given"
                )


def text_of(request: Request) -> str:
    """All that goes into a request."""
    return str((request.path, request.params, request.body))


@pytest.mark.parametrize(
    ("source", "name"), [(s, name) for s, name in ENTITIES if isinstance(declared(s, name), Discovered)]
)
def test_lists_in_brief_are_of_one_partition_each(filled, source, name):
    entity = entity_of(filled.source, name)
    with filled.context() as opened:
        context = replace(opened, params=filled.account.params)
        for partition in known_partitions(context, entity):
            listings = entity.lists(context, partition, None)
            assert {listing.partition for listing in listings} == {partition}
            asked = [listing.request for listing in listings if not listing.named]
            assert [request for request in asked if request and partition not in text_of(request)] == []


def assert_stored(conn: psycopg.Connection, table: Table, records: list[Mapping[str, Any]]) -> None:
    """The records come through COPY into the staging table as the readers gave them."""
    stage = Stage.open(conn, table, table.schema, "contract", "ticket")
    stage.append(records, next_position=None, page_info={})
    assert stage.pull.rows_refused == 0
    query = sql.SQL("SELECT {} FROM {} ORDER BY _place").format(
        sql.SQL(", ").join(map(sql.Identifier, table.names)), stage.sql
    )
    rows = conn.execute(query).fetchall()
    structures = {column for column, type_ in types(conn, table).items() if type_ == "jsonb"}
    for record, row in zip(records, rows, strict=True):
        for column, sent, stored in zip(table.names, table.row(record), row, strict=True):
            expected = decode_json(sent) if column in structures and sent is not None else sent
            assert stored == expected, column
            assert type(stored) is type(expected), column


@pytest.mark.parametrize(("source", "name"), ENTITIES)
class TestEntity:
    def test_records_go_through_unchanged(self, account, conn, source, name):
        set_json_loads(decode_json, conn)
        entity = declared(source, name)
        records = account.records(entity)
        assert len(records) > 3
        assert_stored(conn, entity.table, records)
        for part in entity.parts:
            assert_stored(conn, part.table, inside(part, records))

    def test_lookup_proves_presence_and_absence(self, account, run, source, name):
        entity = declared(source, name)
        record = account.records(entity)[0]
        row = dict(zip(entity.table.names, entity.table.row(record), strict=True))
        value = tuple(row[name] for name in entity.lookup.by)
        absent = account.absent(entity)
        with run.context() as context:
            looks = dict(look_up(context, entity.table, entity.lookup, [value, absent]))
            witness = entity.lookup.witness
            heard = dict(look_up(context, entity.table, witness, [absent])) if witness else looks
        assert entity.table.key_of(record) in {entity.table.key_of(row) for row in looks[value].rows}
        assert (looks[absent].rows, looks[absent].unknown, heard[absent].rows) == ((), "", ())
        assert heard[absent].unknown == ""

    @pytest.mark.drill("killed-sync")
    def test_first_sync_cut_off_at_any_page_ends_as_a_whole_one(self, run, conn, source, name):
        """A partition that fails leaves the others, and several are asked for once more, each by itself.

        Records that other entities need are looked up one by one, if those entities read their whole lists.
        """
        run.sync()
        entity = entity_of(run.source, name)
        pages = run.account.pages(entity)
        assert pages > 0
        whole, partly = rows_of(conn, entity), entity.partitions or is_needed_by_whole_lists(run.source, name)
        for page in range(1, pages + 1):
            forget(conn, entity)
            run.account.cut(entity, page)
            with suppress(SyncFailed) if entity.partitions else pytest.raises(SyncFailed, match=name):
                run.sync()
            found = rows_of(conn, entity)
            assert found == ({key: whole[key] for key in found} if partly else {})
            run.sync()
            assert rows_of(conn, entity) == whole


@pytest.mark.parametrize(("source", "name"), [(s, name) for s, name in ENTITIES if expires(declared(s, name))])
def test_first_sync_begins_again_if_the_token_to_go_on_by_is_not_taken(run, conn, monkeypatch, source, name):
    """Whatever the vendor answers to it: a 404 or a 500, each time, must not hold up the copy for good."""
    run.sync()
    entity = entity_of(run.source, name)
    whole = rows_of(conn, entity)
    for error in (FixConfiguration, NotFound, TryLater):

        def pages(*asked: Any, position: Any, error: type[ApiError] = error, **options: Any) -> Iterator[Page]:
            if position is not None:
                raise error("the token is unknown", status=500)
            yield from fetch.pages(*asked, position=position, **options)

        forget(conn, entity)
        run.account.cut(entity, run.account.pages(entity))
        with suppress(SyncFailed):
            run.sync()
        with monkeypatch.context() as patch:
            patch.setattr(read, "pages", pages)
            run.sync()
        assert rows_of(conn, entity) == whole


def is_needed_by_whole_lists(source: Mirror, name: str) -> bool:
    """Whether each sync looks up what the copy lacks of the entity, for a list that it reads as a whole."""
    others = (other for other in source.entities if isinstance(other.changes, FullList))
    return any(need.entity == name for other in others for need in other.needs)


def inside(part: Part, records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The part's rows in all of the records, each of which names its record."""
    return [row for record in records for row in part.rows(record)]


def forget(conn: psycopg.Connection, entity: Entity) -> None:
    """Make the entity one that was never synced."""
    for table in entity.tables:
        conn.execute(sql.SQL("DELETE FROM {}").format(table.sql))
    conn.execute("DELETE FROM confidence.sync_state WHERE entity = %s", [entity.name])


def rows_of(conn: psycopg.Connection, entity: Entity) -> dict[tuple, dict]:
    """The rows of the entity and its parts by table and key, without what tells which sync wrote them."""
    rows = {}
    for table in entity.tables:
        query = sql.SQL("SELECT {}, to_jsonb(t) - 'sync_id' FROM {} t").format(identifiers(table.key), table.sql)
        rows |= {(table.name, *key): row for *key, row in conn.execute(query)}
    return rows


@pytest.mark.parametrize("source", MIRRORS)
def test_first_sync_brings_every_record(filled, conn, source):
    for entity in MIRRORS[source].entities:
        records = filled.account.records(entity)
        expected = {(entity.name, *entity.table.key_of(record)) for record in records}
        for part in entity.parts:
            keys = {(part.table.name, *part.table.key_of(row)) for row in inside(part, records)}
            assert keys, part.table.name
            expected |= keys
        assert set(rows_of(conn, entity)) == expected


@pytest.mark.parametrize("source", MIRRORS)
def test_comparison_is_a_span_of_the_scan(filled, ended_spans, source):
    for entity in filled.source.entities:
        ended_spans()
        summary = filled.scan_one(entity.name)
        compare, scan = ended_spans()
        assert (compare.name, compare.parent) == ("sync_confidence.compare", scan.context)
        assert (compare.attributes["source"], compare.attributes["entity"]) == (source, entity.name)
        assert compare.attributes["live_rows"] == summary.accounts[entity.name].live


@pytest.mark.parametrize("source", MIRRORS)
def test_census_knows_the_fields_and_two_equal_scans_tell_no_change(filled, conn, source):
    summaries = [*filled.scan(), *filled.scan()]
    assert conn.execute("SELECT entity, path, kind FROM confidence.field_change").fetchall() == []
    for summary in summaries:
        known = known_fields(conn, source, summary.entity)
        account = summary.accounts[summary.entity]
        assert account.compared <= known[RECORD].objects <= account.listed
        assert any(field.state is State.DECLARED for path, field in known.items() if path != RECORD)
        lost = [summary.metrics[f"declared_fields_{what}"] for what in ("vanished", "retyped")]
        assert (summary.metrics["declared_fields"] > 0, lost) == (True, [0, 0])
    for table, paths in filled.source.enumerations.items():
        assert set(paths) <= set(known_fields(conn, source, table))


@pytest.mark.parametrize("source", MIRRORS)
def test_every_partition_has_its_watermark(filled, conn, source):
    query = "SELECT partition FROM confidence.sync_state WHERE entity = %s AND watermark IS NOT NULL"
    for entity in filled.source.entities:
        with filled.context() as context:
            values, with_state = known_partitions(context, entity), state_partitions(context, entity)
        assert sorted(partition for (partition,) in conn.execute(query, [entity.name])) == sorted(with_state)
        assert len(values) > (entity.partitions.size if entity.partitions else 0)


@pytest.mark.parametrize(("source", "name"), [(s, name) for s, name in ENTITIES if declared(s, name).history])
def test_history_keeps_what_the_list_shows_no_more(filled, conn, superuser, source, name):
    """What the list shows otherwise was read wrongly, and is corrected."""
    entity = entity_of(filled.source, name)
    invent(superuser, entity.table)
    before = rows_of(conn, entity)
    for column in set(entity.table.names) - set(entity.table.key) - required(conn, entity.table):
        query = sql.SQL("UPDATE {} SET {} = NULL WHERE sync_id <> 0")
        conn.execute(query.format(entity.table.sql, sql.Identifier(column)))
    assert rows_of(conn, entity) != before
    filled.sync("full")
    assert rows_of(conn, entity) == before
    assert sum(vars(filled.scan_one(name).plan).values()) == 0
    first = next(iter(before))[1:]
    conn.execute(
        sql.SQL("DELETE FROM {} WHERE ({}) = ({})").format(
            entity.table.sql, identifiers(entity.table.key), sql.SQL(", ").join(map(sql.Literal, first))
        )
    )
    assert vars(filled.scan_one(name).plan) == {"insert": 1, "update": 0, "delete": 0}


def invent(conn: psycopg.Connection, table: Table, *more: str, **known: object) -> None:
    """Write a row that the source never had, with its key, the same in the columns `more`, and what is never null."""
    found, always = types(conn, table), required(conn, table).intersection(table.names)
    names = list(dict.fromkeys((*table.key, *more, *always)))
    values = sql.SQL(", ").join(sql.Literal(known.get(name, key_value(found[name], 10**9))) for name in names)
    with conn.transaction():
        # Foreign keys keep out what a restored part of a backup, say, may bring.
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute(
            sql.SQL("INSERT INTO {} ({}, sync_id) VALUES ({}, 0)").format(table.sql, identifiers(names), values)
        )


@pytest.mark.parametrize("tombstone", [False, True])
@pytest.mark.parametrize(("source", "name"), [(s, name) for s, name in ENTITIES if declared(s, name).parts])
def test_parts_without_their_record_are_surplus(filled, conn, superuser, source, name, tombstone):
    """The record is neither in the list nor in the copy, unless as a tombstone."""
    entity = entity_of(filled.source, name)
    before = rows_of(conn, entity)
    column = entity.partitions.column if entity.partitions else None
    # Of a partition that is asked for, or nobody could tell.
    known = {column: next(iter(before.values()))[column]} if column in entity.table.key else {}
    if tombstone:
        invent(superuser, entity.table, **known)
        conn.execute(sql.SQL("UPDATE {} SET deleted_at = now() WHERE sync_id = 0").format(entity.table.sql))
    for part in entity.parts:
        invent(superuser, part.table, *part.by, **known)
    scans = filled.scan()
    [plan] = [vars(summary.plan) for summary in scans if summary.entity == name]
    assert plan == {"insert": 0, "update": 0, "delete": len(entity.parts)}
    filled.repair(scans)
    assert {key: row for key, row in rows_of(conn, entity).items() if row["deleted_at"] is None} == before


@pytest.mark.parametrize("source", sorted({source for source, _ in COMPUTED}))
def test_computed_tables_follow_a_repair(filled, conn, source):
    filled.account.drift()
    scans = filled.scan()
    _, counts = filled.repair(scans)
    assert sum(vars(counts[table.name])["deleted"] for of, table in COMPUTED if of == source) > 0
    assert [derived.table.name for derived in MIRRORS[source].derived if outdated(conn, derived)] == []


def outdated(conn: psycopg.Connection, derived: Derived) -> int:
    """The rows in which the computed table is not what its query finds."""
    query = sql.SQL(derived.query).format(touched=sql.SQL("true")) if derived.touched else sql.SQL(derived.query)
    parts = {"query": query, "names": identifiers(derived.table.names), "table": derived.table.sql}
    ours = sql.SQL("SELECT {names} FROM {table} t WHERE deleted_at IS NULL AND NOT ({keep})").format(
        keep=sql.SQL(derived.keep), **parts
    )
    both = "SELECT count(*) FROM ((({query}) EXCEPT ({ours})) UNION ALL (({ours}) EXCEPT ({query}))) d"
    return conn.execute(sql.SQL(both).format(**parts, ours=ours)).fetchone()[0]
