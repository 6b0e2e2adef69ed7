"""Airflow's own REST API, as the service user of the connection `airflow_api`: pools, and the state of other runs."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from airflow.sdk import BaseHook

from include.api.client import ApiClient, Request
from include.api.errors import NotFound
from plugins.hooks.source import base_url

CONNECTION = "airflow_api"
POOLS = Path(__file__).resolve().parents[1] / "pools.json"


@dataclass(frozen=True)
class Pool:
    """A pool as it is now. `occupied` counts queued, running and deferred slots."""

    slots: int
    occupied: int
    description: str


class AirflowApi:
    """The few calls that a runbook needs."""

    def __init__(self, client: ApiClient):
        self._client = client

    def pool(self, name: str) -> Pool:
        """Return the pool. Raises NotFound."""
        data = self._client.get(f"/api/v2/pools/{quote(name)}").data
        return Pool(data["slots"], data["occupied_slots"], data["description"] or "")

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Set slots and description; deferred tasks count."""
        # The API wants name and include_deferred in the body even where the mask leaves them out.
        body = {"pool": name, "slots": slots, "include_deferred": True, "description": description}
        params = {"update_mask": ["slots", "description", "include_deferred"]}
        self._client.send(Request(f"/api/v2/pools/{quote(name)}", params, "PATCH", body))

    def open_pool(self, name: str) -> None:
        """Give the pool its slots and description as declared in pools.json."""
        declared = declared_pools()[name]
        self.set_pool(name, declared["slots"], declared["description"])

    def run_state(self, run: str) -> str | None:
        """Return the state of the run `dag_id/run_id`; None if there is no such run any more."""
        dag_id, _, run_id = run.partition("/")
        try:
            return self._client.get(f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}").data["state"]
        except NotFound:
            return None


def declared_pools() -> Mapping[str, Mapping]:
    """The pools as they should be while nothing is stopped."""
    return json.loads(POOLS.read_text())


@contextmanager
def opened() -> Iterator[AirflowApi]:
    """Log in and yield the API. Raises FixConfiguration where the service user is refused."""
    connection = BaseHook.get_connection(CONNECTION)
    login = {"username": connection.login, "password": connection.password}
    with ApiClient(CONNECTION, base_url(connection)) as client:
        token = client.send(Request("/auth/token", method="POST", body=login)).data["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    with ApiClient(CONNECTION, base_url(connection), headers=headers) as client:
        yield AirflowApi(client)
