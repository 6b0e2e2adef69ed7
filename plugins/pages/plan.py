"""The plan of a scan, row by row: the filters of its page and endpoint, and the plan as CSV."""

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, HTTPException, Path, Query, status
from psycopg import Connection

from include.confidence import questions, run_evidence
from include.confidence.holds import NOBODY
from include.confidence.outcome import Repair
from include.confidence.queries.paging import MAX_PAGE
from include.confidence.queries.planned import PlanFilter, PlannedChange, list_planned
from include.confidence.queries.scans import Scan, scan_with_evidence
from include.warehouse.sync_log import Counts
from plugins.pages.access import Source
from plugins.pages.warehouse import Warehouse, opened

COLUMNS = ("table", "key", "operation", "status", "why", "looked_up", "planned_at", "column", "copy", "source")
# A spreadsheet would take such a text for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _filter(
    table: Annotated[str, Query(description="Of this table only.")] = "",
    operation: Annotated[
        Literal["insert", "update", "delete"] | None, Query(description="Changes of this kind only.")
    ] = None,
    status: Annotated[str, Query(description="With this status only; `confirmed` changes may be applied.")] = "",
    column: Annotated[str, Query(description="Updates that change this column; with `value`, rows that have it.")] = "",
    value: Annotated[str, Query(description="Rows that have this value in `column`, on either side.")] = "",
    key: Annotated[str, Query(description="Rows with this value in their key.")] = "",
) -> PlanFilter:
    if value and not column:
        raise HTTPException(422, "a value is looked for in one column: go back, and choose the column too")
    return PlanFilter(table, operation or "", status, column, value, key)


Evidence = Annotated[str, Path(description="The `evidence` of a scan of `runs`.")]


def _scan(source: Source, evidence: Evidence, conn: Warehouse) -> Scan:
    """Return the scan of the source with this evidence. Raises a 404 if there is none."""
    found = scan_with_evidence(conn, source, evidence)
    if found is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            f"{source} has no scan with the evidence {evidence[:80]!r} (any more): a later attempt of the scan has"
            f" replaced it. Take `evidence` from a scan of GET sync-status/{source}/runs",
        )
    return found


Filter = Annotated[PlanFilter, Depends(_filter)]
PlannedScan = Annotated[Scan, Depends(_scan)]


@dataclass(frozen=True)
class Aftermath:
    """What became of a scan's plan.

    - `pending`: its run still keeps the writer stopped, and has not repaired anything
    - `repair`: of the run, None if there is none; `counts`: what it did in the plan's tables, None if it has not said
    - `decision`: keep, resume or repair, made after the scans of the run; with the `reason`, if one was given
    - `decided_by`: None if nobody answered in time
    - `asked`: the question of its run waits for an answer
    """

    pending: bool
    repair: Repair | None
    counts: Counts | None
    decision: str | None
    decided_by: str | None
    reason: str | None
    asked: bool = False


def aftermath(conn: Connection, scan: Scan, tables: Collection[str]) -> Aftermath:
    """Return what became of a scan's plan for these tables."""
    found = run_evidence.read(conn, scan.source, scan.run, ())
    asked, repair = questions.of_run(conn, scan.run), found.repair
    counted = [repair.counts[table] for table in sorted(tables) if table in repair.counts] if repair else []
    pending = found.writer.stopped and found.writer.run == scan.run and repair is None
    return Aftermath(
        pending=pending,
        repair=repair,
        counts=sum(counted, Counts()) if counted else None,
        decision=found.decision,
        decided_by=None if found.decided_by == NOBODY else found.decided_by,
        reason=asked.reason if asked else None,
        asked=pending and asked is not None and asked.decision is None,
    )


def values(change: PlannedChange) -> list[tuple[str, Any, Any]]:
    """Return what a person compares: (column, value in the copy, value at the source).

    Of an update the columns that differ, or its key if none does; of other changes the row without empty columns.
    """
    before, after = change.before or {}, change.after or {}
    if change.operation == "update":
        names = change.differs or tuple(change.key)
        return [(name, before.get(name), after.get(name)) for name in names]
    row = after if change.operation == "insert" else before
    return [
        (name, before.get(name) if change.operation == "delete" else None, after.get(name))
        for name, value in row.items()
        if value is not None and name not in ("deleted_at", "sync_id")
    ]


def as_csv(evidence: str, chosen: PlanFilter) -> Iterator[str]:
    """Yield the plan as CSV, one line for each column of each change."""
    yield line(COLUMNS)
    cursor, more = None, True
    while more:
        # A slow reader must not keep a connection from the pages.
        with opened() as conn:
            page = list_planned(conn, evidence, chosen, cursor=cursor, limit=MAX_PAGE)
        yield from (told for change in page.items for told in _lines(change))
        cursor, more = page.next_cursor, page.next_cursor is not None


def _lines(change: PlannedChange) -> Iterator[str]:
    told = [change.table, cell(list(change.key.values())), change.operation, change.status, cell(change.why)]
    told += ["yes" if change.looked else "no", change.planned_at.isoformat()]
    for column, before, after in values(change):
        yield line([*told, column, cell(before), cell(after)])


def line(cells: Sequence[str]) -> str:
    """Return a line of CSV."""
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def cell(value: Any) -> str:
    """Return a JSON value as text; null as an empty text, a list of one value as that value."""
    if isinstance(value, list) and len(value) == 1:
        return cell(value[0])
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return "" if value is None else json.dumps(value)
