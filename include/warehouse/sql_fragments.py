"""Fragments of SQL over columns and keys that are known by name only."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from typing import Any

from psycopg import sql


def written_once(compose: Callable[..., sql.Composable]) -> Callable[..., sql.SQL]:
    """Cache a function that returns the SQL of names, as finished text. Its arguments may be lists.

    psycopg escapes and joins each name again for each statement, which takes longer than the statement itself.
    """

    @cache
    def written(*args: Any) -> sql.SQL:
        return sql.SQL(compose(*args).as_string())

    @wraps(compose)
    def cached(*args: Any) -> sql.SQL:
        return written(*(tuple(arg) if isinstance(arg, list) else arg for arg in args))

    return cached


@written_once
def identifiers(names: tuple[str, ...] | list[str], qualifier: str | None = None) -> sql.Composed:
    """Return the SQL `a, b`, or `t.a, t.b` with the qualifier `t`."""
    parts = [sql.Identifier(qualifier, name) if qualifier else sql.Identifier(name) for name in names]
    return sql.SQL(", ").join(parts)


def are(names: tuple[str, ...] | list[str], values: Iterable[Any], qualifier: str | None = None) -> sql.Composed:
    """Return the SQL `a = 1 AND b = 2`, or with a qualifier `t.a = 1 AND t.b = 2`."""
    columns = [sql.Identifier(qualifier, name) if qualifier else sql.Identifier(name) for name in names]
    both = zip(columns, values, strict=True)
    return sql.SQL(" AND ").join(sql.SQL("{} = {}").format(column, sql.Literal(value)) for column, value in both)


def among(names: tuple[str, ...], keys: Iterable[Sequence[Any]], qualifier: str | None = None) -> sql.Composed:
    """Return the SQL `(a, b) IN ((1, 2), (3, 4))`; `false` if there are no keys."""
    tuples = [sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, key))) for key in keys]
    if not tuples:
        return sql.Composed([sql.SQL("false")])
    return sql.SQL("({}) IN ({})").format(identifiers(names, qualifier), sql.SQL(", ").join(tuples))


@written_once
def same_key(key: tuple[str, ...], left: str, right: str) -> sql.Composed:
    """Return the SQL `left.a = right.a AND ...` over the columns of the key."""
    return pairs(key, left, key, right)


@written_once
def pairs(names: tuple[str, ...], left: str, others: tuple[str, ...], right: str) -> sql.Composed:
    """Return the SQL `left.a = right.b AND ...`, for each of `names` and its partner in `others`."""
    both = zip(names, others, strict=True)
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, name), sql.Identifier(right, other)) for name, other in both
    )


def key_array(values: Iterable[Any]) -> sql.Composed:
    """Return the SQL of a key as a jsonb array, the form in which evidence names a row."""
    return sql.SQL("jsonb_build_array({})").format(sql.SQL(", ").join(map(sql.Literal, values)))


@written_once
def key_object(key: tuple[str, ...], qualifier: str) -> sql.Composed:
    """Return the SQL of a row's key as a jsonb object, the form in which the change log names a row."""
    parts = [sql.SQL("{}, {}").format(sql.Literal(k), sql.Identifier(qualifier, k)) for k in key]
    return sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(parts))
