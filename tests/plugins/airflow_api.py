"""Airflow's REST API on loopback, as far as tasks use it: a login, pools, runs with their tasks, whether DAGs pause."""

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.loopback import Loopback

# The slots of a pool in which no task is.
EMPTY = dict.fromkeys(("occupied_slots", "running_slots", "queued_slots", "scheduled_slots", "deferred_slots"), 0)


class AirflowServer(Loopback):
    """Pools and runs as Airflow would show them; `calls` are the changes that were asked for.

    `runs`: the state of each run, `tasks` by run what its tasks say of themselves, `paused` DAGs. While it is `down`
    every request but the login is refused.
    """

    user, password, token = "runbook", "s3cret-password", "s3cret-token"

    def __init__(self, pools: Mapping[str, Mapping[str, Any]]):
        self.pools = {name: {"name": name} | EMPTY | dict(pool) for name, pool in pools.items()}
        self.runs: dict[str, str] = {}
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        self.paused: set[str] = set()
        self.down = False
        self.calls: list[tuple[str, dict[str, list[str]], Any]] = []
        super().__init__(self._handler())
        self.url = f"http://{self.address}"

    def answer(self, method: str, target: str, token: str | None, body: Any) -> tuple[int, Any]:
        """Status and JSON for a request."""
        url = urlsplit(target)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if (method, parts) == ("POST", ["auth", "token"]):
            known = body == {"username": self.user, "password": self.password}
            return (201, {"access_token": self.token}) if known else (401, {"detail": "Invalid credentials"})
        if token != f"Bearer {self.token}":
            return 401, {"detail": "Unauthorized"}
        if self.down:
            return 403, {"detail": "Forbidden"}
        match method, parts:
            case "GET", ["api", "v2", "pools", name] if name in self.pools:
                return 200, self.pools[name]
            case "PATCH", ["api", "v2", "pools", name] if name in self.pools:
                return self._patch(name, parse_qs(url.query), body)
            case "POST", ["api", "v2", "pools"] if body["name"] not in self.pools:
                self.pools[body["name"]] = EMPTY | body
                return 201, self.pools[body["name"]]
            case "GET", ["api", "v2", "dags", dag]:
                return 200, {"dag_id": dag, "is_paused": dag in self.paused}
            case "GET", ["api", "v2", "dags", dag, "dagRuns", run] if f"{dag}/{run}" in self.runs:
                times = {"queued_at": "2026-03-01T03:00:00Z", "start_date": None}
                return 200, {"dag_id": dag, "dag_run_id": run, "state": self.runs[f"{dag}/{run}"]} | times
            case "GET", ["api", "v2", "dags", dag, "dagRuns", run, "taskInstances"]:
                times = dict.fromkeys(("scheduled_when", "queued_when", "start_date", "end_date"))
                return 200, {"task_instances": [times | task for task in self.tasks.get(f"{dag}/{run}", [])]}
            case "GET", ["api", "v2", "dags", dag, "dagRuns", run, "taskInstances", task]:
                found = [each for each in self.tasks.get(f"{dag}/{run}", []) if each.get("task_id") == task]
                return (200, found[0]) if found else (404, {"detail": "Not found"})
        return 404, {"detail": "Not found"}

    def _patch(self, name: str, query: dict[str, list[str]], body: dict) -> tuple[int, Any]:
        # As the real one: both are wanted in the body, whatever the mask says.
        if "include_deferred" not in body or body.get("pool", body.get("name")) != name:
            return 422, {"detail": "Field required"}
        self.calls.append((name, query, body))
        mask = query.get("update_mask", list(body))
        self.pools[name] |= {field: value for field, value in body.items() if field in mask}
        return 200, self.pools[name]

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Without this a header and its body wait for each other's acknowledgement, 40 ms an answer.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                sent = json.loads(body) if body else None
                status, data = server.answer(self.command, self.path, self.headers.get("Authorization"), sent)
                content = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_PATCH = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler
