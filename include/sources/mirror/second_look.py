"""The second look: every row that one look can't prove is asked for by itself, those that wait longest first."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from psycopg import sql

from include.api.errors import RefuseData
from include.sources.mirror.agreement import Disagreement, readings, require_agreement
from include.sources.mirror.entity import Context, Lookup
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import Look, look_up
from include.sources.mirror.planning import replace_record
from include.warehouse.staging import staged
from include.warehouse.table import RowRefused, are, identifiers, key_array, same_key

log = logging.getLogger(__name__)

# Narrow requests that a scan or sync of one entity may spend on its suspects; what exceeds it stays unproven.
SECOND_LOOKS = 500
FEW = 10
NOT_LOOKED = "the budget of second looks was spent before its turn"
NO_WAY = "nothing is known by which it could be asked for"
NOTHING_FOUND = "it is not found by itself, but neither is a row that list and copy have"


@dataclass(frozen=True)
class Suspect:
    """A row that is not proven: its key, what it is asked for by, and what is planned for it, if anything is."""

    key: tuple
    by: tuple
    operation: str | None


@dataclass(frozen=True)
class Looks:
    """How many suspects, or groups of them, were asked about, and of how many the source could tell something."""

    asked: int
    answered: int

    @property
    def in_vain(self) -> bool:
        """Whether nothing could be looked at. A few rows that nobody can read are no such sign."""
        return self.asked >= FEW and not self.answered


def second_look(context: Context, extract: Extract, *, every: bool = False) -> Looks:
    """Ask about every suspect, as far as the budget goes unless it is about `every` one; the others stay unproven."""
    budget = None if every else SECOND_LOOKS
    table, lookup = extract.entity.table, extract.entity.lookup
    suspects, silent, answered, finds = _suspects(context, extract, budget), {}, 0, False
    for value, look in look_up(context, table, lookup, suspects):
        answered += not look.unknown
        finds |= _finds(look)
        silent[value] = [suspect for suspect in suspects[value] if not _shown(extract, suspect, look)]
    silent = {value: some for value, some in silent.items() if some}
    if lookup.witness:
        # A batch may leave open far more than can be asked for one by one.
        asked = list(islice((value for value in suspects if value in silent), budget))
        looks = list(look_up(context, table, lookup.witness, asked))
        finds = any(_finds(look) for _, look in looks)
        gone = [suspect for value, look in looks for suspect in silent[value] if not _heard(extract, suspect, look)]
        lookup = lookup.witness
    else:
        gone = [suspect for some in silent.values() for suspect in some]
    if gone and not (finds or _finds_a_known_row(context, extract, lookup)):
        for suspect in gone:
            _unproven(extract, suspect, NOTHING_FOUND)
    else:
        for suspect in gone:
            _gone(extract, suspect)
    _leave(extract)
    return Looks(len(suspects), answered)


def _finds_a_known_row(context: Context, extract: Extract, lookup: Lookup) -> bool:
    """Whether looks by the key find a row that list and copy both have, if there is one: else the address may be gone.

    A parent that is not there is an answer about its children.
    """
    table, stage = extract.entity.table, extract.stage
    if lookup.by != table.key:
        return True
    query = "SELECT {} FROM {} s JOIN {} t ON {} WHERE t.deleted_at IS NULL AND ({}) IS NOT NULL LIMIT 1"
    by = identifiers(lookup.by, "t")
    same = same_key(table.key, "s", "t")
    known = context.conn.execute(sql.SQL(query).format(by, stage.sql, table.sql, same, by)).fetchall()
    return not known or any(_finds(look) for _, look in look_up(context, table, lookup, known))


def _finds(look: Look) -> bool:
    return bool(look.rows) or look.tombstone


def _suspects(context: Context, extract: Extract, budget: int | None) -> Mapping[tuple, list[Suspect]]:
    """The suspects by the values that they are asked for by, as many as the budget allows, in the order of waiting."""
    entity, conn = extract.entity, context.conn
    key, by = entity.table.key, entity.lookup.by
    keys, bys = [f"k{n}" for n in range(len(key))], [f"b{n}" for n in range(len(by))]
    names = {
        "keys": identifiers(keys),
        "bys": identifiers(bys),
        "s_keys": identifiers(keys, "s"),
        "s_bys": identifiers(bys, "s"),
        "columns": sql.SQL(", ").join(
            sql.SQL("c.{} AS {}").format(sql.Identifier(column), sql.Identifier(alias))
            for column, alias in zip((*key, *by), (*keys, *bys), strict=True)
        ),
        "key": identifiers(key, "c"),
        "by": identifiers(by, "c"),
        "candidates": _candidates(extract),
        "source": sql.Literal(context.source.name),
        "entity": sql.Literal(entity.name),
        "limit": sql.Literal(budget and budget * entity.lookup.batch),
    }
    found: dict[tuple, list[Suspect]] = {}
    for *values, operation in conn.execute(sql.SQL(WAITING).format(**names)):
        value = tuple(values[len(key) :])
        found.setdefault(value, []).append(Suspect(tuple(values[: len(key)]), value, operation))
    return found


def _candidates(extract: Extract) -> sql.Composable:
    """The query for what is not proven: candidates, records with such rows inside them, and rows that were refused."""
    entity, stage = extract.entity, extract.stage
    table, columns = entity.table, tuple(dict.fromkeys((*entity.table.key, *entity.lookup.by)))
    plan = sql.SQL("SELECT {}, _operation FROM {} p WHERE _status = 'candidate'").format(
        identifiers(columns, "p"), stage.plan
    )
    queries = [plan]
    if entity.lookup.by == table.key:
        queries += [
            sql.SQL("SELECT {}, NULL FROM {} p WHERE _status = 'candidate'").format(
                identifiers(part.by, "p"), each.plan
            )
            for part, each in extract.parts
        ]
        typed = sql.SQL(", ").join(
            sql.SQL("(jsonb_populate_record(NULL::{}, jsonb_object({}::text[], {}))).{}").format(
                table.sql,
                sql.Literal(list(table.key)),
                sql.SQL("ARRAY(SELECT jsonb_array_elements_text(r.key))"),
                sql.Identifier(name),
            )
            for name in table.key
        )
        usable = sql.SQL("jsonb_array_length(r.key) = {} AND r.usable").format(sql.Literal(len(table.key)))
        queries.append(sql.SQL("SELECT {}, NULL FROM {} r WHERE {}").format(typed, stage.refused, usable))
    return sql.SQL(" UNION ALL ").join(queries)


def _shown(extract: Extract, suspect: Suspect, look: Look) -> bool:
    """Settle a suspect of which the look says anything else than that it is not there."""
    table = extract.entity.table
    rows = {table.key_of(row): row for row in look.rows}
    if look.unknown or (suspect.key not in rows and None in rows):
        _unproven(extract, suspect, look.unknown or "a row without a usable id came in its place")
        return True
    if suspect.key not in rows:
        return False
    try:
        with extract.stage.conn.transaction():
            listed = readings(extract, suspect.key)
            replace_record(extract, rows[suspect.key])
            refused = not listed and suspect.operation is None
            require_agreement(extract, suspect.key, listed, refused=refused)
            _mended(extract, suspect)
    except (RowRefused, RefuseData) as reason:
        _unproven(extract, suspect, f"it is there, but can't be stored: {reason}")
    except Disagreement as reason:
        _unproven(extract, suspect, str(reason))
    return True


def _heard(extract: Extract, suspect: Suspect, look: Look) -> bool:
    """Settle a suspect of which the own address of the record or its parent says anything else than the list."""
    there = {extract.entity.table.key_of(row) for row in look.rows}
    if look.unknown:
        _unproven(extract, suspect, look.unknown)
    elif suspect.key in there or None in there:
        _unproven(extract, suspect, "its list doesn't show it, but another address does")
    else:
        return False
    return True


def _gone(extract: Extract, suspect: Suspect) -> None:
    """Settle a row that is not there when it is asked for by itself."""
    if staged(extract.stage, [suspect.key]) or list(map(str, suspect.key)) in extract.absent_keys:
        _unproven(extract, suspect, "the list shows it, but it is not found by itself")
    else:
        _settle(extract, suspect, "confirmed")


def _unproven(extract: Extract, suspect: Suspect, why: str) -> None:
    log.warning("a row of %s stays unproven: %s", extract.entity.name, why)
    _settle(extract, suspect, "unproven", why)


def _settle(extract: Extract, suspect: Suspect, status: str, why: str | None = None) -> None:
    """Settle a row and the rows inside it."""
    plans = [(extract.stage.plan, extract.entity.table.key)]
    plans += [(stage.plan, part.by) for part, stage in extract.parts]
    update = sql.SQL("UPDATE {} SET _status = {}, _why = {}, _looked = true WHERE _status = 'candidate' AND {}")
    with extract.stage.conn.transaction():
        for plan, columns in plans:
            which = are(columns, suspect.key)
            extract.stage.conn.execute(update.format(plan, sql.Literal(status), sql.Literal(why), which))
        looked = sql.SQL("UPDATE {} SET looked = true, reason = coalesce({}, reason) WHERE key = {}")
        extract.stage.conn.execute(looked.format(extract.stage.refused, sql.Literal(why), key_array(suspect.key)))


def _mended(extract: Extract, suspect: Suspect) -> None:
    """A row that was refused as the list shows it can be stored as it is shown by itself."""
    query = sql.SQL("UPDATE {} SET mended = true WHERE key = {}")
    extract.stage.conn.execute(query.format(extract.stage.refused, key_array(suspect.key)))


def _leave(extract: Extract) -> None:
    """What is still a candidate stays unproven."""
    by = identifiers(extract.entity.lookup.by)
    left = 0
    for each in extract.stages:
        askable = sql.SQL("({}) IS NOT NULL").format(by) if each is extract.stage else sql.SQL("true")
        left += each.conn.execute(
            sql.SQL(
                "UPDATE {} SET _status = 'unproven', _why = CASE WHEN {} THEN {} ELSE {} END"
                " WHERE _status = 'candidate'"
            ).format(each.plan, askable, sql.Literal(NOT_LOOKED), sql.Literal(NO_WAY))
        ).rowcount
    if left:
        log.warning("%d suspects of %s were not looked at, and are not repaired by this run", left, extract.entity.name)


WAITING = """
WITH suspects AS (
  SELECT {columns}, min(c._operation) AS operation, min(u.last_look) AS last_look, min(u.first_seen) AS first_seen
  FROM ({candidates}) c LEFT JOIN confidence.unproven u
    ON u.source = {source} AND u.entity = {entity} AND u.key = jsonb_build_array({key})
  WHERE ({by}) IS NOT NULL GROUP BY {key}, {by}
), asked AS (
  SELECT {bys}, row_number() OVER (ORDER BY min(last_look) NULLS FIRST, min(first_seen) NULLS LAST, {bys}) AS turn
  FROM suspects GROUP BY {bys} ORDER BY turn LIMIT {limit}
)
SELECT {s_keys}, {s_bys}, s.operation FROM suspects s JOIN asked USING ({bys}) ORDER BY asked.turn, {s_keys}
"""
