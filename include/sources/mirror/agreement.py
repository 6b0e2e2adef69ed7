"""Agreement of two looks, without which a second look changes nothing.

Three readings of a record are compared: the list, the look-up and the copy. A change counts if two of them agree. If
all three differ, an answer is wrong, unless the record has changed since its list was read.

A newer version alone proves nothing: if an answer swaps two records, one of them appears with a newer version.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg import sql

from include.sources.mirror.entity import Discovered
from include.sources.mirror.extract import Extract
from include.sources.mirror.same_value import BLANK, same_value
from include.warehouse import row_conditions
from include.warehouse.sql_fragments import are, identifiers, same_key
from include.warehouse.staging import Stage
from include.warehouse.table import EXTRA


class Disagreement(Exception):
    """The readings of a record contradict each other. The message says how."""


@dataclass(frozen=True)
class Reading:
    """A row as it was read: the values of the columns that the record names, its version columns and change time."""

    values: Mapping[str, object]
    version: tuple
    moment: datetime | None

    def differing(self, other: "Reading") -> set[str]:
        """Return the columns of this reading in which the other has another value.

        Columns, and fields in `extra`, that only the other has don't count.
        """
        mine, theirs = dict(self.values), dict(other.values)
        extra, their_extra = mine.pop(EXTRA, None) or {}, theirs.pop(EXTRA, None) or {}
        in_extra = {f"{EXTRA}.{name}" for name, each in extra.items() if not _covers(their_extra.get(name), each)}
        return in_extra | {name for name, value in mine.items() if not same_value(theirs.get(name), value)}

    def newer(self, other: "Reading") -> bool:
        """Return whether this reading has a newer version, by the first version column that both readings have."""
        for mine, theirs in zip(self.version, other.version, strict=True):
            if mine is not None and theirs is not None:
                return mine > theirs and not same_value(mine, theirs)
        return False


def _covers(value: object, part: object) -> bool:
    """Return whether a JSON value has all of another. An object may have more fields, at any depth."""
    if isinstance(value, dict) and isinstance(part, dict):
        return all(_covers(value.get(name), each) for name, each in part.items())
    return value == part or (value in BLANK and part in BLANK)


# A record and its nested rows: for each of their tables, the readings by key.
Readings = list[Mapping[tuple, Reading]]


def staged_readings(extract: Extract, key: tuple) -> Readings:
    """Return the readings of a record and its nested rows in staging; empty if the record is not staged."""
    own = _table_readings(extract.stage, are(extract.entity.table.key, key))
    return [own, *(_table_readings(stage, are(part.by, key)) for part, stage in extract.parts)] if own else []


def require_agreement(extract: Extract, key: tuple, listed: Readings, *, refused: bool) -> None:
    """Raise Disagreement if the looked-up record, now staged, would change the copy without a second witness.

    - `listed`: the readings of the record as its list showed it; empty if the list didn't
    - `refused`: the list showed the record, but in a form that could not be stored
    """
    looked_up = staged_readings(extract, key)
    # If it then equals the copy, the copy may be as outdated as the look-up.
    if listed and listed[0][key].newer(looked_up[0][key]):
        raise Disagreement("the look at it alone shows an older version than its list")
    if not (_would_change_copy(extract, key) or (listed and _would_insert(extract, key))):
        return
    if listed:
        newer = looked_up[0][key].newer(listed[0][key])
        differing = [*(["its version"] if newer else []), *_differing(extract, listed, looked_up)]
        if differing and not (newer and changed_late(extract, looked_up[0][key].moment)):
            raise Disagreement(
                f"its list and the look at it alone show different content or versions: {', '.join(differing)}"
            )
        if _adds_to_list(extract, key, listed, looked_up):
            raise Disagreement("its list leaves out what the look at it alone shows otherwise than the copy")
        # The content of a record that is listed in brief was read twice from one address.
        brief = isinstance(extract.entity, Discovered)
        if brief and _lacks_something(extract, key) and not _newer_than_copy(extract, key):
            raise Disagreement(
                "it lacks what the copy has, though it has not changed since, and one address alone says so"
            )
        return
    # The look-up is the only witness. It is enough for a newer version from an address that can be trusted.
    trusted = extract.entity.lookup.own or refused
    if not (trusted and _newer_than_copy(extract, key)) or _lacks_something(extract, key):
        raise Disagreement("only one look shows it, with other content than the copy has")


def changed_late(extract: Extract, moment: datetime | None) -> bool:
    """Return whether a record has changed after its list was read, so that only the look-up can show the change.

    `moment`: the time of change that the look-up shows. More than a day in the future it is wrong and says nothing.
    """
    pull = extract.stage.pull
    if moment is None or moment >= datetime.now(UTC) + timedelta(days=1):
        return False
    return moment > (pull.source_time or pull.started_at)


def _adds_to_list(extract: Extract, key: tuple, listed: Readings, looked_up: Readings) -> bool:
    """Return whether the look-up is the only witness of a changed column, since the list leaves that column out.

    If both show a newer version than the copy, they agree that the record has changed: that is enough.
    """
    copy = _copy_readings(extract, key)
    in_copy = copy[0].get(key)
    if in_copy and listed[0][key].newer(in_copy) and looked_up[0][key].newer(in_copy):
        return False
    return any(
        name not in of_list[row].values and not same_value(value, of_copy[row].values[name])
        for of_list, of_look, of_copy in zip(listed, looked_up, copy, strict=True)
        for row, reading in of_look.items()
        if row in of_list and row in of_copy
        for name, value in reading.values.items()
    )


def _differing(extract: Extract, listed: Readings, looked_up: Readings) -> list[str]:
    """Return the names of what differs: listed columns, and nested tables that have other rows."""
    names: list[str] = []
    for stage, of_list, of_look in zip(extract.stages, listed, looked_up, strict=True):
        own = stage is extract.stage
        if of_list.keys() != of_look.keys():
            names.append(f"the rows of {stage.table.name}")
            continue
        columns = {name for row, reading in of_list.items() for name in reading.differing(of_look[row])}
        names += sorted(columns if own else {f"{stage.table.name}.{name}" for name in columns})
    return names


def _copy_readings(extract: Extract, key: tuple) -> Readings:
    """Return the record and its nested rows as the copy has them, as readings."""
    alive = sql.SQL("deleted_at IS NULL AND {}")
    pairs = [(extract.stage, extract.entity.table.key), *((stage, part.by) for part, stage in extract.parts)]
    return [_readings(stage, stage.table.sql, sql.SQL("NULL"), alive.format(are(by, key))) for stage, by in pairs]


def _table_readings(stage: Stage, which: sql.Composable) -> Mapping[tuple, Reading]:
    """Return the readings of staged rows by their keys. `which`: an SQL condition on the rows."""
    return _readings(stage, stage.sql, sql.SQL("_lacks"), which)


def _readings(
    stage: Stage, rows_of: sql.Composable, lacks: sql.Composable, which: sql.Composable
) -> Mapping[tuple, Reading]:
    """Return the readings of rows of the stage or its copy. `lacks`: SQL for the columns that a row leaves out."""
    table, versions = stage.table, row_conditions.version_columns(stage.table)
    moment = [table.moment] if table.moment else []
    names = (*table.key, *table.compared, *versions, *moment)
    rows = stage.conn.execute(
        sql.SQL("SELECT {}, {} FROM {} WHERE {}").format(lacks, identifiers(names), rows_of, which)
    ).fetchall()
    found = {}
    for left_out, *values in rows:
        row = dict(zip(names, values, strict=True))
        key, version = tuple(row[name] for name in table.key), tuple(row[name] for name in versions)
        content = {name: row[name] for name in table.compared if name not in (left_out or ())}
        found[key] = Reading(content, version, row[table.moment] if table.moment else None)
    return found


def _would_change_copy(extract: Extract, key: tuple) -> bool:
    """Return whether the plan updates or deletes a record of the copy, or changes its nested rows."""
    plans = [(extract.stage, are(extract.entity.table.key, key), sql.SQL("_operation <> 'insert'"))]
    if extract.parts:
        # Nested rows may be there without their record.
        alive = sql.SQL(
            "(_operation <> 'insert' OR EXISTS (SELECT FROM {} t WHERE t.deleted_at IS NULL AND {}))"
        ).format(extract.entity.table.sql, are(extract.entity.table.key, key, "t"))
        plans += [(stage, are(part.by, key), alive) for part, stage in extract.parts]
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE _status IN ('confirmed', 'due') AND {} AND {})")
    return any(
        extract.stage.conn.execute(query.format(stage.plan, which, counts)).fetchone()[0]
        for stage, which, counts in plans
    )


def _would_insert(extract: Extract, key: tuple) -> bool:
    """Return whether the plan inserts the record, or restores it over its tombstone."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE _status = 'confirmed' AND _operation = 'insert' AND {})")
    which = are(extract.entity.table.key, key)
    return extract.stage.conn.execute(query.format(extract.stage.plan, which)).fetchone()[0]


def _lacks_something(extract: Extract, key: tuple) -> bool:
    """Return whether the staged record, or a nested row, lacks a column in which the copy has a value."""
    plans = [(extract.stage, extract.entity.table.key), *((stage, part.by) for part, stage in extract.parts)]
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} s JOIN {} t ON {} WHERE {} AND {})")
    return any(
        stage.conn.execute(
            query.format(
                stage.sql,
                stage.table.sql,
                same_key(stage.table.key, "s", "t"),
                are(by, key, "s"),
                row_conditions.poorer(stage.table),
            )
        ).fetchone()[0]
        for stage, by in plans
    )


def _newer_than_copy(extract: Extract, key: tuple) -> bool:
    """Return whether the staged record has a newer version than the copy."""
    table = extract.entity.table
    query = sql.SQL("SELECT {} FROM {} s JOIN {} t USING ({}) WHERE {}").format(
        row_conditions.newer(table, "s", "t"),
        extract.stage.sql,
        table.sql,
        identifiers(table.key),
        are(table.key, key, "s"),
    )
    found = extract.stage.conn.execute(query).fetchone()
    return bool(found and found[0])
