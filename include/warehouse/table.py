"""Mirrored tables as data: which columns, and how each is read from the source's JSON."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import cached_property
from typing import Any

import msgspec
from psycopg import sql

BIGINT = range(-(2**63), 2**63)
WHOLE = re.compile(r"\s*[+-]?\d{1,30}\s*")
# Exponents as NUMERIC has them, and more digits than any figure needs. What doesn't fit is refused, never rounded.
NUMERIC = Context(prec=1000, Emin=-15_384, Emax=131_071, traps=[InvalidOperation, Inexact])
UNIX_START = datetime(1970, 1, 1, tzinfo=UTC)
# NUL as JSON writes it, and not a backslash before "u0000".
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class RowRefused(ValueError):
    """A row that can't be stored: says which column and why, never the value."""


def integer(value: Any) -> int | None:
    """A whole number, also when it comes as text; blank is null."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        raise ValueError("is a flag, not a whole number")
    if isinstance(value, str) and not WHOLE.fullmatch(value):
        raise ValueError("is no whole number")
    if isinstance(value, Decimal) and value.adjusted() > 18:
        # Writing out all the digits of 1E+999999999 would take forever.
        raise ValueError("is no whole number of 64 bits")
    try:
        number = int(value)
        exact = isinstance(value, str) or number == value
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is no whole number") from None
    if not exact or number not in BIGINT:
        raise ValueError("is no whole number of 64 bits")
    return number


def identifier(value: Any) -> int | None:
    """A vendor's numeric id: non-zero whole numbers and digit strings; anything else is no id (null)."""
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value == 0 or value not in BIGINT:
        return None
    return value


def decimal(value: Any) -> Decimal | None:
    """An exact decimal from a number or text; blank is null."""
    if value is None or value == "":
        return None
    if isinstance(value, bool | float | list):
        raise ValueError("is no exact decimal")
    try:
        number = NUMERIC.create_decimal(value)
    except Inexact:
        raise ValueError("has more digits than can be stored") from None
    except (InvalidOperation, TypeError, ValueError):
        raise ValueError("is no decimal number") from None
    if not number.is_finite():
        raise ValueError("is not a finite number")
    return number


def instant(value: Any) -> datetime | None:
    """A moment in UTC; text in ISO 8601, taken as UTC where it names no offset; blank is null."""
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is no ISO 8601 time") from None


def unix_time(value: Any) -> datetime | None:
    """A moment in UTC from seconds since 1970, also with a fraction or as text; blank is null."""
    seconds = decimal(value)
    try:
        return None if seconds is None else UNIX_START + timedelta(seconds=float(seconds))
    except OverflowError:
        raise ValueError("is no time that can be stored") from None


def text(value: Any) -> str | None:
    """Text; numbers become their digits."""
    if value is None:
        return None
    if not isinstance(value, str):
        if isinstance(value, dict | list):
            raise ValueError("is a structure, not text")
        value = str(value)
    if not value.isascii() or "\0" in value:
        _storable(value)
    return value


def boolean(value: Any) -> bool | None:
    """A flag, also as text; blank is null."""
    if value is None or isinstance(value, bool):
        return value
    if value == "":
        return None
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("is no flag")


def structure(value: Any) -> str | None:
    """Any JSON value, as JSON text."""
    if value is None:
        return None
    encoded = _encode(value).decode()
    if "\\u0000" in encoded and NUL.search(encoded):
        raise ValueError("holds a NUL character")
    return encoded


def _storable(value: str) -> None:
    if "\0" in value:
        raise ValueError("holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair") from None


@dataclass(frozen=True)
class Column:
    """A column, the reader of its value, and the source's name for it where that differs.

    A name with dots leads into the record's objects, as `price.amount`; where one of them is missing, so is the value.
    `compared`: False for what the source tells in one answer and leaves out in the next. Then a difference in it alone
    is none: it is written with the others, and no part of the row's hash.
    """

    name: str
    read: Callable[[Any], Any] = text
    field: str = ""
    compared: bool = True


@dataclass(frozen=True)
class Table:
    """A mirrored table.

    `key`: the primary key's columns, in the order of `columns`. `version`: the column that tells an older state of a
    row from a newer one (a time or a number), if the source has one. `changed`: the time of a row's last change where
    `version` is a number; it also tells older from newer where a row lacks that number. `required`: columns that every
    record of the source fills; one that leaves one of them empty is refused, since it is not the whole record.
    `tombstone`: the flag by which a record says that it is deleted; others may fall with it, so that one look is no
    proof.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ("id",)
    version: str | None = "updated_at"
    changed: str | None = None
    required: tuple[str, ...] = ()
    tombstone: str | None = None

    def __post_init__(self) -> None:
        named = {*self.key, *self.required, *filter(None, (self.version, self.changed, self.tombstone))}
        unknown = sorted(named - {column.name for column in self.columns})
        if unknown:
            default = " (the default of `version`: say version=None, or another column)"
            told = [f"{name}{default}" if name == self.version == type(self).version else name for name in unknown]
            raise ValueError(f"table {self.full_name} names columns that it doesn't have: {', '.join(told)}")
        if tuple(column.name for column in self.columns if column.name in self.key) != self.key:
            raise ValueError(f"table {self.full_name} names its key in another order than its columns")

    @property
    def moment(self) -> str | None:
        """The column with the time of a row's last change."""
        return self.changed or self.version

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def compared(self) -> tuple[str, ...]:
        """The columns in which two states of a row can differ."""
        return tuple(column.name for column in self.columns if column.compared and column.name not in self.key)

    @cached_property
    def _readers(self) -> tuple[tuple[str, list[str], Callable[[Any], Any], str, bool], ...]:
        paths = [(c, *(c.field or c.name).split(".")) for c in self.columns]
        return tuple((field, inner, c.read, c.name, c.name in self.key) for c, field, *inner in paths)

    def row(self, record: Mapping[str, Any]) -> tuple:
        """Return the record's values in column order. Raises RowRefused where one can't be stored or is required."""
        values = []
        for field, inner, read, name, is_key in self._readers:
            try:
                value = read(_within(record.get(field), inner) if inner else record.get(field))
            except ValueError as error:
                raise RowRefused(f"{name} {error}") from None
            if value is None and is_key:
                given = record.get(field)
                worded = read is identifier and isinstance(given, str) and given.strip() and not WHOLE.fullmatch(given)
                raise RowRefused(f"{name} is {'text, and declared as a number' if worded else 'no usable id'}")
            if value is None and name in self.required:
                raise RowRefused(f"{name} is missing, which every record has")
            values.append(value)
        return tuple(values)

    def lacking(self, record: Mapping[str, Any]) -> list[str] | None:
        """Return the columns that the record doesn't name at all, be it as null; None if it names all of them."""
        return [name for field, inner, _, name, _ in self._readers if not _named(record, [field, *inner])] or None

    def named(self, record: Mapping[str, Any], columns: Sequence[str]) -> tuple:
        """Return what the record says in these columns; None where it says nothing that can be read."""
        told = {}
        for field, inner, read, name, _ in self._readers:
            if name in columns:
                try:
                    told[name] = read(_within(record.get(field), inner))
                except ValueError:
                    told[name] = None
        return tuple(told[name] for name in columns)

    def key_of(self, record: Mapping[str, Any]) -> tuple | None:
        """Return the record's key, or None where it has no usable one."""
        try:
            key = tuple(
                read(_within(record.get(field), inner)) for field, inner, read, _, is_key in self._readers if is_key
            )
        except ValueError:
            return None
        return None if None in key else key


def _within(value: Any, path: list[str]) -> Any:
    for name in path:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError("lies in something that is no object")
        value = value.get(name)
    return value


def _named(value: Any, path: list[str]) -> bool:
    """Whether the record has the field that the path leads to, or an explicit null on the way."""
    for name in path:
        if not isinstance(value, dict):
            return value is None
        if name not in value:
            return False
        value = value[name]
    return True


def identifiers(names: tuple[str, ...] | list[str], qualifier: str | None = None) -> sql.Composed:
    """`a, b` or `t.a, t.b`, quoted."""
    parts = [sql.Identifier(qualifier, name) if qualifier else sql.Identifier(name) for name in names]
    return sql.SQL(", ").join(parts)


def are(names: tuple[str, ...] | list[str], values: Iterable[Any], qualifier: str | None = None) -> sql.Composed:
    """`a = 1 AND b = 2`, or of `t.a` and `t.b`."""
    columns = [sql.Identifier(qualifier, name) if qualifier else sql.Identifier(name) for name in names]
    both = zip(columns, values, strict=True)
    return sql.SQL(" AND ").join(sql.SQL("{} = {}").format(column, sql.Literal(value)) for column, value in both)


def among(names: tuple[str, ...], keys: Iterable[Sequence[Any]], qualifier: str | None = None) -> sql.Composed:
    """`(a, b) IN ((1, 2), (3, 4))`; false where there are no keys."""
    tuples = [sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, key))) for key in keys]
    if not tuples:
        return sql.Composed([sql.SQL("false")])
    return sql.SQL("({}) IN ({})").format(identifiers(names, qualifier), sql.SQL(", ").join(tuples))


def same_key(key: tuple[str, ...], left: str, right: str) -> sql.Composed:
    """`left.a = right.a AND ...` over the key."""
    return pairs(key, left, key, right)


def pairs(names: tuple[str, ...], left: str, others: tuple[str, ...], right: str) -> sql.Composed:
    """`left.a = right.b AND ...`."""
    both = zip(names, others, strict=True)
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, name), sql.Identifier(right, other)) for name, other in both
    )


def key_array(values: Iterable[Any]) -> sql.Composed:
    """A key as the evidence names it: the JSON array that Postgres makes of the columns, times included."""
    return sql.SQL("jsonb_build_array({})").format(sql.SQL(", ").join(map(sql.Literal, values)))


def key_object(key: tuple[str, ...], qualifier: str) -> sql.Composed:
    """The key as a jsonb object, the form in which change_log names a row."""
    parts = [sql.SQL("{}, {}").format(sql.Literal(k), sql.Identifier(qualifier, k)) for k in key]
    return sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(parts))
