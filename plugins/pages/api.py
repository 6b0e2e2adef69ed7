"""The JSON endpoints: state of the sources, their runs and sync log, readiness, and figures for Prometheus."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_dag,
    requires_access_view,
    requires_authenticated,
)
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response, status
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import AwareDatetime, BeforeValidator

from include.confidence.policy import Verdict
from include.confidence.queries.changes import Change, list_changes
from include.confidence.queries.field_census import (
    EntityFields,
    FoundChange,
    TotalFields,
    list_field_changes,
    read_fields,
    total_fields,
)
from include.confidence.queries.history import RowHistory
from include.confidence.queries.months import SourceMonth
from include.confidence.queries.overview import with_data
from include.confidence.queries.paging import MAX_PAGE, PAGE, Page
from include.confidence.queries.planned import PlannedChange, list_planned
from include.confidence.queries.runs import Run, read_run
from include.confidence.queries.scans import Scan, latest_scans, list_scans
from include.confidence.queries.syncs import SyncRow, list_syncs, read_sync
from include.confidence.unproven import count_by_table
from include.sources import get_source
from include.sources.base import ReadAnswer
from include.sources.installed import installed_sources
from plugins.pages import history, months, prometheus
from plugins.pages.access import NotInstalled, Source, Sources, SyncId, refuse_nul, require_readable
from plugins.pages.plan import Filter, PlannedScan
from plugins.pages.readiness import Readiness, readiness
from plugins.pages.status import SourceDetail, SourceStatus, detail, health_figures, overview
from plugins.pages.warehouse import Warehouse, WarehouseUnavailable


def _instant(text: str) -> datetime:
    """Return the time that ISO 8601 text names. Pydantic alone would take `2026` for seconds since 1970."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("give a time of ISO 8601 such as 2026-03-01T00:00:00Z") from None


Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before, as it came.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items of a page.")]
EntityFilter = Annotated[str | None, Query(description="Of this entity only.")]
VerdictFilter = Annotated[Verdict | None, Query(description="With this verdict only.")]
KindFilter = Annotated[
    Literal["sync", "repair", "rollback", "watermark"] | None, Query(description="Of this kind only.")
]
StateFilter = Annotated[Literal["running", "success", "failed"] | None, Query(description="In this state only.")]
Since = Annotated[
    AwareDatetime | None,
    BeforeValidator(_instant),
    Query(description="Not older than this; ISO 8601 with a time zone, `+` written as `%2B`."),
]
DagId = Annotated[str, Path(description="The run's DAG, such as `<source>_reconcile`.")]
RunId = Annotated[str, Path(description="The run's id as Airflow has it, `+` written as `%2B`.")]


def refuse_unknown_params(request: Request) -> None:
    """Raise a 422 for a query parameter that the endpoint does not know: a misspelt filter would select everything."""
    known = {field.alias for field in get_flat_dependant(request.scope["route"].dependant).query_params}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        names = f"it knows {', '.join(sorted(known))}" if known else "it takes none"
        raise HTTPException(
            status.HTTP_422_UNPROCESSABLE_CONTENT,
            f"unknown query parameters for {_printable(request.url.path)}: {_printable(', '.join(unknown))}; {names}",
        )


def _printable(text: str) -> str:
    """Return the text in one line: the first 200 characters, and those that can't be printed as Python writes them."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[:200])


def one_line(error: RequestValidationError) -> str:
    """Return what is wrong with a request, and where, in one line."""
    return "; ".join(map(_problem, error.errors()))


def _problem(found: Mapping[str, Any]) -> str:
    what = found["msg"].removeprefix("Value error, ")
    return f"{' '.join(map(str, found['loc']))}: {what} (given: {str(found.get('input'))[:80]!r})"


@dataclass(frozen=True)
class Statuses:
    """Every source that is set up here and that the user may see.

    `kept`: sources with data in the warehouse that are not set up here.
    """

    sources: tuple[SourceStatus, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Months:
    """The last months of every source that the user may see, newest first; a month has the sources in one order."""

    months: tuple[SourceMonth, ...]


@dataclass(frozen=True)
class Fields:
    """The fields of each table of a source, and how many they are together.

    `answer_names`: by table, which of the vendor's answers the first step of a path is. `read_answers`: what is read
    of the answers whose fields are not counted.
    """

    total: TotalFields
    entities: tuple[EntityFields, ...]
    answer_names: Mapping[str, Mapping[str, str]]
    read_answers: tuple[ReadAnswer, ...]


@dataclass(frozen=True)
class Refusal:
    """What is wrong, where, and what to do, in one line."""

    detail: str


REFUSALS: Mapping[int | str, Mapping[str, Any]] = {
    401: {"model": Refusal, "description": "Not logged in."},
    403: {"model": Refusal, "description": "Logged in, but without the permission."},
    422: {"model": Refusal, "description": "A parameter that is unknown, or whose value is refused."},
    503: {"model": Refusal, "description": "The warehouse can't be asked now."},
}
NOT_FOUND = {404: {"model": Refusal, "description": "There is no such thing."}}

router = APIRouter(
    dependencies=[Depends(requires_authenticated()), Depends(refuse_nul), Depends(refuse_unknown_params)],
    responses={**REFUSALS},
)


@router.get("/sync-status", tags=["status"])
def sync_status(conn: Warehouse, session: SessionDep, sources: Sources, left_out: NotInstalled) -> Statuses:
    """Every source at a glance: its writer, the last verdict, how many rows it has proven, freshness, the last sync, a
    scan that is under way, what the watch has found, the next runs and the decision that waits for an answer."""
    return Statuses(tuple(overview(conn, session, sources)), with_data(conn, left_out))


@router.get("/months.json", tags=["history"])
def source_months(conn: Warehouse, session: SessionDep, sources: Sources) -> Months:
    """The last 12 months in which a run has scanned a source: how its nights ended, rows repaired and rolled back, how
    long the writer stood still and why, how long questions waited for an answer, and how fresh the copy was."""
    return Months(tuple(months.of_sources(conn, session, sources)))


@router.get("/sync-status/{source}", tags=["status"], responses=NOT_FOUND)
def source_status(source: Source, conn: Warehouse, session: SessionDep) -> SourceDetail:
    """One source in full: at a glance, its health figures and alerts, rows that no scan could prove, what the last
    scans found, the last repair."""
    found = detail(conn, session, source)
    if found is None:
        raise WarehouseUnavailable(f"the warehouse has no row for {source} yet: run the DAG warehouse_migrate")
    return found


@router.get("/sync-status/{source}/runs", tags=["history"], responses=NOT_FOUND)
def source_runs(
    source: Source,
    conn: Warehouse,
    verdict: VerdictFilter = None,
    entity: EntityFilter = None,
    since: Since = None,
    cursor: Cursor = None,
    limit: Limit = PAGE,
) -> Page[Scan]:
    """The scans of the source's runs with metrics, gates and verdicts, newest first."""
    return list_scans(conn, source, verdict=verdict, entity=entity, since=since, cursor=cursor, limit=limit)


@router.get("/sync-status/{source}/fields", tags=["status"], responses=NOT_FOUND)
def source_fields(source: Source, conn: Warehouse, entity: EntityFilter = None) -> Fields:
    """The fields of the source's records, by table: whether a column reads them, their types, the share of the records
    that has them. Of values only the words of declared enumerations are known here."""
    entities = tuple(read_fields(conn, source, entity))
    declared = get_source(source)
    return Fields(total_fields(entities), entities, declared.answer_names, declared.read_answers)


@router.get("/sync-status/{source}/field-changes", tags=["history"], responses=NOT_FOUND)
def source_field_changes(
    source: Source,
    conn: Warehouse,
    entity: EntityFilter = None,
    since: Since = None,
    cursor: Cursor = None,
    limit: Limit = PAGE,
) -> Page[FoundChange]:
    """What has changed in the fields of the source's records, each change once, newest first."""
    return list_field_changes(conn, source, entity=entity, since=since, cursor=cursor, limit=limit)


@router.get("/sync-status/{source}/plans/{evidence}/changes", tags=["history"], responses=NOT_FOUND)
def planned_changes(
    scan: PlannedScan, chosen: Filter, conn: Warehouse, cursor: Cursor = None, limit: Limit = PAGE
) -> Page[PlannedChange]:
    """The planned changes of a scan, row by row, with the row as the copy had it and as the source showed it.
    `evidence` is that of a scan in `runs`. Plans are kept for 30 days."""
    return list_planned(conn, scan.evidence, chosen, cursor=cursor, limit=limit)


@router.get("/sync-status/{source}/sync-log", tags=["history"], responses=NOT_FOUND)
def source_sync_log(
    source: Source,
    conn: Warehouse,
    kind: KindFilter = None,
    state: StateFilter = None,
    since: Since = None,
    cursor: Cursor = None,
    limit: Limit = PAGE,
) -> Page[SyncRow]:
    """The source's syncs, repairs, rollbacks and watermarks, newest first."""
    return list_syncs(conn, source, kind=kind, state=state, since=since, cursor=cursor, limit=limit)


@router.get("/sync-status/{source}/sync-log/{sync_id}/changes", tags=["history"], responses=NOT_FOUND)
def source_changes(
    source: Source,
    sync_id: SyncId,
    conn: Warehouse,
    cursor: Cursor = None,
    limit: Limit = PAGE,
) -> Page[Change]:
    """The rows that a sync or repair has changed, by key, with the columns that differ before and after."""
    if read_sync(conn, source, sync_id) is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            f"{source} has no sync_id {sync_id}: GET sync-status/{source}/sync-log lists those that are kept",
        )
    return list_changes(conn, sync_id, cursor=cursor, limit=limit)


@router.get("/sync-status/{source}/rows/changes", tags=["history"], responses=NOT_FOUND)
def row_changes(
    source: Source, table: history.Table, key: history.Key, conn: Warehouse, cursor: Cursor = None, limit: Limit = PAGE
) -> RowHistory:
    """One row: as it is now, and all its logged changes with the row before and after, newest first. `table` and `key`
    are those of its changes in `sync-log`."""
    return history.of_row(conn, source, table, key, cursor, limit)


@router.get(
    "/runs/{dag_id}/{run_id}",
    tags=["history"],
    responses=NOT_FOUND,
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))],
)
def one_run(dag_id: DagId, run_id: RunId, conn: Warehouse, user: GetUserDep) -> Run:
    """What a run left in the warehouse: its scans with their gates, how many rows it has proven and which not, what it
    planned to change and what it changed."""
    found = read_run(conn, f"{dag_id}/{run_id}")
    if found is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            f"the run {f'{dag_id[:80]}/{run_id[:80]}'!r} left nothing in the warehouse (yet): only scans and syncs do;"
            " look at the run in Airflow",
        )
    require_readable(found.source, user)
    return found


@router.get(
    "/metrics",
    tags=["machines"],
    dependencies=[Depends(requires_access_view(AccessView.CLUSTER_ACTIVITY))],
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {}}, "description": "Prometheus' text form."}},
)
def metrics(conn: Warehouse, session: SessionDep, sources: Sources) -> Response:
    """The figures of every source that the user may see, in Prometheus' text form."""
    text = prometheus.exposition(
        overview(conn, session, sources),
        {source: health_figures(conn, source) for source in sources},
        {source: latest_scans(conn, source) for source in sources},
        count_by_table(conn, sources),
    )
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def readiness_router(*, open_to_all: bool) -> APIRouter:
    """Return the router of /readiness, for load balancers. `open_to_all`: no login is needed, and all sources count."""
    routes = APIRouter(
        dependencies=[
            *([] if open_to_all else [Depends(requires_authenticated())]),
            Depends(refuse_nul),
            Depends(refuse_unknown_params),
        ]
    )
    seen = Annotated[tuple[str, ...], Depends(lambda: installed_sources())] if open_to_all else Sources
    not_ready = {503: {"model": Readiness, "description": "Not ready, and why."}}

    @routes.get("/readiness", tags=["machines"], responses={**REFUSALS, **NOT_FOUND, **not_ready})
    def ready(
        sources: seen,
        response: Response,
        source: Annotated[str | None, Query(description="Ask of this source alone.")] = None,
    ) -> Readiness:
        """200 if the copies can be relied on: the warehouse answers, no writer is stopped for longer than 4 hours (or
        WRITER_STOPPED_LIMIT_HOURS of the environment), no repair went unverified, no copy is staler than its source's
        limit, and no source lacks a connection. Else 503 with the reasons."""
        if source is not None and source not in sources:
            raise HTTPException(
                status.HTTP_404_NOT_FOUND, f"{source[:80]!r} is no source that you may ask for: {', '.join(sources)}"
            )
        found = readiness(sources, source)
        if not found.ready:
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return found

    return routes
