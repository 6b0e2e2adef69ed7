"""What every source promises the rest of the house; a new source passes this with an adapter beside this file.

The adapter is a module of the source's name: `opened(conn, run)` gives an account with `context`, `records(entity)`,
`pages(entity)`, `cut(entity, page)`, `absent(entity)` and `change()`.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import set_json_loads

from include.api.client import decode_json
from include.api.errors import FixConfiguration, NotFound
from include.confidence.policy import Limit
from include.sources import REGISTRY, get_source
from include.sources.base import SyncFailed, entity_of
from include.sources.mirror.entity import Entity
from include.sources.mirror.scan import Scope, scan
from include.sources.mirror.sync import look_up, sync
from include.warehouse import fence
from include.warehouse.rollback import Tables, roll_back
from include.warehouse.staging import Stage
from plugins.hooks.airflow_api import declared_pools
from stack.settings import REPOSITORY, SIMULATORS

ENTITIES = [(source, entity.name) for source in REGISTRY for entity in get_source(source).entities]
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


@pytest.fixture
def account(conn: psycopg.Connection, source: str) -> Iterator[Any]:
    with import_module(f"tests.contract.{source}").opened(conn, f"{source}_reconcile/contract") as opened:
        yield opened


@pytest.fixture
def filled(account: Any) -> Any:
    """The account with its first sync done."""
    sync(account.context)
    return account


def contents(conn: psycopg.Connection, source: str) -> dict[str, Any]:
    """Every row of every table of the source, and how far each entity is in step."""
    found: dict[str, Any] = {}
    for entity in get_source(source).entities:
        query = sql.SQL("SELECT to_jsonb(t) FROM {} t").format(entity.table.sql)
        rows = [row for (row,) in conn.execute(query)]
        found[entity.name] = {tuple(row[k] for k in entity.table.key): row for row in rows}
    found["sync_state"] = conn.execute(
        "SELECT entity, partition, watermark, version FROM confidence.sync_state WHERE source = %s ORDER BY 1, 2",
        [source],
    ).fetchall()
    return found


def mirrored(conn: psycopg.Connection, source: str) -> dict[str, Any]:
    return {name: rows for name, rows in contents(conn, source).items() if name != "sync_state"}


def changes(conn: psycopg.Connection) -> int:
    return conn.execute("SELECT count(*) FROM confidence.change_log").fetchone()[0]


@pytest.mark.parametrize("source", REGISTRY)
class TestRegistered:
    def test_by_its_own_name(self, source):
        declared = get_source(source)
        assert declared.name == source
        assert {entity.table.schema for entity in declared.entities} == {source}
        assert len({entity.name for entity in declared.entities}) == len(declared.entities)

    def test_with_a_writer_that_runs(self, conn, source):
        writer = fence.read(conn, source)
        assert (writer.stopped, writer.epoch) == (False, 0)

    def test_with_pool_dags_simulator_and_connection(self, source):
        assert f"{source}_writer" in declared_pools()
        for job in ("sync", "reconcile"):
            assert (REPOSITORY / "dags" / f"{source}_{job}.py").is_file()
        assert source in SIMULATORS
        assert f"AIRFLOW_CONN_{source.upper()}" in (REPOSITORY / "docker-compose.yaml").read_text()


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

    def test_lookup_proves_presence_and_absence(self, account, source, name):
        entity = declared(source, name)
        record = account.records(entity)[0]
        value = entity.table.row(record)[entity.table.names.index(entity.lookup.by)]
        answers = dict(look_up(account.context, entity.lookup, [value, account.absent(entity)]))
        assert entity.table.key_of(record) in {entity.table.key_of(row) for row in answers[value]}
        gone = answers[account.absent(entity)]
        assert gone == [] or isinstance(gone, NotFound)

    def test_gates_judge_what_the_scan_measures(self, filled, conn, source, name):
        entity = declared(source, name)
        summary = scan(filled.context, entity, stopped(filled), Scope())
        judged = {gate.metric for gate in entity.gates} | {g.of for g in entity.gates if isinstance(g, Limit)}
        assert judged
        assert judged <= {metric for metric, value in summary.metrics.items() if value is not None}
        assert vars(summary.plan) == {"insert": 0, "update": 0, "delete": 0}

    def test_scan_cut_off_at_any_page_ends_as_a_whole_one(self, filled, conn, source, name):
        entity = declared(source, name)
        epoch = stopped(filled)
        whole = scan(filled.context, entity, epoch, Scope())
        pages = filled.pages(entity)
        assert pages > 1
        for page in range(1, pages + 1):
            filled.cut(entity, page)
            with pytest.raises(FixConfiguration):
                scan(filled.context, entity, epoch, Scope())
            again = scan(filled.context, entity, epoch, Scope())
            assert (again.metrics, again.plan) == (whole.metrics, whole.plan)

    def test_first_sync_cut_off_at_any_page_ends_as_a_whole_one(self, filled, conn, source, name):
        entity = declared(source, name)
        whole = data(conn, entity)
        for page in range(1, filled.pages(entity) + 1):
            forget(conn, entity)
            filled.cut(entity, page)
            with pytest.raises(SyncFailed, match=name):
                sync(filled.context)
            assert data(conn, entity) == {}
            sync(filled.context)
            assert data(conn, entity) == whole


def stopped(account: Any) -> int:
    """The epoch of a stop for the account's run."""
    return fence.stop(account.context.conn, account.context.source.name, account.context.run, timeout=1).epoch


def forget(conn: psycopg.Connection, entity: Entity) -> None:
    """Make the entity one that was never synced."""
    conn.execute(sql.SQL("TRUNCATE {}").format(entity.table.sql))
    conn.execute("DELETE FROM confidence.sync_state WHERE entity = %s", [entity.name])


def data(conn: psycopg.Connection, entity: Entity) -> dict[tuple, dict]:
    """The entity's rows without what tells which sync wrote them."""
    query = sql.SQL("SELECT to_jsonb(t) - 'sync_id' FROM {} t").format(entity.table.sql)
    return {tuple(row[k] for k in entity.table.key): row for (row,) in conn.execute(query)}


@pytest.mark.parametrize("source", REGISTRY)
class TestSync:
    def test_first_one_brings_every_record(self, filled, conn, source):
        for entity in get_source(source).entities:
            assert set(data(conn, entity)) == {entity.table.key_of(record) for record in filled.records(entity)}

    @pytest.mark.parametrize("full", [False, True])
    def test_twice_is_once(self, filled, conn, source, full):
        before, audited = mirrored(conn, source), changes(conn)
        _, counts = sync(filled.context, full=full)
        assert mirrored(conn, source) == before
        assert changes(conn) == audited
        assert sum(count.inserted + count.updated + count.deleted for count in counts.values()) == 0

    def test_rollback_is_exact_and_can_be_undone(self, filled, conn, source):
        before = contents(conn, source)
        filled.change()
        sync_id, _ = sync(filled.context)
        after = contents(conn, source)
        assert mirrored(conn, source) != {name: rows for name, rows in before.items() if name != "sync_state"}
        undone = roll_back(conn, Tables(conn), sync_id, run="contract/1", reason="test", dry_run=False)
        assert contents(conn, source) == before
        roll_back(conn, Tables(conn), undone.sync_id, run="contract/2", reason="test", dry_run=False)
        assert contents(conn, source) == after

    def test_rollback_of_the_first_one_empties_the_copy(self, account, conn, source):
        empty = contents(conn, source)
        sync_id, _ = sync(account.context)
        assert contents(conn, source) != empty
        roll_back(conn, Tables(conn), sync_id, run="contract/1", reason="test", dry_run=False)
        assert contents(conn, source) == empty

    def test_knows_its_watermarks(self, filled, conn, source):
        states = conn.execute("SELECT entity, watermark FROM confidence.sync_state").fetchall()
        assert {entity for entity, _ in states} == {entity.name for entity in get_source(source).entities}
        assert [entity for entity, watermark in states if watermark is None] == []
