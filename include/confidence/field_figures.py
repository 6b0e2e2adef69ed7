"""Store what a census of fields has counted and what has changed, and give the figures of a scan about fields."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from psycopg import Connection

from include.confidence.field_changes import (
    RECORD,
    FieldChange,
    Kind,
    KnownField,
    State,
    find_changes,
    limit_fields,
    merge_renames,
)
from include.confidence.field_counts import Counted
from include.confidence.field_store import known_fields, save_census, save_changes
from include.confidence.policy.fields_lost import lost_examples
from include.confidence.summary import MAX_EXAMPLES, ForensicSummary

log = logging.getLogger(__name__)

METRICS: Mapping[str, str] = {
    "fields": "Fields that the records of the entity have, those in nested objects included.",
    "fields_new": "Fields that no whole scan before had seen.",
    "fields_vanished": "Fields that were in nearly all records, and are now in none.",
    "declared_fields": "Fields that are read, into a column or to compare.",
    "declared_fields_vanished": "Declared fields that were in nearly all records, and are now in none.",
    "declared_fields_retyped": "Declared fields that now have a type which can't be read.",
}
# The metrics of fields whose values the copy loses.
LOST = ("declared_fields_vanished", "declared_fields_retyped")

# Given the changes and the fields before, returns {vanished field: new field} for each field that was renamed.
FindRenames = Callable[[Sequence[FieldChange], Mapping[str, KnownField]], Mapping[str, str]]


@dataclass(frozen=True)
class Declaration:
    """What is declared of the fields of one kind of record.

    - `entity`: the name of the records in the census: that of their table or answer
    - `fields`: how many fields are read
    - `state_of`: what becomes of a field, by its path
    - `reason_of`: why a field is ignored, or what it is read for; empty if nothing is said
    """

    entity: str
    fields: int
    state_of: Callable[[str], State]
    reason_of: Callable[[str], str]


@dataclass(frozen=True)
class FieldFigures:
    """The figures of a scan about fields: its metrics, and by metric the lost declared fields, as `entity.path`.

    The metrics are None if the scan can't tell.
    """

    metrics: Mapping[str, int | None] = field(default_factory=lambda: dict.fromkeys(METRICS))
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def examples(self) -> dict[str, list[str]]:
        """The first of the lost fields, by the names that a summary has for them."""
        return {lost_examples(metric): list(names[:MAX_EXAMPLES]) for metric, names in self.lost.items() if names}


def with_fields(summary: ForensicSummary, found: FieldFigures) -> ForensicSummary:
    """Return the summary of a scan with the figures about fields. If it is no evidence, it names the lost fields."""
    return replace(
        summary,
        metrics={**summary.metrics, **found.metrics},
        examples={**summary.examples, **found.examples},
        incomplete=". ".join([summary.incomplete, *lost_fields(found.lost)]) if summary.incomplete else "",
    )


def no_renames(found: Sequence[FieldChange], known: Mapping[str, KnownField]) -> Mapping[str, str]:
    return {}


def keep_counts(
    conn: Connection,
    source: str,
    run: str,
    declared: Declaration,
    counted: Counted,
    *,
    whole: bool,
    find_renames: FindRenames = no_renames,
) -> Mapping[str, KnownField]:
    """Store what a census has counted; store and log what has changed. Return the fields as they were known before.

    Call it in a transaction. `whole`: the census is that of a whole scan.
    """
    known = known_fields(conn, source, declared.entity)
    if not counted.records:
        return known
    counted = limit_fields(known, counted)
    states = {path: declared.state_of(path) for path in (*counted.fields, *known) if path != RECORD}
    found = find_changes(known, counted, states, whole=whole)
    vanished = [each.path for each in found if each.kind is Kind.VANISHED]
    found = merge_renames(found, find_renames(found, known) if vanished else {})
    for change in found:
        log.warning("%s.%s: %s", source, declared.entity, change)
    save_changes(conn, source, declared.entity, run, found)
    reasons = {path: declared.reason_of(path) for path in states}
    save_census(conn, source, declared.entity, known, counted, states, whole=whole, vanished=vanished, reasons=reasons)
    return known


def figures(
    conn: Connection, source: str, declared: Declaration, before: Mapping[str, KnownField], seen: Collection[str] | None
) -> FieldFigures:
    """Return what a whole scan says of the fields of one kind of record, after `keep_counts`.

    `before`: the fields before the scan. `seen`: the fields that it has counted; None for all that are known and have
    not vanished.
    """
    now = known_fields(conn, source, declared.entity)
    if seen is None:
        seen = [path for path, each in now.items() if path != RECORD and not each.vanished_at]
    baseline = RECORD in before and before[RECORD].scanned_at
    new = [path for path in seen if baseline and (path not in before or before[path].scanned_at is None)]
    vanished = [path for path, each in now.items() if each.vanished_at]
    # By the declarations as they are now: a person may have mended them.
    lost = [path for path in vanished if declared.state_of(path) is State.DECLARED]
    retyped = [path for path in seen if path in now and now[path].unreadable and now[path].state is State.DECLARED]
    metrics = {
        "fields": len(seen),
        "fields_new": len(new),
        "fields_vanished": len(vanished),
        "declared_fields": declared.fields,
        "declared_fields_vanished": len(lost),
        "declared_fields_retyped": len(retyped),
    }
    named = {"declared_fields_vanished": lost, "declared_fields_retyped": retyped}
    return FieldFigures(metrics, {m: [f"{declared.entity}.{path}" for path in paths] for m, paths in named.items()})


def total(figures: Sequence[FieldFigures]) -> FieldFigures:
    """Return the figures of several kinds of records together."""
    metrics = {name: sum(each.metrics[name] for each in figures) for name in METRICS}
    return FieldFigures(metrics, {metric: [name for each in figures for name in each.lost[metric]] for metric in LOST})


def lost_fields(lost: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a sentence that names the lost fields, if there are any."""
    names = [name for metric in LOST for name in lost.get(metric, ())]
    if names:
        yield f"These fields are lost at the source, which may be why: {', '.join(names[:5])}"
