"""The declaration of mirrored tables: their columns, and where each stands in the source's JSON.

Each field of a record is read by a column, ignored by name with a reason, or kept in the column `extra`.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from psycopg import sql

from include.warehouse.field_path import has_field, join, lies_in, put, split, within
from include.warehouse.known_fields import Known
from include.warehouse.readers import (
    WHOLE,
    boolean,
    decimal,
    identifier,
    instant,
    integer,
    structure,
    text,
    unix_time,
)

# The column with the fields that no other column reads.
EXTRA = "extra"
# What each mirrored table has besides the source's columns. Those of staging tables and plans begin with an underscore.
OWN_COLUMNS = frozenset({"row_hash", "deleted_at", "sync_id"})
# Readers whose values tell no older row from a newer one, and those whose values are no flags.
UNORDERED = (text, boolean, structure)
NO_FLAGS = (integer, identifier, decimal, instant, unix_time)
# Before the name of a vendor's field whose name our own code needs in the record (see `add`).
SENT = "sent:"


class RowRefused(ValueError):
    """A row can't be stored. The message says which column and why, but never has the value."""


@dataclass(frozen=True)
class Column:
    """A column of a mirrored table.

    - `read`: turns the JSON value into the column's value; raises ValueError if it can't be stored
    - `field`: the source's name for it, if another; dots lead into objects, as in `price.amount`. A name that has a dot
      itself is in double quotes: `'"@odata.etag"'`
    - `compared`: False for a value that the source sends in some answers only. It is no part of the row's hash, so a
      row that differs in it alone is not written.
    - `uses`: what `read` takes out of an object. The object's other fields, and a list in its place, are kept in
      `extra`. None if `read` keeps all of the value.
    - `added_later`: True if rows that were written before the column existed lack it, since `extra` did not have it
      either. Its migration says so in confidence.column_since. Such rows are due (see `compare`).
    """

    name: str
    read: Callable[[Any], Any] = text
    field: str = ""
    compared: bool = True
    uses: tuple[str, ...] | None = None
    added_later: bool = False

    @cached_property
    def path(self) -> list[str]:
        """The names that lead to the value in a record."""
        return split(self.field or self.name)

    @cached_property
    def dotted_path(self) -> str:
        """The same path as one text, such as `price.amount`."""
        return reduce(join, self.path, "")

    @cached_property
    def reads(self) -> list[str]:
        """The paths, with dots, of the fields of which nothing is left for `extra`."""
        path = self.dotted_path
        return [path] if self.uses is None else [join(path, name) for name in self.uses]


@dataclass(frozen=True)
class Table:
    """A mirrored table. Raises ValueError if the names below are no columns, or the key is in another order.

    - `key`: the columns of the primary key, in the order of `columns`
    - `version`: the column (a time or a number) that tells an older version of a row from a newer one, if any
    - `changed`: the column with the time of the last change, if `version` is a number; it decides between two versions
      if one lacks the number
    - `required`: columns that every whole record fills; a record without one of them is refused
    - `tombstone`: the column in which the source flags a record as deleted; one look does not prove it
    - `ignored`: the fields that are not kept, each with the reason; paths as in `Column.field`. If a column
      `uses` a part of an object, only the rest of it is ignored.
    - `answers`: if a record is put together from several answers of the source, which one the fields under each first
      step of a path are from, in words
    - `added`: the fields that our own code puts into the records, by `add`. No census counts them. If the source sends
      a field of the same name, `extra` keeps that.
    - `keeps_extra`: whether the fields that are neither read nor ignored are kept in the column `extra`, the last one.
      False for a table whose rows are no records of the source, or not whole ones.
    """

    schema: str
    name: str
    columns: tuple[Column, ...] = dataclasses.field(hash=False)
    key: tuple[str, ...] = ("id",)
    version: str | None = "updated_at"
    changed: str | None = None
    required: tuple[str, ...] = ()
    tombstone: str | None = None
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    answers: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    added: tuple[str, ...] = ()
    keeps_extra: bool = True

    def __post_init__(self) -> None:
        named = {*self.key, *self.required, *filter(None, (self.version, self.changed, self.tombstone))}
        unknown = sorted(named - {column.name for column in self.columns})
        if unknown:
            default = " (the default of `version`: say version=None, or another column)"
            told = [f"{name}{default}" if name == self.version == type(self).version else name for name in unknown]
            raise ValueError(f"table {self.full_name} names columns that it doesn't have: {', '.join(told)}")
        if tuple(column.name for column in self.columns if column.name in self.key) != self.key:
            raise ValueError(f"table {self.full_name} names its key in another order than its columns")
        mistakes = (self._reader_mistake, self._version_mistake, self._tombstone_mistake, self._extra_mistake)
        if mistake := next(filter(None, (find() for find in mistakes)), ""):
            raise ValueError(f"table {self.full_name} {mistake}")

    def _reader_mistake(self) -> str:
        """Return which columns have a type of Python in place of a reader; empty if none has."""
        wrong = [f"{column.name} by {column.read.__name__}" for column in self.columns if isinstance(column.read, type)]
        if not wrong:
            return ""
        return f"reads {', '.join(wrong)}, which is no reader: take one of text, integer, decimal, boolean, instant"

    def _version_mistake(self) -> str:
        """Return what is wrong with the version; empty if nothing is."""
        readers = {column.name: column.read for column in self.columns}
        if readers.get(self.moment) in (integer, identifier):
            return (
                f"has no time of change, since {self.moment}"
                " is a number: read it by unix_time if it counts seconds, or say as `changed` which column has the time"
            )
        unordered = [name for name in (self.version, self.changed) if name and readers[name] in UNORDERED]
        if unordered:
            return (
                f"can't tell an older row by {unordered[0]}, which is no time: read it by instant, or say version=None"
            )
        return ""

    def _tombstone_mistake(self) -> str:
        """Return what is wrong with the flag of deleted records; empty if nothing is."""
        flag = next((column for column in self.columns if column.name == self.tombstone), None)
        if flag and flag.read in (*NO_FLAGS, *UNORDERED) and flag.read is not boolean:
            return (
                f"has no flag in {flag.name}: read it by boolean. If deleted records have a time there, take a reader"
                " of your own that returns True for it"
            )
        if flag and not flag.compared:
            return f"would not see that {flag.name} changes: leave out compared=False"
        return ""

    def _extra_mistake(self) -> str:
        """Return what is wrong with what is kept and ignored; empty if nothing is."""
        named = {column.name for column in self.columns}
        if EXTRA in named:
            return "has a column extra, which is the name of the column with all other fields"
        if taken := sorted(name for name in named if name in OWN_COLUMNS or name.startswith("_")):
            return f"has a column {taken[0]}, which is a name that our own columns have"
        if unread := set(self.added) - {column.dotted_path for column in self.columns}:
            return f"adds fields that no column reads: {', '.join(sorted(unread))}"
        if self.ignored and not self.keeps_extra:
            return "keeps no extra fields, so there is nothing to ignore"
        read = {column.dotted_path for column in self.columns if column.uses is None} & set(self.ignored)
        if read:
            return f"ignores fields that its columns read: {', '.join(sorted(read))}"
        unexplained = sorted(name for name, reason in self.ignored.items() if not reason.strip())
        return f"doesn't say why it ignores {', '.join(unexplained)}" if unexplained else ""

    @property
    def moment(self) -> str | None:
        """The column with the time of a row's last change; None if there is none."""
        return self.changed or self.version

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return (*(column.name for column in self.columns), *([EXTRA] if self.keeps_extra else []))

    @cached_property
    def compared(self) -> tuple[str, ...]:
        """The columns that are compared between source and copy: all but the key and those that are not `compared`."""
        unlike = {*self.key, *(column.name for column in self.columns if not column.compared)}
        return tuple(name for name in self.names if name not in unlike)

    @cached_property
    def _readers(self) -> tuple[tuple[str, list[str], Callable[[Any], Any], str, bool], ...]:
        paths = [(c, *c.path) for c in self.columns]
        return tuple((outer, inner, c.read, c.name, c.name in self.key) for c, outer, *inner in paths)

    @cached_property
    def _paths(self) -> list[tuple[str, str, list[str] | None]]:
        """(column, its field in the record, its path if that leads into objects)."""
        return [(c.name, c.path[0], c.path if len(c.path) > 1 else None) for c in self.columns]

    @cached_property
    def _known(self) -> Known:
        return Known.of(self.columns, self.ignored)

    @cached_property
    def aside(self) -> Mapping[str, str]:
        """The source's own fields with names of `added`: by the name under which a record has them (see `add`)."""
        return {SENT + name: name for name in self.added}

    @cached_property
    def _demanded(self) -> frozenset[str]:
        """The columns that every record fills."""
        return frozenset((*self.key, *self.required))

    @cached_property
    def _partly_read(self) -> frozenset[str]:
        """The columns whose reader returns None for some values, because other columns or `extra` keep them."""
        return frozenset(column.name for column in self.columns if column.uses is not None)

    def in_brief(self, *names: str, version: str | None = None, changed: str | None = None) -> "Table":
        """Return the table of a list in brief: it shows only these columns, so its rows are no whole records.

        `version`, `changed`: the columns of that meaning, as for any table; None if the list shows none.
        """
        columns = tuple(column for column in self.columns if column.name in names)
        only = {"required": (), "tombstone": None, "ignored": {}, "answers": {}, "added": (), "keeps_extra": False}
        return dataclasses.replace(self, columns=columns, version=version, changed=changed, **only)

    def row(self, record: Mapping[str, Any]) -> tuple:
        """Return the record's values in column order.

        Raises RowRefused if a value can't be stored, or if one of the key or a required one is missing.
        """
        values, unread, demanded = [], [], self._demanded
        for outer, inner, read, name, is_key in self._readers:
            given = record.get(outer)
            try:
                value = read(within(given, inner) if inner else given)
            except ValueError as error:
                raise RowRefused(f"{name} {error}") from None
            if value is None or (is_key and self._names_nothing(value)):
                if name in demanded:
                    raise RowRefused(
                        f"{name} {_no_key(read, given) if is_key else 'is missing, which every record has'}"
                    )
                if given and name not in self._partly_read:
                    unread.append([outer, *inner])
            values.append(value)
        if self.keeps_extra:
            rest = self._known.rest(record)
            values.append(self._extra(record, rest, unread) if rest or unread else None)
        return tuple(values)

    def _extra(self, record: Mapping[str, Any], rest: dict[str, Any], unread: Sequence[list[str]]) -> str | None:
        """Return the fields that are neither read nor ignored (`rest`) as JSON text; None if there are none.

        `unread`: the paths to values of which a column's reader made nothing, such as a text in place of an id. They
        are kept, unless they are blank. Raises RowRefused if Postgres can't store what is kept.
        """
        for path in unread:
            value = within(record, path)
            if value and not (isinstance(value, str) and value.isspace()):
                rest = put(rest, path, value)
        if not rest:
            return None
        if not self.aside.keys().isdisjoint(rest):
            rest = {self.aside.get(name, name): value for name, value in rest.items()}
        try:
            return structure(rest)
        except ValueError as error:
            raise RowRefused(f"{EXTRA} {error}") from None

    def filled(self, record: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the record with each column's value put into the column's field, if the record has no value there."""
        known = dict(zip(values, self.named(record, tuple(values)), strict=True))
        for column in self.columns:
            if column.name in values and known[column.name] is None:
                record = put(record, column.path, values[column.name])
        return record

    def why_ignored(self, path: str) -> str:
        """Return the reason for which a field is ignored, or the object in which it lies; empty if it isn't."""
        return next((reason for ignored, reason in self.ignored.items() if lies_in(path, ignored)), "")

    def lacking(self, record: Mapping[str, Any]) -> list[str] | None:
        """Return the columns whose field the record lacks (null counts as a field); None if it has all of them."""
        return [
            name
            for name, outer, path in self._paths
            if outer not in record or (path is not None and not has_field(record, path))
        ] or None

    def named(self, record: Mapping[str, Any], columns: Sequence[str]) -> tuple:
        """Return the record's values in `columns`; None for a value that is missing or can't be read."""
        values = {}
        for outer, inner, read, name, _ in self._readers:
            if name in columns:
                try:
                    values[name] = read(within(record.get(outer), inner))
                except ValueError:
                    values[name] = None
        return tuple(values[name] for name in columns)

    def key_of(self, record: Mapping[str, Any]) -> tuple | None:
        """Return the record's key, or None if a value of it is missing or can't be read."""
        try:
            key = tuple(
                read(within(record.get(field), inner)) for field, inner, read, _, is_key in self._readers if is_key
            )
        except ValueError:
            return None
        return None if None in key or self._names_nothing(*key) else key

    def _names_nothing(self, *key: Any) -> bool:
        """Return whether a key, or a value of it, is a blank text: then any number of records could have it."""
        return len(self.key) == 1 and isinstance(key[0], str) and not key[0].strip()


def key_text(key: Iterable[Any]) -> str:
    """Return a key as text: its values, joined by slashes."""
    return "/".join(map(str, key))


def add(record: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Return the record with values of our own, under names of `Table.added`.

    If the source sends a field with such a name, the record has it under another (`Table.aside`), so it is not lost.
    """
    return {**set_aside(record, values), **values}


def set_aside(record: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """Return the record with the source's fields of these names under the names of `Table.aside`."""
    if record.keys().isdisjoint(names):
        return record
    return {SENT + name if name in names else name: value for name, value in record.items()}


def _no_key(read: Callable[[Any], Any], given: Any) -> str:
    """Say why a value can't be a key."""
    is_text = read is identifier and isinstance(given, str) and given.strip() and not WHOLE.fullmatch(given)
    return "is text, and declared as a number" if is_text else "is no usable id"
