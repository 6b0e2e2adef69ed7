"""Undo a sync, a repair or a rollback by its sync_id."""

import logging
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from airflow.sdk import BaseOperator

from include.sources import get_source
from include.sources.installed import require_installed
from include.warehouse.rollback import Copy, roll_back, source_of
from plugins.deciders import require_decider
from plugins.hooks import warehouse
from plugins.hooks.source import AirflowConnections
from plugins.runs import refuse_unknown_conf, run_name

log = logging.getLogger(__name__)


class RollbackOperator(BaseOperator):
    """Restore rows and sync_state as they were before `params.sync_id`; with `dry_run` only count them.

    Returns what `Undone.as_json` does. Raises NotDecider if who triggered the run may not roll back,
    and NotInstalled if the installation does not have the source.
    """

    def execute(self, context: Any) -> dict[str, Any]:
        refuse_unknown_conf(context)
        require_decider(
            context["dag_run"].triggering_user_name,
            "roll back",
            "Nothing was changed. Have somebody with that role trigger warehouse_rollback",
        )
        params, run = context["params"], run_name(context)
        with warehouse.connect(run) as conn, _copy(conn, params["sync_id"], run) as copy:
            undone = roll_back(
                conn,
                copy,
                params["sync_id"],
                run=run,
                reason=params["reason"],
                force=params["force"],
                dry_run=params["dry_run"],
            )
        done = "would restore" if params["dry_run"] else f"restored, as sync_id {undone.sync_id},"
        for table, count in undone.tables.items():
            log.info(
                "%s %s: %d rows put back, %d brought back, %d removed",
                *(done, table, count.updated, count.inserted, count.deleted),
            )
        for conflict in undone.conflicts:
            log.warning("conflict%s: %s", "" if params["dry_run"] else ", done all the same", conflict)
        return undone.as_json()


def _copy(conn: psycopg.Connection, sync_id: int, run: str) -> AbstractContextManager[Copy]:
    source = source_of(conn, sync_id)
    require_installed(source)
    return get_source(source).copy(conn, AirflowConnections(run))
