"""Airflow's REST API, used as the service user of the connection `airflow_api`: pools and states of runs."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseHook, Connection

from include.api.client import ApiClient
from include.api.errors import NotFound
from include.api.request import Request
from include.confidence.watch import Run
from include.sources.pools import declared_pools
from plugins.hooks.source import base_url

CONNECTION = "airflow_api"
# The description of a pool that a run has closed.
CLOSED_BY = re.compile(r"STOPPED by (?P<run>.+) \(epoch \d+\)")
# States in which a process is at work for a task.
WORKING = {"running", "restarting", "deferred"}


@dataclass(frozen=True)
class Pool:
    """A pool as it is now.

    `at_work`: the tasks that run or are deferred. One that is only queued does not count: a worker may start it much
    later, or never.
    """

    slots: int
    at_work: int
    description: str
    include_deferred: bool

    @property
    def closer(self) -> str | None:
        """The run that has closed the pool, by the pool's description."""
        found = CLOSED_BY.fullmatch(self.description)
        return found and found["run"]


class AirflowApi:
    """The calls that the tasks need. All raise what `ApiClient.send` raises."""

    def __init__(self, client: ApiClient):
        self._client = client

    def pool(self, name: str) -> Pool | None:
        """Return the pool; None if somebody has deleted it."""
        try:
            data = self._client.get(f"/api/v2/pools/{quote(name)}").data
        except NotFound:
            return None
        at_work = data["running_slots"] + data["deferred_slots"]
        return Pool(data["slots"], at_work, data["description"] or "", data["include_deferred"])

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Set slots and description; deferred tasks count. A pool that was deleted is created again."""
        figures = {"slots": slots, "include_deferred": True, "description": description}
        params = {"update_mask": ["slots", "description", "include_deferred"]}
        try:
            # The API requires name and include_deferred in the body even if the mask leaves them out.
            self._client.send(Request(f"/api/v2/pools/{quote(name)}", params, "PATCH", {"pool": name} | figures))
        except NotFound:
            self._client.send(Request("/api/v2/pools", method="POST", body={"name": name} | figures))

    def open_pool(self, name: str) -> None:
        """Set the pool's slots and description as declared."""
        declared = declared_pools()[name]
        self.set_pool(name, declared["slots"], declared["description"])

    def create_missing_pools(self) -> list[str]:
        """Create the declared pools that do not exist; return their names. An existing pool is left as it is."""
        missing = [name for name in declared_pools() if self.pool(name) is None]
        for name in missing:
            self.open_pool(name)
        return missing

    def run_state(self, run: str) -> str | None:
        """Return the state of the run `dag_id/run_id`, None if there is no such run."""
        found = self._run(run)
        return found and found["state"]

    def run(self, name: str) -> Run:
        """Return the run `dag_id/run_id` with the states of its tasks. Its state is None if there is no such run."""
        found = self._run(name)
        if found is None:
            return Run(name, None)
        tasks = self._client.get(f"{_run_path(name)}/taskInstances", limit=100).data["task_instances"]
        states = {task["state"] for task in tasks}
        times = [found["queued_at"], found["start_date"]]
        times += [task[when] for task in tasks for when in ("scheduled_when", "queued_when", "start_date", "end_date")]
        return Run(
            name,
            found["state"],
            paused=self.is_paused(found["dag_id"]),
            asking="awaiting_input" in states,
            working=bool(states & WORKING),
            moved_at=max((datetime.fromisoformat(time) for time in times if time), default=None),
        )

    def try_number(self, run: str, task_id: str) -> int | None:
        """Return the number of the latest try of a task that is not mapped; None if there is no such run or task."""
        try:
            return self._client.get(f"{_run_path(run)}/taskInstances/{quote(task_id)}").data["try_number"]
        except NotFound:
            return None

    def is_paused(self, dag_id: str) -> bool:
        """Return whether the DAG is paused, False if there is no such DAG."""
        try:
            return self._client.get(f"/api/v2/dags/{quote(dag_id)}").data["is_paused"]
        except NotFound:
            return False

    def _run(self, name: str) -> Mapping | None:
        """Return what Airflow knows of the run `dag_id/run_id`; None if there is no run of that name."""
        if "/" not in name:
            return None
        try:
            return self._client.get(_run_path(name)).data
        except NotFound:
            return None


def closed_by(run: str, epoch: int) -> str:
    """Return the description of a pool that the run has closed. `Pool.closer` reads it."""
    return f"STOPPED by {run} (epoch {epoch})"


def _run_path(name: str) -> str:
    dag_id, _, run_id = name.partition("/")
    return f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


@contextmanager
def opened(**options: Any) -> Iterator[AirflowApi]:
    """Log in and yield the API. Raises FixConfiguration if the service user is refused. `options`: of ApiClient.

    A connection without a login has a token as its password, for an Airflow whose users have no passwords. One of type
    aws names an MWAA environment.
    """
    url, token = _log_in(BaseHook.get_connection(CONNECTION), **options)
    headers = {"Authorization": f"Bearer {token}"}
    with ApiClient(CONNECTION, url, headers=headers, **options) as client:
        yield AirflowApi(client)


def _log_in(connection: Connection, **options: Any) -> tuple[str, str]:
    """Return the API's base URL and a token."""
    if connection.conn_type == "aws":
        # Slow to import, and only needed here.
        from plugins.hooks import mwaa

        return mwaa.log_in(connection)
    url = base_url(connection)
    if not connection.login:
        return url, connection.password or ""
    login = {"username": connection.login, "password": connection.password}
    with ApiClient(CONNECTION, url, **options) as client:
        return url, client.send(Request("/auth/token", method="POST", body=login)).data["access_token"]
