"""A change counts where two looks agree: the list's and the narrow one, or one of them and the copy.

Where all three differ, one of the answers is wrong, and nobody knows which, unless the record has changed since its
list was read. A newer version alone doesn't tell: an answer that swaps two records shows one of them so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from include.sources.mirror.entity import Discovered
from include.sources.mirror.extract import Extract
from include.warehouse import compare
from include.warehouse.staging import Stage
from include.warehouse.table import are, identifiers, same_key


class Disagreement(Exception):
    """The list and the narrow look show different content of a record."""


@dataclass(frozen=True)
class Reading:
    """A row as it was read: the values that the record names, its version, and its time of change."""

    values: Mapping[str, object]
    version: tuple
    moment: datetime | None

    def agrees(self, other: "Reading") -> bool:
        """Whether the other one says all that this one says; it may say more."""
        return all(other.values.get(name) == value for name, value in self.values.items())

    def newer(self, other: "Reading") -> bool:
        """Whether this shows a newer version: of the columns that tell, the first that neither lacks decides."""
        for mine, theirs in zip(self.version, other.version, strict=True):
            if mine is not None and theirs is not None:
                return mine > theirs
        return False


Readings = list[Mapping[tuple, Reading]]


def readings(extract: Extract, key: tuple) -> Readings:
    """A record as it is staged, and the rows inside it, each table by itself; empty where the record is not staged."""
    own = _staged(extract.stage, are(extract.entity.table.key, key))
    return [own, *(_staged(stage, are(part.by, key)) for part, stage in extract.parts)] if own else []


def require_agreement(extract: Extract, key: tuple, listed: Readings, *, refused: bool) -> None:
    """Raise Disagreement if what is staged by now would change the copy, though nothing but one look says so.

    `listed` is the record as its list has shown it, empty where it hasn't. `refused`: the list has shown it, but so
    that it could not be stored.
    """
    # Of what the copy lacks a sync takes what the own address shows; a scan is to prove it, and so takes neither.
    if not (_changes(extract, key) or (listed and extract.stage.pull.purpose == "scan" and _inserts(extract, key))):
        return
    seen = readings(extract, key)
    if listed:
        if not all(map(_agree, listed, seen)) and not _changed_since(extract, seen[0][key], listed[0][key]):
            raise Disagreement("its list and the look at it alone show different content")
        # A list in brief shows no content of its own: both looks were at one address.
        brief = isinstance(extract.entity, Discovered)
        if brief and _lacks_something(extract, key) and not _newer_than_copy(extract, key):
            raise Disagreement(
                "it lacks what the copy has, though it has not changed since, and one address alone says so"
            )
    elif not ((extract.entity.lookup.own or refused) and _newer_than_copy(extract, key)) or _lacks_something(
        extract, key
    ):
        raise Disagreement("only one look shows it, with other content than the copy has")


def _changed_since(extract: Extract, seen: Reading, listed: Reading) -> bool:
    """Whether the record has changed after its list was read: then the look alone can show it so."""
    read_at = extract.stage.pull.source_time
    late = read_at is None or (seen.moment is not None and seen.moment > read_at)
    return seen.newer(listed) and late


def _agree(listed: Mapping[tuple, Reading], seen: Mapping[tuple, Reading]) -> bool:
    return listed.keys() == seen.keys() and all(listed[key].agrees(seen[key]) for key in listed)


def _staged(stage: Stage, which: sql.Composable) -> Mapping[tuple, Reading]:
    table, versions = stage.table, compare.version_columns(stage.table)
    moment = [table.moment] if table.moment else []
    names = (*table.key, *table.compared, *versions, *moment)
    rows = stage.conn.execute(
        sql.SQL("SELECT _lacks, {} FROM {} WHERE {}").format(identifiers(names), stage.sql, which)
    ).fetchall()
    end = len(table.key) + len(table.compared)
    found = {}
    for lacks, *values in rows:
        told = dict(zip(table.compared, values[len(table.key) : end], strict=True))
        told = {name: value for name, value in told.items() if name not in (lacks or ())}
        version, moved = values[end : end + len(versions)], values[end + len(versions) :]
        found[tuple(values[: len(table.key)])] = Reading(told, tuple(version), next(iter(moved), None))
    return found


def _changes(extract: Extract, key: tuple) -> bool:
    """Whether a row that the copy has, or a row inside a record that it has, would be written or deleted."""
    plans = [(extract.stage, are(extract.entity.table.key, key), sql.SQL("_operation <> 'insert'"))]
    if extract.parts:
        alive = sql.SQL("EXISTS (SELECT FROM {} t WHERE t.deleted_at IS NULL AND {})").format(
            extract.entity.table.sql, are(extract.entity.table.key, key, "t")
        )
        plans += [(stage, are(part.by, key), alive) for part, stage in extract.parts]
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE _status = 'confirmed' AND {} AND {})")
    return any(
        extract.stage.conn.execute(query.format(stage.plan, which, counts)).fetchone()[0]
        for stage, which, counts in plans
    )


def _inserts(extract: Extract, key: tuple) -> bool:
    """Whether the record itself would be written anew, or back from its tombstone."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE _status = 'confirmed' AND _operation = 'insert' AND {})")
    which = are(extract.entity.table.key, key)
    return extract.stage.conn.execute(query.format(extract.stage.plan, which)).fetchone()[0]


def _lacks_something(extract: Extract, key: tuple) -> bool:
    """Whether a row doesn't name what the copy has in it."""
    plans = [(extract.stage, extract.entity.table.key), *((stage, part.by) for part, stage in extract.parts)]
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} s JOIN {} t ON {} WHERE {} AND {})")
    return any(
        stage.conn.execute(
            query.format(
                stage.sql,
                stage.table.sql,
                same_key(stage.table.key, "s", "t"),
                are(by, key, "s"),
                compare.poorer(stage.table),
            )
        ).fetchone()[0]
        for stage, by in plans
    )


def _newer_than_copy(extract: Extract, key: tuple) -> bool:
    table = extract.entity.table
    query = sql.SQL("SELECT {} FROM {} s JOIN {} t USING ({}) WHERE {}").format(
        compare.newer(table, "s", "t"),
        extract.stage.sql,
        table.sql,
        identifiers(table.key),
        are(table.key, key, "s"),
    )
    found = extract.stage.conn.execute(query).fetchone()
    return bool(found and found[0])
