"""A change without a newer version counts where two looks agree: the list's and the narrow one, or one of them and the
copy. Where all three differ, one of the answers is wrong, and nobody knows which.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from include.sources.mirror.pull import Pulled
from include.warehouse import compare
from include.warehouse.staging import Stage
from include.warehouse.table import are, identifiers


class Disagreement(Exception):
    """The list and the narrow look show different content of one version of a record."""


@dataclass(frozen=True)
class Reading:
    """A row as it was read: its values by column, those aside that the record doesn't name, and its version."""

    values: Mapping[str, object]
    version: tuple

    def agrees(self, other: "Reading") -> bool:
        """Whether both say the same, as far as both say something."""
        return all(self.values[name] == other.values[name] for name in self.values.keys() & other.values.keys())

    def newer(self, other: "Reading") -> bool:
        """Whether this shows a newer version: of the columns that tell, the first that neither lacks decides."""
        for mine, theirs in zip(self.version, other.version, strict=True):
            if mine is not None and theirs is not None:
                return mine > theirs
        return False


Readings = list[Mapping[tuple, Reading]]


def readings(pulled: Pulled, key: tuple) -> Readings:
    """A record as it is staged, and the rows inside it, each table by itself; empty where the record is not staged."""
    own = _staged(pulled.stage, are(pulled.entity.table.key, key))
    return [own, *(_staged(stage, are(part.by, key)) for part, stage in pulled.parts)] if own else []


def require_agreement(pulled: Pulled, key: tuple, listed: Readings) -> None:
    """Raise Disagreement if what is staged by now would change the copy, though nothing but one look says so.

    `listed` is the record as its list has shown it, empty where it hasn't.
    """
    seen = readings(pulled, key)
    if not _changes(pulled, key) or _newer_than_copy(pulled, key):
        return
    if listed and (seen[0][key].newer(listed[0][key]) or all(map(_agree, listed, seen))):
        return
    if listed:
        raise Disagreement("its list and the look at it alone show different content of the same version")
    raise Disagreement("only one look shows it with other content than the copy, in the same version")


def _agree(listed: Mapping[tuple, Reading], seen: Mapping[tuple, Reading]) -> bool:
    return listed.keys() == seen.keys() and all(listed[key].agrees(seen[key]) for key in listed)


def _staged(stage: Stage, which: sql.Composable) -> Mapping[tuple, Reading]:
    table, versions = stage.table, compare.version_columns(stage.table)
    names = (*table.key, *table.compared, *versions)
    rows = stage.conn.execute(
        sql.SQL("SELECT _lacks, {} FROM {} WHERE {}").format(identifiers(names), stage.sql, which)
    ).fetchall()
    end = len(table.key) + len(table.compared)
    found = {}
    for lacks, *values in rows:
        told = dict(zip(table.compared, values[len(table.key) : end], strict=True))
        told = {name: value for name, value in told.items() if name not in (lacks or ())}
        found[tuple(values[: len(table.key)])] = Reading(told, tuple(values[end:]))
    return found


def _changes(pulled: Pulled, key: tuple) -> bool:
    """Whether a row that the copy has, or a row inside a record that it has, would be written or deleted."""
    plans = [(pulled.stage, are(pulled.entity.table.key, key), sql.SQL("_operation <> 'insert'"))]
    if pulled.parts:
        alive = sql.SQL("EXISTS (SELECT FROM {} t WHERE t.deleted_at IS NULL AND {})").format(
            pulled.entity.table.sql, are(pulled.entity.table.key, key, "t")
        )
        plans += [(stage, are(part.by, key), alive) for part, stage in pulled.parts]
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE _status = 'confirmed' AND {} AND {})")
    return any(
        pulled.stage.conn.execute(query.format(stage.plan, which, counts)).fetchone()[0]
        for stage, which, counts in plans
    )


def _newer_than_copy(pulled: Pulled, key: tuple) -> bool:
    table = pulled.entity.table
    query = sql.SQL("SELECT {} FROM {} s JOIN {} t USING ({}) WHERE {}").format(
        compare.newer(table, "s", "t"),
        pulled.stage.sql,
        table.sql,
        identifiers(table.key),
        are(table.key, key, "s"),
    )
    found = pulled.stage.conn.execute(query).fetchone()
    return bool(found and found[0])
