"""The second look: look up each suspect by itself, those that have waited longest first."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg import sql

from include.api.errors import RefuseData
from include.sources.mirror.address_doubt import address_doubt, hidden_places, place_of
from include.sources.mirror.agreement import Disagreement, require_agreement, staged_readings
from include.sources.mirror.brief import OLDER_THAN_LISTED, is_older, listed_versions
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import Look, look_up, look_up_or_parent, not_there
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.lookup_results import LISTED_ONLY
from include.sources.mirror.planning import doubt_moved_rows, replace_record
from include.sources.mirror.series import is_followed, is_hidden_series
from include.sources.mirror.suspects import Suspect, candidates, listed_only, suspects_of
from include.warehouse import compare
from include.warehouse.sql_fragments import are, identifiers, key_array
from include.warehouse.table import RowRefused

log = logging.getLogger(__name__)

# The largest number of requests for second looks of one entity. Suspects beyond it stay unproven.
SECOND_LOOKS = 500
# The largest number of requests for second readings of rows that one list alone has proven.
SECOND_READINGS = 100
# The least number of requests from which on no answer at all is a sign of a failure.
MANY = 10
PARENT_LISTED = "its parent is not at its own address, but the parents' list shows it"
SERIES_HIDDEN = "its list shows no row of its series, but another address shows one that is not this one"
BUDGET_SPENT = "the budget of second looks was spent before its turn"
NO_VALUES = "nothing is known by which it could be asked for"


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
    doubt_moved_rows(extract)
    return looks


def read_listed_again(context: MirrorContext, extract: Extract) -> None:
    """Look up rows that only a list has shown as missing or newer. A contradicted row becomes unproven.

    A list may mix two states of a record. Rows beyond SECOND_READINGS stay as the list shows them, and so do rows whose
    look-up has no answer. Entities that are listed in brief are left out: their records come from look-ups already.
    """
    if not isinstance(extract.entity, Discovered):
        suspects = suspects_of(context, extract, listed_only(extract), SECOND_READINGS)
        _look_at(context, extract, suspects, SECOND_READINGS)
        doubt_moved_rows(extract)


def _look_at_suspects(
    context: MirrorContext, extract: Extract, budget: int | None, listed_parents: Collection[tuple]
) -> LookCounts:
    """Look up suspects and settle them. `budget`: the largest number of requests, None for no limit."""
    suspects = suspects_of(context, extract, candidates(extract), budget)
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
    lookup = extract.entity.lookup
    answers = last = _Answers(extract, lookup)
    not_shown = _settle_by_look_up(context, extract, suspects, listed_parents, answers)
    absent = [suspect for some in not_shown.values() for suspect in some]
    if lookup.witness:
        # A batch may leave open far more suspects than can be looked up one by one.
        waiting = [value for value in suspects if value in not_shown]
        asked = {value: not_shown[value] for value in waiting[:budget]}
        last = _Answers(extract, lookup.witness)
        absent = _settle_by_witness(context, extract, asked, last)
    _settle_absent(context, extract, absent, last)
    return LookCounts(len(suspects), answers.proved, answers.needs_person or last.needs_person)


class _Answers:
    """What the answers of a look-up tell besides the rows that they show.

    - `proved`: how many proved something
    - `works_in`: the places in which the address has shown a record
    """

    def __init__(self, extract: Extract, lookup: Lookup):
        self.lookup, self._extract = lookup, extract
        self.proved, self.needs_person = 0, False
        self.works_in: set[object] = set()

    def add(self, value: tuple, look: Look) -> None:
        self.proved += not look.unknown
        self.needs_person |= look.needs_person
        if look.shows_record:
            self.works_in.add(place_of(self._extract, self.lookup, value))


def _settle_by_look_up(
    context: MirrorContext,
    extract: Extract,
    suspects: Mapping[tuple, Sequence[Suspect]],
    listed_parents: Collection[tuple],
    answers: _Answers,
) -> dict[tuple, list[Suspect]]:
    """Look up the suspects and settle those that are shown or unknown. Return the others, by the looked-up values."""
    not_shown: dict[tuple, list[Suspect]] = {}
    listed_in, contradicted = listed_versions(extract.lookups.all_skipped), extract.lookups.contradicted
    for value, look in look_up_or_parent(context, extract.entity, answers.lookup, suspects):
        answers.add(value, look)
        if value in listed_parents and not_there(answers.lookup, look):
            look = replace(look, unknown=PARENT_LISTED)
        for suspect in suspects[value]:
            if suspect.key in contradicted:
                _settle_unproven(extract, suspect, contradicted[suspect.key])
            elif not _settle_shown(context, extract, suspect, look, listed_in):
                not_shown.setdefault(value, []).append(suspect)
    return not_shown


def _settle_by_witness(
    context: MirrorContext, extract: Extract, suspects: Mapping[tuple, Sequence[Suspect]], answers: _Answers
) -> list[Suspect]:
    """Settle the suspects that the witness shows or can't tell. Return those that are absent there too."""
    absent = []
    for value, look in look_up(context, extract.entity.table, answers.lookup, suspects):
        answers.add(value, look)
        absent += [suspect for suspect in suspects[value] if not _settle_contradicted(extract, suspect, look)]
    return absent


def _settle_absent(context: MirrorContext, extract: Extract, absent: Sequence[Suspect], answers: _Answers) -> None:
    """Settle the suspects that no address has shown: they are gone, unless the address or a list is in doubt.

    `answers`: those of the address that was asked last. If it finds nothing at all in a place, it may be out of order
    there.
    """
    lookup = answers.lookup
    places = {place_of(extract, lookup, suspect.by) for suspect in absent} - answers.works_in
    doubts = {place: address_doubt(context, extract, lookup, place) for place in places}
    # A flag of the list and the address agree that a record is deleted.
    keys = [suspect.key for suspect in absent]
    listed = extract.lookups.listed(keys) - extract.flagged_deleted(keys)
    hidden = hidden_places(context, extract, keys)
    for suspect in absent:
        if doubt := doubts.get(place_of(extract, lookup, suspect.by)) or hidden.get(suspect.key):
            _settle_unproven(extract, suspect, doubt)
        elif suspect.key in listed:
            _settle_unproven(extract, suspect, LISTED_ONLY, even_confirmed=True)
        else:
            # What may have come back is not there, and the copy lacks it too.
            _settle(extract, suspect, "noise" if suspect.operation == "insert" else "confirmed")


def _settle_shown(
    context: MirrorContext, extract: Extract, suspect: Suspect, look: Look, listed_in: Mapping[tuple, datetime]
) -> bool:
    """Settle a suspect, unless the look shows neither it nor its hidden series. Return whether it is settled.

    If the look shows the row, it replaces the staged one, and the two have to agree. `listed_in`: the newest versions
    of records that could not be read with their lists.
    """
    table = extract.entity.table
    rows = {table.key_of(row): row for row in look.rows}
    if look.unknown or (suspect.key not in rows and None in rows):
        _settle_unproven(extract, suspect, look.unknown or "a row without a usable id came in its place")
        return True
    if suspect.operation == "delete" and is_followed(context, extract, suspect.key, look.rows):
        _settle(extract, suspect, "young")
        return True
    if suspect.key not in rows:
        if hidden := is_hidden_series(extract, suspect.key, rows):
            _settle_unproven(extract, suspect, SERIES_HIDDEN)
        return hidden
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
