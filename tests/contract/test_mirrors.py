"""What mirrored sources promise besides; their accounts also have `records`, `pages`, `cut` and `absent`."""

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import set_json_loads

from include.api.client import decode_json
from include.api.errors import NotFound
from include.sources import REGISTRY, get_source
from include.sources.base import SyncFailed, entity_of
from include.sources.mirror.entity import Entity
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import look_up
from include.warehouse.staging import Stage

MIRRORS = [source for source in REGISTRY if isinstance(get_source(source), Mirror)]
ENTITIES = [(source, entity.name) for source in MIRRORS for entity in get_source(source).entities]
OWN_COLUMNS = {"row_hash": "bigint", "deleted_at": "timestamp with time zone", "sync_id": "bigint"}

# For each column type what a source may send at the edges; no two of them are the same value.
SAMPLES = {
    "bigint": [1, -1, 2**63 - 1, -(2**63)],
    "numeric": ["0.00", "0.01", "-0.01", "12345678901234567890.123456789", "-12345678901234567890.123456789"],
    "text": ["", "x", "X", "x ", "Zoë 😀\t\\N\n\\."],
    "boolean": [True, False],
    "timestamp with time zone": [
        "2026-03-29T01:59:59.999999+01:00",
        "2026-03-29T00:59:59.999998Z",
        "1970-01-01T00:00:00Z",
    ],
    "date": ["2026-03-29", "2026-03-30"],
    "jsonb": [{}, [], [1], [-1], {"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "c": 2}}, ["0.10", ""]],
}


def declared(source: str, name: str) -> Entity:
    return entity_of(get_source(source), name)


def types(conn: psycopg.Connection, entity: Entity) -> dict[str, str]:
    """The columns of the migrated table with their types."""
    return dict(
        conn.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
            [entity.table.schema, entity.table.name],
        ).fetchall()
    )


@pytest.mark.parametrize("source", MIRRORS)
def test_copy_is_the_schema_of_its_name(source):
    assert {entity.table.schema for entity in get_source(source).entities} == {source}


@pytest.mark.parametrize(("source", "name"), ENTITIES)
class TestDeclared:
    def test_columns_are_the_migrated_tables(self, conn, source, name):
        entity = declared(source, name)
        found = types(conn, entity)
        assert {column: found.get(column) for column in OWN_COLUMNS} == OWN_COLUMNS
        assert set(found) - set(OWN_COLUMNS) == set(entity.table.names)
        assert len(set(entity.table.names)) == len(entity.table.names)

    def test_key_is_the_primary_key(self, conn, source, name):
        table = declared(source, name).table
        key = conn.execute(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid"
            " AND a.attnum = ANY (i.indkey) WHERE i.indisprimary AND i.indrelid = %s::regclass",
            [table.full_name],
        ).fetchall()
        assert {column for (column,) in key} == set(table.key)
        assert table.version is None or table.version in table.names

    def test_lookup_goes_by_a_column(self, source, name):
        entity = declared(source, name)
        assert entity.lookup.by in entity.table.names

    def test_comes_with_its_parent_or_tells_its_changes(self, source, name):
        entity = declared(source, name)
        assert (entity.changes is None) == (entity.parent is not None)
        if entity.parent:
            parent = declared(source, entity.parent)
            assert parent.parent is None
            assert entity.lookup.by not in entity.table.key

    def test_every_column_takes_its_types_edges_and_is_part_of_the_hash(self, conn, source, name):
        """Through COPY and back, unchanged in value; a column that the hash leaves out would drift unseen."""
        set_json_loads(decode_json, conn)
        entity = declared(source, name)
        table, found = entity.table, types(conn, entity)
        key = [column.field or column.name for column in table.columns if column.name in table.key]
        edges = [
            {column.field or column.name: sample}
            for column in table.columns
            if column.name not in table.key
            for sample in SAMPLES[found[column.name]]
        ]
        records = [edge | dict.fromkeys(key, number) for number, edge in enumerate(edges, 1)]
        assert_stored(conn, entity, records)
        hashes = [hash_ for (hash_,) in conn.execute(sql.SQL("SELECT row_hash FROM {}").format(staged_name(entity)))]
        assert len(set(hashes)) == len(records)


def staged_name(entity: Entity) -> sql.Identifier:
    return sql.Identifier("staging", f"{entity.table.schema}_{entity.name}_contract")


def assert_stored(conn: psycopg.Connection, entity: Entity, records: list[dict]) -> None:
    """The records come through COPY into the staging table as the readers gave them."""
    table = entity.table
    stage = Stage.open(conn, table, table.schema, "contract", "ticket")
    stage.append(records, next_position=None, page_info={})
    assert stage.pull.rows_refused == 0
    query = sql.SQL("SELECT {} FROM {} ORDER BY _place").format(
        sql.SQL(", ").join(map(sql.Identifier, table.names)), stage.sql
    )
    rows = conn.execute(query).fetchall()
    structures = {column for column, type_ in types(conn, entity).items() if type_ == "jsonb"}
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
        assert len(records) > 10
        assert_stored(conn, entity, records)

    def test_lookup_proves_presence_and_absence(self, account, run, source, name):
        entity = declared(source, name)
        record = account.records(entity)[0]
        value = entity.table.row(record)[entity.table.names.index(entity.lookup.by)]
        with run.context() as context:
            answers = dict(look_up(context, entity.lookup, [value, account.absent(entity)]))
        assert entity.table.key_of(record) in {entity.table.key_of(row) for row in answers[value]}
        gone = answers[account.absent(entity)]
        assert gone == [] or isinstance(gone, NotFound)

    def test_first_sync_cut_off_at_any_page_ends_as_a_whole_one(self, filled, conn, source, name):
        entity = declared(source, name)
        whole = rows_of(conn, entity)
        for page in range(1, filled.account.pages(entity) + 1):
            forget(conn, entity)
            filled.account.cut(entity, page)
            with pytest.raises(SyncFailed, match=name):
                filled.sync()
            assert rows_of(conn, entity) == {}
            filled.sync()
            assert rows_of(conn, entity) == whole


def forget(conn: psycopg.Connection, entity: Entity) -> None:
    """Make the entity one that was never synced."""
    conn.execute(sql.SQL("TRUNCATE {}").format(entity.table.sql))
    conn.execute("DELETE FROM confidence.sync_state WHERE entity = %s", [entity.name])


def rows_of(conn: psycopg.Connection, entity: Entity) -> dict[tuple, dict]:
    """The entity's rows without what tells which sync wrote them."""
    query = sql.SQL("SELECT to_jsonb(t) - 'sync_id' FROM {} t").format(entity.table.sql)
    return {tuple(row[k] for k in entity.table.key): row for (row,) in conn.execute(query)}


@pytest.mark.parametrize("source", MIRRORS)
def test_first_sync_brings_every_record(filled, conn, source):
    for entity in get_source(source).entities:
        assert set(rows_of(conn, entity)) == {entity.table.key_of(record) for record in filled.account.records(entity)}
