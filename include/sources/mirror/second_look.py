"""The second look: look up each suspect by itself, those that have waited longest first."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import LiteralString

from psycopg import sql

from include.api.errors import RefuseData
from include.sources.mirror.agreement import Disagreement, require_agreement, staged_readings
from include.sources.mirror.brief import OLDER_THAN_LISTED, is_older, listed_versions
from include.sources.mirror.entity import Child, Discovered, Entity, Lookup, MirrorContext
from include.sources.mirror.extract import LISTED_ONLY, Extract
from include.sources.mirror.lookup import Look, look_up, look_up_or_parent, not_there
from include.sources.mirror.planning import replace_record
from include.warehouse import compare
from include.warehouse.sql_fragments import are, identifiers, key_array, same_key
from include.warehouse.table import RowRefused

log = logging.getLogger(__name__)

# The largest number of requests for second looks of one entity. Suspects beyond it stay unproven.
SECOND_LOOKS = 500
# The largest number of requests for second readings of rows that one list alone has proven.
SECOND_READINGS = 100
# The least number of requests from which on no answer at all is a sign of a failure.
MANY = 10
# The number of rows that tell whether an address finds anything at all.
KNOWN_ROWS = 3
PARENT_LISTED = "its parent is not at its own address, but the parents' list shows it"
BUDGET_SPENT = "the budget of second looks was spent before its turn"
NO_VALUES = "nothing is known by which it could be asked for"
NOTHING_FOUND = "it is not found by itself, but neither is a row that list and copy have"
NOTHING_SHOWN = (
    "it is not found, but nor is anything else that the copy has from there, as if the token were another account's"
)


@dataclass(frozen=True)
class Suspect:
    """A row that one look can't prove.

    - `by`: the values to look it up by
    - `operation`: what is planned for it; None for a refused row and for a record with suspect nested rows only
    """

    key: tuple
    by: tuple
    operation: str | None


@dataclass(frozen=True)
class LookCounts:
    """How many value tuples were looked up, and how many of these look-ups proved something.

    `needs_person`: one was refused in a way that asking again doesn't change.
    """

    asked: int
    answered: int
    needs_person: bool = False

    def __add__(self, other: "LookCounts") -> "LookCounts":
        needs_person = self.needs_person or other.needs_person
        return LookCounts(self.asked + other.asked, self.answered + other.answered, needs_person)

    @property
    def all_unknown(self) -> bool:
        """Whether no look-up proved anything. A few rows that can't be read are no such sign."""
        return self.asked >= MANY and not self.answered


def second_look(
    context: MirrorContext, extract: Extract, *, every: bool = False, listed_parents: Collection[tuple] = ()
) -> LookCounts:
    """Look up the suspects and set their status in the plan. Return how many were looked up.

    Suspects beyond the budget stay unproven, unless they only gained fields and all looks at others like them have
    confirmed that.

    - `every`: look up all other suspects too
    - `listed_parents`: keys of parents that their list has just shown. If one is not at its own address, one of the two
      is wrong, so nothing is proven of its children.
    """
    looks = _look_at_suspects(context, extract, SECOND_LOOKS, listed_parents)
    _confirm_gained(extract)
    if every:
        looks += _look_at_suspects(context, extract, None, listed_parents)
    _settle_rest(extract)
    return looks


def read_listed_again(context: MirrorContext, extract: Extract) -> None:
    """Look up rows that only a list has shown as missing or newer. A contradicted row becomes unproven.

    A list may mix two states of a record. Rows beyond SECOND_READINGS stay as the list shows them, and so do rows whose
    look-up has no answer. Entities that are listed in brief are left out: their records come from look-ups already.
    """
    if not isinstance(extract.entity, Discovered):
        listed_only = _suspects(context, extract, _listed_only(extract), SECOND_READINGS)
        _look_at(context, extract, listed_only, SECOND_READINGS)


def has_lost_all_rows(context: MirrorContext, extract: Extract) -> bool:
    """Return whether an empty list is true: the rows of the copy that changed last are gone at their own addresses."""
    entity, moment = extract.entity, extract.entity.table.moment
    query = sql.SQL("SELECT {} FROM {} t WHERE deleted_at IS NULL ORDER BY {} DESC LIMIT {}").format(
        identifiers(entity.lookup.by), entity.table.sql, sql.Identifier(moment), sql.Literal(KNOWN_ROWS)
    )
    newest = context.conn.execute(query).fetchall()
    return (
        entity.lookup.own
        and all(not (look.unknown or look.rows) for _, look in look_up(context, entity.table, entity.lookup, newest))
        and _finds_another_entity(context, extract, None)
    )


def _look_at_suspects(
    context: MirrorContext, extract: Extract, budget: int | None, listed_parents: Collection[tuple]
) -> LookCounts:
    """Look up suspects and settle them. `budget`: the largest number of requests, None for no limit."""
    suspects = _suspects(context, extract, _candidates(extract), budget)
    return _look_at(context, extract, suspects, budget, listed_parents)


def _look_at(
    context: MirrorContext,
    extract: Extract,
    suspects: Mapping[tuple, Sequence[Suspect]],
    budget: int | None,
    listed_parents: Collection[tuple] = (),
) -> LookCounts:
    """Look up these suspects and settle them. `budget`: the largest number of requests to a witness, None for any.

    `listed_parents`: as in `second_look`.
    """
    table, lookup = extract.entity.table, extract.entity.lookup
    # By the looked-up values: the suspects that the look-up did not show.
    not_shown: dict[tuple, list[Suspect]] = {}
    answered, needs_person = 0, False
    # The places in which a look-up has found a row.
    works_in: set[object] = set()
    listed_in, contradicted = listed_versions(extract.all_skipped), extract.contradicted
    for value, look in look_up_or_parent(context, extract.entity, lookup, suspects):
        answered += not look.unknown
        needs_person |= look.needs_person
        works_in |= {_place(extract, lookup, value)} if _found(look) else set()
        for suspect in (each for each in suspects[value] if each.key in contradicted):
            _settle_unproven(extract, suspect, contradicted[suspect.key])
        others = [each for each in suspects[value] if each.key not in contradicted]
        if value in listed_parents and not_there(lookup, look):
            look = replace(look, unknown=PARENT_LISTED)
        not_shown[value] = [each for each in others if not _settle_shown(extract, each, look, listed_in)]
    not_shown = {value: some for value, some in not_shown.items() if some}
    if lookup.witness:
        # A batch may leave open far more suspects than can be looked up one by one.
        asked = [value for value in suspects if value in not_shown][:budget]
        lookup = lookup.witness
        looks = list(look_up(context, table, lookup, {value: not_shown[value] for value in asked}))
        # From here on the witness's address is the one that has to work. The look-ups above went to another.
        works_in = {_place(extract, lookup, value) for value, look in looks if _found(look)}
        needs_person |= any(look.needs_person for _, look in looks)
        absent = _settle_by_witness(extract, looks, not_shown)
    else:
        absent = [suspect for some in not_shown.values() for suspect in some]
    # If the address finds nothing at all in a place, it may be out of order there.
    places = {_place(extract, lookup, suspect.by) for suspect in absent} - works_in
    doubts = {place: _address_doubt(context, extract, lookup, place) for place in places}
    # A flag of the list and the address agree that a record is deleted.
    keys = [suspect.key for suspect in absent]
    listed = extract.listed(keys) - extract.flagged_deleted(keys)
    for suspect in absent:
        if doubt := doubts.get(_place(extract, lookup, suspect.by)):
            _settle_unproven(extract, suspect, doubt)
        elif suspect.key in listed:
            _settle_unproven(extract, suspect, LISTED_ONLY, even_confirmed=True)
        else:
            # What may have come back is not there, and the copy lacks it too.
            _settle(extract, suspect, "noise" if suspect.operation == "insert" else "confirmed")
    return LookCounts(len(suspects), answered, needs_person)


def _settle_by_witness(
    extract: Extract, looks: Sequence[tuple[tuple, Look]], not_shown: Mapping[tuple, Sequence[Suspect]]
) -> list[Suspect]:
    """Settle the suspects that the witness shows or can't tell. Return those that are absent there too."""
    return [
        suspect
        for value, look in looks
        for suspect in not_shown[value]
        if not _settle_contradicted(extract, suspect, look)
    ]


def _place(extract: Extract, lookup: Lookup, value: tuple) -> object:
    """Return the partition that an address with these values belongs to; None if addresses name no partition.

    The parents that have a list each are no places: what is shown of one tells nothing about another.
    """
    partitions = None if isinstance(extract.entity, Child) else extract.entity.partitions
    return dict(zip(lookup.by, value, strict=True)).get(partitions.column) if partitions else None


def _address_doubt(context: MirrorContext, extract: Extract, lookup: Lookup, place: object) -> str:
    """Return why a row is not absent although an address that has found nothing says so; empty if it is.

    The address must find a row that both list and copy have. If there is none, or if it is a parent's address, the
    source may show a row of another entity that the copy has instead: else the token may be another account's, or may
    not see this partition any more. If the copy has none either, the address is believed.
    """
    known = _known_rows(extract, lookup, place)
    if any(_found(look) for _, look in look_up(context, extract.entity.table, lookup, known)):
        return ""
    if known and lookup.by == extract.entity.table.key:
        return NOTHING_FOUND
    return "" if _finds_another_entity(context, extract, place) else NOTHING_SHOWN


def _known_rows(extract: Extract, lookup: Lookup, place: object) -> list[tuple]:
    """Return the values to look up a few rows that both list and copy have, as one may have been deleted meanwhile.

    None of them is a row that the list shows as deleted.
    """
    table, stage = extract.entity.table, extract.stage
    query = (
        "SELECT {by} FROM {stage} s JOIN {table} t ON {same}"
        " WHERE t.deleted_at IS NULL AND {deleted} IS NOT TRUE AND ({by}) IS NOT NULL AND {there} LIMIT {few}"
    )
    parts = {
        "by": identifiers(lookup.by, "t"),
        "stage": stage.sql,
        "table": table.sql,
        "same": same_key(table.key, "s", "t"),
        "deleted": sql.Identifier("s", table.tombstone) if table.tombstone else sql.SQL("false"),
        "there": _is_there(extract.entity, place),
        "few": sql.Literal(KNOWN_ROWS),
    }
    return stage.conn.execute(sql.SQL(query).format(**parts)).fetchall()


def _finds_another_entity(context: MirrorContext, extract: Extract, place: object) -> bool:
    """Return whether the source shows a row of another entity that the copy has. True if there is none to try."""
    tried = False
    for other in context.source.entities:
        if other.table is extract.entity.table or other.lookup.by != other.table.key:
            continue
        if place is not None and (other.partitions is None or other.partitions.column not in other.lookup.by):
            continue
        query = sql.SQL("SELECT {} FROM {} t WHERE t.deleted_at IS NULL AND {} LIMIT {}").format(
            identifiers(other.lookup.by, "t"), other.table.sql, _is_there(other, place), sql.Literal(KNOWN_ROWS)
        )
        rows = context.conn.execute(query).fetchall()
        if any(_found(look) for _, look in look_up(context, other.table, other.lookup, rows)):
            return True
        tried = tried or bool(rows)
    return not tried


def _is_there(entity: Entity, place: object) -> sql.Composable:
    """Return the condition on rows `t` that they are of this partition; none if `place` is None."""
    if place is None:
        return sql.SQL("true")
    return sql.SQL("{} = {}").format(sql.Identifier("t", entity.partitions.column), sql.Literal(place))


def _found(look: Look) -> bool:
    return bool(look.rows) or look.tombstone


def _suspects(
    context: MirrorContext, extract: Extract, candidates: sql.Composable, budget: int | None
) -> Mapping[tuple, list[Suspect]]:
    """Return the suspects by the values to look them up by, those that have waited longest first.

    `candidates`: a query for their key, the columns to look them up by, and `_operation`. `budget`: the largest number
    of requests, None for no limit.
    """
    entity, conn = extract.entity, context.conn
    key, by = entity.table.key, entity.lookup.by
    # A column may be in both, so each gets an alias for either use.
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
        "candidates": candidates,
        "source": sql.Literal(context.source.name),
        "entity": sql.Literal(entity.name),
        "limit": sql.Literal(None if budget is None else budget * entity.lookup.batch),
    }
    found: dict[tuple, list[Suspect]] = {}
    for *values, operation in conn.execute(sql.SQL(WAITING).format(**names)):
        value = tuple(values[len(key) :])
        found.setdefault(value, []).append(Suspect(tuple(values[: len(key)]), value, operation))
    return found


def _listed_only(extract: Extract) -> sql.Composable:
    """Return the query for rows that the list alone has proven."""
    return _planned(extract, "_status = 'confirmed' AND _operation <> 'delete' AND NOT _looked")


def _planned(extract: Extract, which: LiteralString) -> sql.Composable:
    """Return the query for planned rows as `_suspects` takes it. `which`: an SQL condition on the plan."""
    columns = tuple(dict.fromkeys((*extract.entity.table.key, *extract.entity.lookup.by)))
    query = sql.SQL("SELECT {}, _operation FROM {} p WHERE {}")
    return query.format(identifiers(columns, "p"), extract.stage.plan, sql.SQL(which))


def _candidates(extract: Extract) -> sql.Composable:
    """Return the query for the suspects: candidates, records with nested candidates, and refused rows with a key."""
    entity, stage = extract.entity, extract.stage
    table = entity.table
    queries = [_planned(extract, "_status = 'candidate'")]
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
        usable = sql.SQL("jsonb_array_length(r.key) = {} AND r.usable AND NOT (r.looked OR r.mended)").format(
            sql.Literal(len(table.key))
        )
        queries.append(sql.SQL("SELECT {}, NULL FROM {} r WHERE {}").format(typed, stage.refused, usable))
    return sql.SQL(" UNION ALL ").join(queries)


def _settle_shown(extract: Extract, suspect: Suspect, look: Look, listed_in: Mapping[tuple, datetime]) -> bool:
    """Settle a suspect, unless the look does not show it. Return whether it is settled.

    If the look shows the row, it replaces the staged one, and the two have to agree. `listed_in`: the newest versions
    of records that could not be read with their lists.
    """
    table = extract.entity.table
    rows = {table.key_of(row): row for row in look.rows}
    if look.unknown or (suspect.key not in rows and None in rows):
        _settle_unproven(extract, suspect, look.unknown or "a row without a usable id came in its place")
        return True
    if suspect.key not in rows:
        return False
    if is_older(extract.entity, rows[suspect.key], listed_in.get(suspect.key)):
        _settle_unproven(extract, suspect, OLDER_THAN_LISTED)
        return True
    try:
        with extract.stage.conn.transaction():
            listed = staged_readings(extract, suspect.key)
            replace_record(extract, rows[suspect.key])
            refused = not listed and suspect.operation is None
            require_agreement(extract, suspect.key, listed, refused=refused)
            _mark_stored(extract, suspect)
    except (RowRefused, RefuseData) as reason:
        _settle_unproven(extract, suspect, f"it is there, but can't be stored: {reason}")
    except Disagreement as reason:
        _settle_unproven(extract, suspect, str(reason), even_confirmed=True)
    return True


def _settle_contradicted(extract: Extract, suspect: Suspect, look: Look) -> bool:
    """Settle a suspect as unproven if the witness shows it or gives no answer. Return whether it is settled.

    The witness is another address that would show the record if it existed.
    """
    there = {extract.entity.table.key_of(row) for row in look.rows}
    if look.unknown:
        _settle_unproven(extract, suspect, look.unknown)
    elif suspect.key in there or None in there:
        _settle_unproven(extract, suspect, "its list doesn't show it, but another address does")
    else:
        return False
    return True


def _settle_unproven(extract: Extract, suspect: Suspect, why: str, *, even_confirmed: bool = False) -> None:
    log.warning("a row of %s stays unproven: %s", extract.entity.name, why)
    _settle(extract, suspect, "unproven", why, even_confirmed=even_confirmed)


def _settle(
    extract: Extract, suspect: Suspect, status: str, why: str | None = None, *, even_confirmed: bool = False
) -> None:
    """Set the status of a suspect and of its nested rows if they are candidates, and mark them as looked at.

    `even_confirmed`: also change rows that the list alone has confirmed.
    """
    plans = [(extract.stage.plan, extract.entity.table.key)]
    plans += [(stage.plan, part.by) for part, stage in extract.parts]
    update = sql.SQL("UPDATE {} SET _status = {}, _why = {}, _looked = true WHERE _status = ANY ({}) AND {}")
    settled = sql.Literal(["candidate", "confirmed", "due"] if even_confirmed else ["candidate"])
    with extract.stage.conn.transaction():
        for plan, columns in plans:
            which = are(columns, suspect.key)
            extract.stage.conn.execute(update.format(plan, sql.Literal(status), sql.Literal(why), settled, which))
        looked = sql.SQL("UPDATE {} SET looked = true, reason = coalesce({}, reason) WHERE key = {}")
        extract.stage.conn.execute(looked.format(extract.stage.refused, sql.Literal(why), key_array(suspect.key)))


def _mark_stored(extract: Extract, suspect: Suspect) -> None:
    """Mark a refused row as stored: its own address shows it in a form that can be stored."""
    query = sql.SQL("UPDATE {} SET mended = true WHERE key = {}")
    extract.stage.conn.execute(query.format(extract.stage.refused, key_array(suspect.key)))


def _confirm_gained(extract: Extract) -> None:
    """Confirm the remaining suspects that only gained fields, if MANY like them were looked at and all were confirmed.

    In that case the source has begun to send a new field. If a record stays a suspect, so do its nested rows.
    """
    compare.confirm_gained(extract.stage, sample=MANY)
    for part, stage in extract.parts:
        record_is_suspect = sql.SQL(
            "EXISTS (SELECT FROM {} w WHERE w._status IN ('candidate', 'unproven') AND {})"
        ).format(extract.stage.plan, extract.belongs_to_record(part, "s", "w"))
        compare.confirm_gained(stage, sample=MANY, unless=record_is_suspect)


def _settle_rest(extract: Extract) -> None:
    """Mark all remaining candidates as unproven."""
    by = identifiers(extract.entity.lookup.by)
    left = 0
    for each in extract.stages:
        askable = sql.SQL("({}) IS NOT NULL").format(by) if each is extract.stage else sql.SQL("true")
        left += each.conn.execute(
            sql.SQL(
                "UPDATE {} SET _status = 'unproven', _why = CASE WHEN {} THEN {} ELSE {} END"
                " WHERE _status = 'candidate'"
            ).format(each.plan, askable, sql.Literal(BUDGET_SPENT), sql.Literal(NO_VALUES))
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
