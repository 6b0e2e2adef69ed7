"""Access to the pages: who may read the runs of `<source>_reconcile` may see the source."""

from collections.abc import Sequence
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Path, Request, status

from include.sources import REGISTRY
from include.sources.installed import installed_sources, left_out_line, left_out_sources
from plugins.deciders import is_decider
from plugins.pages.airflow_state import ROLLBACK


def refuse_nul(request: Request) -> None:
    """Raise a 422 if the address holds a NUL character, which Postgres accepts in no text."""
    asked = [request.url.path, *(text for pair in request.query_params.multi_items() for text in pair)]
    if any("\0" in text for text in asked):
        raise HTTPException(
            status.HTTP_422_UNPROCESSABLE_CONTENT,
            "the address holds a NUL character (%00), which no name here has: take it out and ask again",
        )


def runbook(source: str) -> str:
    """Return the DAG whose readers may see the source."""
    return f"{source}_reconcile"


def source_of(dag_id: str) -> str | None:
    """Return the source whose sync or runbook the DAG is, None for any other DAG."""
    source, _, what = dag_id.rpartition("_")
    return source if source in REGISTRY and what in ("sync", "reconcile") else None


def readable(sources: Sequence[str], user: GetUserDep) -> tuple[str, ...]:
    """Return the sources that the user may see."""
    teams = DagModel.get_dag_id_to_team_name_mapping([runbook(source) for source in sources])
    return tuple(
        source
        for source in sources
        if get_auth_manager().is_authorized_dag(
            method="GET",
            access_entity=DagAccessEntity.RUN,
            details=DagDetails(id=runbook(source), team_name=teams.get(runbook(source))),
            user=user,
        )
    )


def require_readable(
    source: Annotated[str, Path(description="The source's name, as `GET /sync-status` has it.")], user: GetUserDep
) -> str:
    """Return the source's name.

    Raises a 404 if there is no such source or it is not set up here, and a 403 if the user may not see it.
    """
    if source not in REGISTRY:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"{source[:80]!r} is no source: GET sync-status lists those that there are"
        )
    if not readable([source], user):
        raise HTTPException(
            status.HTTP_403_FORBIDDEN,
            f"{source} is not for you to see: ask for the permission to read the runs of the DAG {runbook(source)}",
        )
    refuse_left_out(source)
    return source


def refuse_left_out(source: str) -> None:
    """Raise a 404 if the source is not set up here."""
    if source in left_out_sources():
        raise HTTPException(status.HTTP_404_NOT_FOUND, left_out_line(source))


def _readable_sources(user: GetUserDep) -> tuple[str, ...]:
    return readable(installed_sources(), user)


def _readable_left_out(user: GetUserDep) -> tuple[str, ...]:
    return readable(left_out_sources(), user)


def _is_decider(user: GetUserDep) -> bool:
    if not is_decider(user.get_name()):
        return False
    may, team = get_auth_manager().is_authorized_dag, DagModel.get_team_name(ROLLBACK)
    rollback = DagDetails(id=ROLLBACK, team_name=team)
    return may(method="POST", access_entity=DagAccessEntity.RUN, details=rollback, user=user) and may(
        method="PUT", access_entity=DagAccessEntity.HITL_DETAIL, user=user
    )


SyncId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The `sync_id` of a row of the source's `sync-log`.")]
# The source in a path; the sources set up here; and those not set up here. Each only if the user may see it.
Source = Annotated[str, Depends(require_readable)]
Sources = Annotated[tuple[str, ...], Depends(_readable_sources)]
NotInstalled = Annotated[tuple[str, ...], Depends(_readable_left_out)]
# Whether the user may answer holds and roll back. The tasks check DECIDER_ROLES, and Airflow its own permissions; the
# pages hide what one of them would refuse.
Decider = Annotated[bool, Depends(_is_decider)]
