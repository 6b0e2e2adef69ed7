"""What the mirrors have in common on the liar's stage: their truth, their copies, and how a copy is spoilt."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from include.api.decoding import decode_json
from include.simulators.serving import Simulator
from include.sources.mirror.changes import BothEnds
from include.sources.mirror.entity import Child, Discovered, Entity
from include.warehouse import sync_log
from include.warehouse.sql_fragments import identifiers
from include.warehouse.table import Table
from tests.contract.account import Run
from tests.contract.test_mirrors import inside, key_value, outdated, types
from tests.liar.lies import KINDS, Lie
from tests.liar.stage import Key, Rows

NEVER = datetime.min.replace(tzinfo=UTC)
# The share of the changes in the tables that the liar lies about.
ON_TOPIC = 0.7


def is_off_topic(number: int, random: Random) -> bool:
    """Whether change `number` may be in a table that the liar does not lie about. The first one never is."""
    return number > 0 and random.random() > ON_TOPIC


class Mirrored:
    """Mixed into a mirror's account of the contract. `spoilt` names a column of each table that may be spoilt."""

    spoilt: Mapping[str, str]
    unlinked: Mapping[str, str] = {}
    never_invented: tuple[str, ...] = ()
    copy_is_theirs = False
    conn: psycopg.Connection

    def narrow(self, entities: Collection[str]) -> None:
        """Have a source of these entities alone, with those that their records refer to."""
        wanted, named = set(entities), set()
        while wanted:
            named |= wanted
            wanted = {name for each in self.source.entities if each.name in named for name in each.refers_to} - named
        chosen = tuple(entity for entity in self.source.entities if entity.name in named)
        tables = {table.name for entity in chosen for table in entity.tables}
        words = {name: paths for name, paths in self.source.enumerations.items() if name in tables}
        self.source = replace(self.source, entities=chosen, enumerations=words)

    def truth(self) -> Rows:
        found: dict[str, dict[Key, Any]] = {}
        self._moments: dict[tuple[str, Key], datetime | None] = {}
        self._records: dict[tuple[str, Key], Key] = {}
        self._parents: dict[tuple[str, Key], tuple[str, Key]] = {}
        for entity in self.source.entities:
            found |= self._truth_of(entity)
        if not hasattr(self, "_began"):
            self._began = max(filter(None, self._moments.values()), default=NEVER)
        return found

    def _truth_of(self, entity: Entity) -> Rows:
        records = self.records(entity)
        rows = {entity.name: self._read(entity.table, records)}
        moment = entity.table.moment
        for key, row in rows[entity.name].items():
            self._moments[entity.name, key] = row[moment] if moment else None
            if isinstance(entity, Child):
                self._parents[entity.name, key] = entity.parent, tuple(row[name] for name in entity.lookup.by)
        for part in entity.parts:
            rows[part.table.name] = self._read(part.table, inside(part, records))
            for key, row in rows[part.table.name].items():
                of = tuple(row[name] for name in part.by)
                self._moments[part.table.name, key] = self._moments.get((entity.name, of))
                self._records[part.table.name, key] = of
        return rows

    def name_of(self, table: str, key: Key) -> str | None:
        return str(self._records.get((table, key), key)[-1])

    def release(self, run: Run) -> None:
        pass

    def waits_for_night(self, why: str) -> bool:
        return False

    def _read(self, table: Table, records: list) -> dict[Key, Any]:
        structured = {name for name, type_ in types(self.conn, table).items() if type_ == "jsonb"}
        rows = {}
        for record in records:
            row = dict(zip(table.names, table.row(record), strict=True))
            row |= {name: decode_json(row[name]) for name in structured & row.keys() if row[name] is not None}
            rows[tuple(row[name] for name in table.key)] = {
                column.name: row[column.name] for column in table.columns if column.compared
            }
        return rows

    def live(self) -> Rows:
        return {table.name: self._live(table) for entity in self.source.entities for table in entity.tables}

    def _live(self, table: Table) -> dict[Key, Any]:
        gone = "deleted_at IS NULL" + " AND is_deleted IS NOT TRUE" * ("is_deleted" in table.names)
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(identifiers(table.names), table.sql, sql.SQL(gone))
        with self.conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query).fetchall()
        compared = [column.name for column in table.columns if column.compared]
        return {tuple(row[name] for name in table.key): {name: row[name] for name in compared} for row in rows}

    def due(self) -> set[tuple[str, Key]]:
        # A sync may leave out the others: lists without a changes feed, and lists that are read once a day.
        synced = {
            table.name: entity.changes
            for entity in self.source.entities
            for table in entity.tables
            if not isinstance(entity.changes, BothEnds) and not entity.history and not _rare(entity)
        }
        since = {row for row, moment in self._moments.items() if moment and moment > self._began}
        # A sync reads the children of those parents that have changed.
        return {row for row in since if row[0] in synced and self._parents.get(row, row) in since}

    def young(self) -> set[tuple[str, Key]]:
        marks = {
            table.name: sync_log.oldest_watermark(self.conn, self.source.name, entity.name)
            for entity in self.source.entities
            for table in entity.tables
        }
        moments = self._moments | self.tombstones()
        found = {
            (table, key)
            for (table, key), moment in moments.items()
            if moment and marks[table] and moment > marks[table]
        }
        # So are the rows of the copy inside a young record, which may have gone from it.
        return found | {
            (part.table.name, key)
            for entity in self.source.entities
            for part in entity.parts
            for key, row in self._live(part.table).items()
            if (entity.table.name, tuple(row[name] for name in part.by)) in found
        }

    def tombstones(self) -> Mapping[tuple[str, Key], datetime]:
        """When rows of the copy were deleted that the source shows as deleted."""
        return {}

    def kept(self) -> set[str]:
        return {entity.name for entity in self.source.entities if entity.history}

    def has_one_witness(self, table: str) -> bool:
        return any(
            table in [each.name for each in entity.tables]
            for entity in self.source.entities
            if isinstance(entity, Discovered)
        )

    def is_nested(self, table: str) -> bool:
        return any(table == part.table.name for entity in self.source.entities for part in entity.parts)

    def has_ended(self, table: str, key: Key) -> bool:
        return False

    def unsound(self) -> list[str]:
        return [
            f"{derived.table.name} is outdated in {wrong} rows"
            for derived in self.source.derived
            if (wrong := outdated(self.conn, derived))
        ]

    def spoil(self, random: Random, about: Collection[str], most: int) -> list[str]:
        tables = [(entity, table) for entity in self.source.entities for table in entity.tables]
        meant = [(entity, table) for entity, table in tables if entity.name in about]
        return [
            self._spoil(*random.choice(tables if is_off_topic(number, random) else meant), random)
            for number in range(random.randint(1, most))
        ]

    def _spoil(self, entity: Entity, table: Table, random: Random) -> str:
        keys = sorted(self._live(table))
        ways = ["lost"] + ["changed", "tombstoned"] * (not entity.history)
        ways += ["invented"] * (not entity.history and table.name not in self.never_invented)
        ways += ["unlinked"] * (table.name in self.unlinked)
        way = random.choice(ways)
        if way == "unlinked":
            # Of a row without its link that has gone at the source nobody can ever tell whether it has.
            keys = sorted(set(keys) & self.truth()[table.name].keys())
        if way == "invented" and table.name in self.unlinked:
            keys = [key for key in keys if self._live(table)[key][self.unlinked[table.name]] is not None]
        if not keys:
            return f"{table.name}: nothing to spoil"
        key = random.choice(keys)
        same = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in zip(table.key, key, strict=True)
        )
        parts = {"table": table.sql, "same": same}
        match way:
            case "lost":
                self._do("DELETE FROM {table} WHERE {same}", **parts)
            case "changed":
                column = sql.Identifier(self.spoilt[table.name])
                self._do("UPDATE {table} SET {column} = '987654321' WHERE {same}", column=column, **parts)
            case "tombstoned":
                self._do("UPDATE {table} SET deleted_at = now() WHERE {same}", **parts)
            case "unlinked":
                column = sql.Identifier(self.unlinked[table.name])
                self._do("UPDATE {table} SET {column} = NULL WHERE {same}", column=column, **parts)
            case "invented":
                self._invent(table, same, random)
        return f"{table.name} {key} {way}"

    def _invent(self, table: Table, same: sql.Composable, random: Random) -> None:
        """A row that the source never had, otherwise like the one of that key."""
        found = types(self.conn, table)
        last = table.key[-1]
        other = sql.Literal(key_value(found[last], random.randrange(10**6, 10**9)))
        names = [name for name in table.names if name != last]
        self._do(
            "INSERT INTO {table} ({names}, {last}, sync_id) SELECT {names}, {other}, 0 FROM {table} WHERE {same}",
            table=table.sql,
            names=identifiers(names),
            last=sql.Identifier(last),
            other=other,
            same=same,
        )

    def _do(self, query: str, **parts: sql.Composable) -> None:
        with self.conn.transaction():
            # What a restored backup brings asks no foreign key.
            self.conn.execute("SET LOCAL session_replication_role = replica")
            self.conn.execute(sql.SQL(query).format(**parts))


def _rare(entity: Entity) -> bool:
    return bool(entity.read_every)


class MirrorVendor:
    """What the harness knows of every mirror's vendor. `account_type`: the class of the source's account."""

    source: str
    account_type: type[Mirrored]
    first_page = 1
    past: frozenset[str] = frozenset()

    @contextmanager
    def account(self, running: Simulator, warehouse: str) -> Iterator[Any]:
        with psycopg.connect(warehouse, autocommit=True) as conn:
            set_json_loads(decode_json, conn)
            yield self.account_type(running, conn)

    def fill(self, account: Any) -> None:
        pass

    def settled(self) -> None:
        pass

    def prepare(self, control: Any) -> None:
        pass

    def present(self, control: Any, world: str) -> float | None:
        return None

    def kinds(self, family: str) -> Mapping[str, Lie]:
        return KINDS

    def group(self, family: str) -> str:
        return self.entities(family)[0]
