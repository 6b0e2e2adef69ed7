"""The rows that a stub serves, made from a few examples of the author, and changed as a vendor's users would."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from include.sources.mirror.changes import Feed
from include.sources.mirror.entity import Child, Entity, Part
from include.sources.mirror.source import Mirror
from include.warehouse.table import Column, Table
from tests.stub import moments
from tests.stub.declared import path_of, value_of, values_of

# How many rows there are of each entity, at least; of those that have a parent some parents have two.
ROWS, CHILDREN = 10, 15
# What changes has changed a moment ago: a window ends at the second in which a sync begins.
MOMENT_AGO = timedelta(seconds=10)
Record = dict[str, Any]
# Makes the event of a change, as the API sends it, from its kind (created, updated or deleted), the record and the
# time; None where the API tells no such change.
Telling = Callable[[str, Record, datetime], Mapping[str, Any] | None]

# Makes the entry of a deleted record in a list of deletes.
TellingDelete = Callable[[Record, datetime], Mapping[str, Any]]
# Takes the record out of an event, None where the event has none.
Reader = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


class WrongExamples(Exception):
    """The examples of an entity can't be used. The message says what to change in them."""


@dataclass(frozen=True)
class Event:
    """A change that a feed tells; `delete`: that a list of deletes tells."""

    entity: str
    moment: datetime
    data: Mapping[str, Any]
    delete: bool = False


class Store:
    """The rows of each entity, in the order in which they came, and the events of their changes.

    - `telling`: what makes those events, for each entity that has a feed
    - `telling_deletes`: what makes an entry from a deleted record and the time, for each entity with a list of deletes
    - `unique`: the tables of rows inside records of which no two records have one with the same id

    `rows` and, once they are deleted, `deleted` have the records of each entity.
    """

    def __init__(
        self,
        source: Mirror,
        examples: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        telling: Mapping[str, Telling] | None = None,
        telling_deletes: Mapping[str, TellingDelete] | None = None,
        unique: Collection[str] = (),
    ):
        self.source = source
        self.events: list[Event] = []
        self.deleted: dict[str, list[Record]] = {entity.name: [] for entity in source.entities}
        self._telling, self._telling_deletes = telling or {}, telling_deletes or {}
        self.rows: dict[str, list[Record]] = {}
        for entity in source.entities:
            self.rows[entity.name] = [deepcopy(dict(each)) for each in examples[entity.name]]
            _require_fields(entity, self.rows[entity.name])
            _require_shared(entity, unique)
        for entity in source.entities:
            self._grow(entity, CHILDREN if isinstance(entity, Child) else ROWS)
        # No number is given again, though rows are deleted.
        self._numbers = {name: itertools.count(len(rows) + 1) for name, rows in self.rows.items()}
        for entity in source.entities:
            self._refer(entity)
            _require_keys(source, entity, self.rows[entity.name])
            self._require_events(entity)

    def insert(self, entity: Entity, *, silent: bool = False) -> Record:
        """Add a row like the first, with a key of its own; `silent`: it doesn't say that it is new."""
        row = _clone(entity, self.rows[entity.name][0], next(self._numbers[entity.name]))
        self.rows[entity.name].append(row if silent else self._touched(entity, row))
        if not silent:
            self._tell(entity, "created", self.rows[entity.name][-1])
        return row

    def update(self, entity: Entity, place: int, column: str, value: Any, *, silent: bool = False) -> None:
        """Set a column of the row at that place; `silent`: its time of change stays."""
        row = _put(self.rows[entity.name][place], path_of(entity, column), value)
        self.rows[entity.name][place] = row if silent else self._touched(entity, row)
        if not silent:
            self._tell(entity, "updated", self.rows[entity.name][place])

    def delete(self, entity: Entity, place: int, *, silent: bool = False) -> None:
        """Delete the row at that place with its children. Where the API tells of deletes it does, unless `silent`."""
        row = self.rows[entity.name][place]
        if entity.table.tombstone and not silent:
            self.update(entity, place, entity.table.tombstone, True)
            return
        del self.rows[entity.name][place]
        self.deleted[entity.name].append(row)
        if not silent:
            self._tell(entity, "deleted", row)
        key = values_of(entity, row, entity.table.key)
        for child in self.source.children(entity):
            kept = [each for each in self.rows[child.name] if values_of(child, each, child.lookup.by) != key]
            self.rows[child.name] = kept

    def _tell(self, entity: Entity, kind: str, record: Record) -> None:
        moment = datetime.now(UTC) - MOMENT_AGO
        if entity.name in self._telling and (event := self._telling[entity.name](kind, record, moment)):
            self.events.append(Event(entity.name, moment, event))
        if kind == "deleted" and (entry := self._telling_deletes.get(entity.name)):
            self.events.append(Event(entity.name, moment, entry(record, moment), delete=True))

    def _require_events(self, entity: Entity) -> None:
        """Events that the feed's declaration doesn't read would be told in vain."""
        if entity.deletes:
            self._require_deletes(entity)
        if not isinstance(entity.changes, Feed):
            return
        where, record = f"{self.source.name}.{entity.name}", self.rows[entity.name][0]
        if entity.name not in self._telling:
            raise WrongExamples(
                f"{where} has a Feed, and nothing makes its events: give stubbed(..., events={{{entity.name!r}:"
                " lambda kind, record, moment: ...}), which returns the event of a change as the API sends it"
            )
        read, deleted = entity.changes.record, entity.changes.deleted
        # What `deleted` finds is looked up only if the copy has it, so it would leave out each new record.
        for kind, readers in {"created": [read], "updated": [read], "deleted": [read, deleted]}.items():
            event = self._telling[entity.name](kind, record, datetime.now(UTC))
            if event and (why := _unread(entity, event, record, *readers)):
                raise WrongExamples(f"the Feed of {where} {why} an event of kind {kind!r}: change `events` or the Feed")

    def _require_deletes(self, entity: Entity) -> None:
        where, record = f"{self.source.name}.{entity.name}", self.rows[entity.name][0]
        if entity.name not in self._telling_deletes:
            raise WrongExamples(
                f"{where} has Deletes, and nothing makes their entries: give stubbed(..., deletes={{{entity.name!r}:"
                " lambda record, moment: ...}), which returns the entry of a deleted record as the API sends it"
            )
        entry = self._telling_deletes[entity.name](record, datetime.now(UTC))
        if why := _unread(entity, entry, record, entity.deletes.deleted):
            raise WrongExamples(f"the Deletes of {where} {why} an entry: change `deletes` or the Deletes")

    def _touched(self, entity: Entity, row: Record) -> Record:
        """The row with a newer time of change, and the highest version where those are numbers."""
        table = entity.table
        if table.moment and (before := value_of(entity, row, table.moment)) is not None:
            row = _put(row, path_of(entity, table.moment), moments.write(datetime.now(UTC) - MOMENT_AGO, before))
        if table.version and table.version != table.moment:
            versions = [value_of(entity, each, table.version) for each in self.rows[entity.name]]
            row = _put(row, path_of(entity, table.version), max(filter(None, versions), default=0) + 1)
        return row

    def _grow(self, entity: Entity, count: int) -> None:
        rows, given = self.rows[entity.name], len(self.rows[entity.name])
        rows += [_clone(entity, rows[place % given], place // given) for place in range(given, max(given, count))]

    def _refer(self, entity: Entity) -> None:
        """Let the rows name rows of those entities that they belong to."""
        for name, columns in _references(entity):
            other = next(each for each in self.source.entities if each.name == name)
            for place, row in enumerate(self.rows[entity.name]):
                named = self.rows[name][place % len(self.rows[name])]
                for column, key in zip(columns, other.table.key, strict=True):
                    row = _put(row, path_of(entity, column), value_of(other, named, key))
                self.rows[entity.name][place] = row


def _references(entity: Entity) -> list[tuple[str, Sequence[str]]]:
    """The entities that the rows name, each with the columns."""
    found: list[tuple[str, Sequence[str]]] = [(need.entity, need.by) for need in entity.needs]
    if entity.partitions and entity.partitions.listed_by:
        found.append((entity.partitions.listed_by, [entity.partitions.column]))
    if isinstance(entity, Child):
        found.append((entity.parent, entity.lookup.by))
    return [(name, columns) for name, columns in found if name != entity.name]


def _clone(entity: Entity, row: Record, number: int) -> Record:
    """Another record like the row, whose keys are its own, and those of the rows inside it."""
    pointing = {column for _, columns in _references(entity) for column in columns}
    clone = deepcopy(row)
    for part in entity.parts:
        if not _shared(part):
            clone = _renamed(clone, _part_keys(part, row), number)
    for place, column in enumerate(entity.table.key):
        if column not in pointing:
            value = value_of(entity, row, column)
            # Rows inside a record may name it by themselves.
            for part in entity.parts:
                clone = _renamed(clone, {(_field(part.table, part.by[place]), str(value))}, number)
            clone = _put(clone, path_of(entity, column), _other(value, number))
    return clone


def _field(table: Table, column: str) -> str:
    """The name of a column's field."""
    return next(each.field or each.name for each in table.columns if each.name == column)


def _shared(part: Part) -> bool:
    """Whether several records can have a row with the same id: its key tells them apart.

    The stub lets all records share such ids, so that a sync which mixes them up shows.
    """
    return set(part.by) <= set(part.table.key)


def _part_keys(part: Part, row: Record) -> set[tuple[str, str]]:
    """The keys of the rows inside a record: the names of their fields, and their values."""
    fields = {c.name: (c.field or c.name) for c in part.table.columns if c.name in part.table.key}
    wanted = {field for name, field in fields.items() if name not in part.by}
    return {(field, str(inner[field])) for inner in part.rows(row) for field in wanted if field in inner}


def _renamed(value: Any, keys: set[tuple[str, str]], number: int) -> Any:
    if isinstance(value, list):
        return [_renamed(each, keys, number) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _other(each, number) if (name, str(each)) in keys else _renamed(each, keys, number)
        for name, each in value.items()
    }


def _other(value: Any, number: int) -> Any:
    """Another key of the same kind."""
    if isinstance(value, int):
        return value + 1000 * number
    text = str(value)
    return str(int(text) + 1000 * number) if text.isdigit() else f"{text}-{number}"


def _put(record: Record, path: Sequence[str], value: Any) -> Record:
    """The record with that value in that place."""
    first, *others = path
    inner = record.get(first)
    return {**record, first: _put(inner if isinstance(inner, dict) else {}, others, value) if others else value}


def _unread(entity: Entity, event: Mapping[str, Any], record: Record, *readers: Reader) -> str:
    """Say what a feed's readers do with an event in place of reading the record from it; empty if one reads it."""
    try:
        found = [read(event) for read in readers]
    except Exception as error:  # noqa: BLE001 - the author's functions may fail in any way
        return f"can't read ({type(error).__name__}: {error})"
    if wrong := [each for each in found if not isinstance(each, Mapping | None)]:
        return f"takes {type(wrong[0]).__name__} {wrong[0]!r} for a record of"
    keys = [entity.table.key_of(each) for each in found if each is not None]
    return "" if entity.table.key_of(record) in keys else "finds no record in"


def _require_fields(entity: Entity, rows: Sequence[Record]) -> None:
    """A column whose field no example has may be one that is read under a wrong name."""
    for table, records in ((entity.table, rows), *((part.table, _inside(entity, part, rows)) for part in entity.parts)):
        for column in table.columns:
            path = column.path
            if not any(has_field(record, path) for record in records):
                raise WrongExamples(
                    f"no example of {table.full_name} has the field {column.dotted_path} of column {column.name}: add"
                    " it, or see what the API calls it"
                )
            _require_read(table, column, [value for record in records if (value := _at(record, path)) is not None])


def _require_read(table: Table, column: Column, values: Sequence[Any]) -> None:
    """A value that the column's reader refuses, or makes nothing of, would be missing in every row."""
    for value in values:
        where = f"column {column.name} of {table.full_name}"
        try:
            read = column.read(value)
        except ValueError as error:
            raise WrongExamples(f"{where} refuses its value in an example, which {error}: see its reader") from error
        blank = value in ([], {}) or (isinstance(value, str) and not value.strip())
        if read is None and column.uses is None and not blank:
            raise WrongExamples(f"{where} makes nothing of its value in an example: give it another reader")


def _inside(entity: Entity, part: Part, records: Sequence[Record]) -> list[Mapping[str, Any]]:
    try:
        return [row for record in records for row in part.rows(record)]
    except Exception as error:
        where = f"an example of {entity.table.full_name} as rows of {part.table.name}"
        raise WrongExamples(f"`rows` of the Part can't read {where} ({type(error).__name__}: {error})") from error


def _require_shared(entity: Entity, unique: Collection[str]) -> None:
    """Such a key is right or loses rows, and only the author knows: the API's documentation says which."""
    for part in entity.parts:
        if not _shared(part) and part.table.name not in unique:
            by, key = ", ".join(part.by), ", ".join(part.table.key)
            raise WrongExamples(
                f"two records of {entity.table.full_name} can have rows with the same {key}, and {part.table.name}"
                f" would keep only one of them: add {by} to its key. If the API says that no two records share"
                f" one, say stubbed(..., unique={{{part.table.name!r}}})"
            )


def _at(record: Any, path: Sequence[str]) -> Any:
    for name in path:
        record = record.get(name) if isinstance(record, Mapping) else None
    return record


def has_field(record: Any, path: Sequence[str]) -> bool:
    """Return whether the record names the field that the path leads to."""
    for name in path:
        if not isinstance(record, dict) or name not in record:
            return False
        record = record[name]
    return True


def _require_keys(source: Mirror, entity: Entity, rows: Sequence[Record]) -> None:
    where = f"{source.name}.{entity.name}"
    keys = [entity.table.key_of(row) for row in rows]
    if None in keys:
        raise WrongExamples(f"no usable key can be made from the examples of {where}: give {len(rows)} of your own")
    if len(set(keys)) < len(keys):
        raise WrongExamples(f"two records of {where} get the same key: give examples whose keys are further apart")
    for column in dict.fromkeys((*entity.table.key, *entity.lookup.by)):
        read = dict(zip(entity.table.names, entity.table.row(rows[0]), strict=True))[column]
        if str(value_of(entity, rows[0], column)) != str(read):
            raise WrongExamples(f"{where} is asked for by {column}, which is stored otherwise than the API sends it")
