"""The pages in Airflow's UI: all sources, their months, one source, a run, a plan, a sync, a rollback, a row.

They only read.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag, requires_authenticated
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response, StreamingResponse

from include.confidence import planned_changes, run_evidence
from include.confidence.policy import SEVERITY
from include.confidence.queries.changes import list_changes
from include.confidence.queries.field_census import list_field_changes, read_fields, total_fields
from include.confidence.queries.history import logged_tables
from include.confidence.queries.overview import with_data
from include.confidence.queries.planned import count_planned, list_planned, name_planned
from include.confidence.queries.runs import read_run
from include.confidence.queries.scans import list_scans
from include.confidence.queries.syncs import list_syncs, read_sync, source_of_sync
from include.confidence.queries.trends import MAX_DAYS, POINTS, list_parts, read_drift, read_series
from include.sources import get_source
from include.sources.installed import SETTING
from include.sources.mirror.source import Mirror
from include.warehouse.retention import days_kept
from plugins.pages import history, months, plan, question, status, summaries, ways_out
from plugins.pages.access import (
    Decider,
    NotInstalled,
    Source,
    Sources,
    SyncId,
    refuse_left_out,
    refuse_nul,
    source_of,
)
from plugins.pages.airflow_state import ENDED, ROLLBACK, failed_runs, rollback_run, run_state
from plugins.pages.html_route import HtmlRoute, message
from plugins.pages.plan import PlannedScan
from plugins.pages.render import HEADERS, STATIC, page, run_ui
from plugins.pages.warehouse import Warehouse

# Seconds after which a browser reloads the overview, while a run is at work and otherwise; and the page of a rollback
# at work, or of a run that is about to ask or acts on an answer.
SOON, LATER, AT_ONCE = 5, 30, 3
# The newest scans and failed runs, from which the list of runs is made; and the changed rows shown on a page of a
# source or run.
SCANS, FAILED, CHANGES = 200, 30, 12
# The periods of the trends that one can choose, in days; None for the newest scans.
PERIODS = {None: f"newest {POINTS}", 30: "30 days", 90: "90 days", 365: "a year"}

Asked = Annotated[str | None, Query()]
Days = Annotated[int | None, Query(ge=1, le=MAX_DAYS)]


router = APIRouter(
    route_class=HtmlRoute,
    include_in_schema=False,
    default_response_class=HTMLResponse,
    dependencies=[Depends(requires_authenticated()), Depends(refuse_nul)],
)


# Without a login too, since the page that offers the login looks like the others. No file here holds data.
static_router = APIRouter(route_class=HtmlRoute, include_in_schema=False, dependencies=[Depends(refuse_nul)])


@static_router.get("/static/{name}")
def static(name: str, request: Request) -> Response:
    """A static file. If the address has a version, browsers may keep the file for good."""
    if name not in STATIC:
        raise HTTPException(404, "There is no such file")
    keeping = "private, max-age=31536000, immutable" if "v" in request.query_params else "private, max-age=3600"
    return FileResponse(STATIC[name], headers={"Cache-Control": keeping, "X-Content-Type-Options": "nosniff"})


@router.get("/")
def overview(
    request: Request, conn: Warehouse, session: SessionDep, sources: Sources, left_out: NotInstalled, decider: Decider
) -> Response:
    """All sources at a glance."""
    standing = {found.source: found for found in status.overview(conn, session, sources)}
    judged = {name: found.judged_run for name, found in standing.items() if found.judged_run}
    scanning = {name for name, found in standing.items() if summaries.is_scanning(found)}
    return page(
        request,
        "overview.html",
        sources=sources,
        decider=decider,
        rows=sorted(
            ((name, standing.get(name), name in scanning) for name in sources),
            key=lambda row: summaries.urgency(row[1]),
        ),
        evidence={name: run_evidence.read(conn, name, run, ()) for name, run in judged.items()},
        ways_out=ways_out,
        summary=summaries.summed_up(list(standing.values())),
        kept=with_data(conn, left_out),
        setting=SETTING,
        refresh=SOON if any(found.airflow.running for found in standing.values()) else LATER,
    )


@router.get("/months")
def of_months(request: Request, conn: Warehouse, session: SessionDep, sources: Sources) -> Response:
    """The months of all sources, to read and to print."""
    found = months.of_sources(conn, session, sources)
    return page(request, "months.html", sources=sources, here="months", months=months.by_month(found))


@router.get("/months.csv")
def of_months_as_csv(conn: Warehouse, session: SessionDep, sources: Sources) -> Response:
    """The months of all sources for a spreadsheet."""
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="months_{datetime.now(UTC):%Y-%m-%d}.csv"'}
    return Response(months.as_csv(months.of_sources(conn, session, sources)), media_type="text/csv", headers=headers)


@router.get("/sources/{source}")
def of_source(
    request: Request,
    source: Source,
    conn: Warehouse,
    session: SessionDep,
    sources: Sources,
    decider: Decider,
    entity: Asked = None,
    scope: str = "all",
    days: Days = None,
    syncs: Asked = None,
) -> Response:
    """One source: trends, runs, drift, sync log, health. `days`: the period of the trends."""
    detail = status.detail(conn, session, source)
    if detail is None:
        return message(
            request,
            f"{source} is not in the warehouse yet",
            "Its tables come with the next migration.",
            sources=sources,
            here=source,
            link=("/dags/warehouse_migrate", "Trigger warehouse_migrate"),
        )
    parts = list_parts(conn, source)
    shown = summaries.chosen(parts, detail.scans, entity, scope)
    repair, asks = detail.last_repair, detail.airflow.decision
    drifted = [scan for scan in detail.scans if scan.plan.rows or any(scan.examples.values())]
    runs = {scan.run for scan in drifted} | ({detail.judged_run} if detail.judged_run else set())
    of_runs = {run: run_evidence.read(conn, source, run, ()) for run in runs}
    return page(
        request,
        "source.html",
        sources=sources,
        here=source,
        decider=decider,
        status=detail,
        asked=question.of_run(conn, session, f"{source}_reconcile/{asks.run_id}", detail.scans) if asks else None,
        ways_out=ways_out,
        parts=parts,
        shown=shown,
        series=summaries.urgent_first(read_series(conn, source, shown.entity, shown.scope, days=days)) if shown else [],
        drift=read_drift(conn, source, days=days),
        days=days,
        periods=PERIODS,
        runs=summaries.last_runs(
            list_scans(conn, source, limit=SCANS), failed_runs(session, f"{source}_reconcile", FAILED)
        ),
        drifted=drifted,
        of_runs=of_runs,
        evidence=of_runs.get(detail.judged_run),
        repair=repair,
        changes=list_changes(conn, repair.sync_id, limit=CHANGES).items if repair else (),
        syncs=list_syncs(conn, source, cursor=syncs),
        health=detail.health,
        fields=read_fields(conn, source),
        field_changes=list_field_changes(conn, source, limit=CHANGES),
    )


@router.get("/sources/{source}/fields")
def of_fields(request: Request, source: Source, conn: Warehouse, sources: Sources, cursor: Asked = None) -> Response:
    """The fields of a source's records, table by table, and what has changed in them."""
    fields, declared = read_fields(conn, source), get_source(source)
    return page(
        request,
        "fields.html",
        sources=sources,
        here=source,
        fields=fields,
        total=total_fields(fields),
        counts=isinstance(declared, Mirror),
        answer_names=declared.answer_names,
        read_answers=declared.read_answers,
        counted={answer.counted_as: answer.answer for answer in declared.read_answers if answer.counted_as},
        field_changes=list_field_changes(conn, source, cursor=cursor),
    )


@router.get("/sources/{source}/syncs/{sync_id}")
def of_sync(
    request: Request,
    source: Source,
    sync_id: SyncId,
    conn: Warehouse,
    sources: Sources,
    decider: Decider,
    changes: Asked = None,
) -> Response:
    """One sync, repair or rollback: what it changed, and the form to undo it."""
    row = read_sync(conn, source, sync_id)
    if row is None:
        raise HTTPException(404, f"{source} has no sync_id {sync_id}")
    return page(
        request,
        "sync.html",
        sources=sources,
        here=source,
        decider=decider,
        sync=row,
        names=list(vars(row.counts)),
        changes=list_changes(conn, sync_id, cursor=changes),
    )


@router.get(
    "/sources/{source}/syncs/{sync_id}/rollbacks/{run:path}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN, ROLLBACK))],
)
def of_rollback(
    request: Request,
    source: Source,
    sync_id: SyncId,
    run: str,
    conn: Warehouse,
    session: SessionDep,
    sources: Sources,
    decider: Decider,
) -> Response:
    """A run of warehouse_rollback that undoes the sync: how far it is, then what it did or would do."""
    found = rollback_run(session, run)
    row = read_sync(conn, source, sync_id)
    if row is None or found is None or found.sync_id != sync_id:
        raise HTTPException(404, f"Airflow knows no such rollback of {source}'s sync_id {sync_id}")
    ended = found.state in ENDED
    return page(
        request,
        "rollback.html",
        sources=sources,
        here=source,
        decider=decider,
        sync=row,
        run=found,
        refresh=None if ended else AT_ONCE,
    )


@router.get("/sources/{source}/plans/{evidence}")
def of_plan(
    request: Request,
    source: Source,
    scan: PlannedScan,
    chosen: plan.Filter,
    conn: Warehouse,
    sources: Sources,
    decider: Decider,
    cursor: Asked = None,
) -> Response:
    """The plan of a scan: both sides of each row."""
    counts = count_planned(conn, scan.evidence)
    tables = sorted({count.table for count in counts})
    changes = list_planned(conn, scan.evidence, chosen, cursor=cursor)
    return page(
        request,
        "plan.html",
        sources=sources,
        here=source,
        decider=decider,
        scan=scan,
        chosen=chosen,
        counts=counts,
        after=plan.aftermath(conn, scan, tables or [scan.entity]),
        logged=logged_tables(conn, source, tables),
        changes=changes,
        names=name_planned(conn, get_source(source).planned_name, changes.items),
        query=urlencode({name: value for name, value in vars(chosen).items() if value}),
        most=planned_changes.MOST,
        days=days_kept(conn, "confidence.planned_change", source),
    )


@router.get("/sources/{source}/plans/{evidence}/changes.csv")
def of_plan_as_csv(source: Source, scan: PlannedScan, chosen: plan.Filter) -> Response:
    """The plan of a scan for a spreadsheet."""
    name = f"{source}_{scan.entity}_{scan.scanned_at:%Y-%m-%d}.csv"
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(plan.as_csv(scan.evidence, chosen), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/sources/{source}/rows")
def of_row(
    request: Request,
    source: Source,
    table: history.Table,
    key: history.Key,
    conn: Warehouse,
    sources: Sources,
    cursor: Asked = None,
) -> Response:
    """One row: as it is now, and each of its logged changes."""
    return page(
        request,
        "row.html",
        sources=sources,
        here=source,
        found=history.of_row(conn, source, table, key, cursor),
        query=history.row_query(table, key),
        newest=cursor is None,
    )


@router.get("/sources/{source}/rows/changes.csv")
def of_row_as_csv(source: Source, first: history.FirstPage) -> Response:
    """The changes of a row for a spreadsheet."""
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{source}_row.csv"'}
    changes = history.as_csv(source, first)
    return StreamingResponse(changes, media_type="text/csv; charset=utf-8", headers=headers)


@router.get(
    "/dags/{dag_id}", dependencies=[Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.RUN))]
)
def of_dag(
    request: Request, dag_id: str, conn: Warehouse, session: SessionDep, sources: Sources, decider: Decider
) -> Response:
    """The tab of a DAG: its source."""
    source = source_of(dag_id)
    if source:
        _require(source, sources)
        return of_source(request, source, conn, session, sources, decider)
    return message(
        request,
        "Not about one source",
        f"{dag_id} neither syncs nor proves the copy of one source. What it has done is with each of its runs.",
        sources=sources,
    )


@router.get(
    "/dags/{dag_id}/runs/{run:path}",
    dependencies=[Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.RUN))],
)
def of_run(
    request: Request,
    dag_id: str,
    run: str,
    conn: Warehouse,
    session: SessionDep,
    sources: Sources,
    decider: Decider,
) -> Response:
    """The tab of a DAG run: what it scanned, judged, planned and applied; of a rollback, its own page."""
    rollback = rollback_run(session, run) if dag_id == ROLLBACK else None
    source = rollback and source_of_sync(conn, rollback.sync_id)
    if source:
        _require(source, sources)
        return of_rollback(request, source, rollback.sync_id, run, conn, session, sources, decider)
    name = f"{dag_id}/{run}"
    found = read_run(conn, name)
    if found is None:
        state = run_state(session, name)
        return message(
            request,
            "Nothing in the warehouse",
            summaries.nothing_left(dag_id, run, state),
            code=200 if state else 404,
            sources=sources,
            here=source_of(dag_id),
            link=(run_ui(name), "The run in Airflow") if state else None,
        )
    _require(found.source, sources)
    comes = question.comes(conn, session, found)
    asked = None if comes else question.of_run(conn, session, name, found.scans)
    acts = bool(asked and asked.answer) and run_state(session, name) in ("queued", "running")
    repair = next((row for row in found.syncs if row.kind == "repair"), None)
    return page(
        request,
        "run.html",
        sources=sources,
        here=found.source,
        decider=decider,
        run=found,
        evidence=run_evidence.read(conn, found.source, name, ()),
        asked=asked,
        past=None if comes or asked else question.past(conn, name),
        refresh=AT_ONCE if comes or acts else None,
        scans=sorted(found.scans, key=lambda scan: SEVERITY[scan.verdict], reverse=True),
        repair=repair,
        changes=list_changes(conn, repair.sync_id, limit=CHANGES).items if repair else (),
    )


def _require(source: str, sources: Sequence[str]) -> None:
    """Raise a 404 if the source is not set up here, a 403 unless the user may see it.

    A right to the sync DAG is no right to the runbook's findings.
    """
    refuse_left_out(source)
    if source not in sources:
        raise HTTPException(403, f"{source} is not for you to see")
