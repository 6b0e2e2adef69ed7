"""What a person does in Airflow's UI, over its REST API."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import requests

from stack.guardian import StackError

ENDED = ("success", "failed")


class Airflow:
    """A logged-in user of a running Airflow. What it refuses, or takes too long for, raises StackError."""

    def __init__(self, url: str, user: str, password: str):
        self.url = url
        self._session = requests.Session()
        answer = self._session.post(f"{url}/auth/token", json={"username": user, "password": password}, timeout=60)
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        answer = self._session.request(method, f"{self.url}/api/v2{path}", timeout=60, **kwargs)
        if not answer.ok:
            raise StackError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def page(self, path: str) -> str:
        """Return the HTML of a page that a plugin adds."""
        answer = self._session.get(f"{self.url}{path}", timeout=60)
        if not answer.ok:
            raise StackError(f"GET {path}: {answer.status_code} {answer.text[:500]}")
        return answer.text

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run; returns its id."""
        # As the form in the UI does it.
        body = {"logical_date": datetime.now(UTC).isoformat(), "conf": conf}
        return self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"]

    def runs(self, dag_id: str) -> list[str]:
        """Return the ids of the DAG's newest runs, the newest first."""
        found = self.call("GET", f"/dags/{dag_id}/dagRuns?order_by=-run_after&limit=100")["dag_runs"]
        return [run["dag_run_id"] for run in found]

    def state(self, dag_id: str, run_id: str) -> str:
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"]

    def wait(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait for the run's end and return its state."""
        until(lambda: self.state(dag_id, run_id) in ENDED, f"{dag_id} {run_id} to end", timeout)
        return self.state(dag_id, run_id)

    def run(self, dag_id: str, timeout: float = 120, **conf: Any) -> tuple[str, str]:
        """Start a run and wait for its end; returns (run id, state)."""
        run_id = self.trigger(dag_id, **conf)
        return run_id, self.wait(dag_id, run_id, timeout)

    def tasks(self, dag_id: str, run_id: str) -> Mapping[str, str]:
        """Return the state of each task; mapped ones as `task[index]`."""
        found = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")["task_instances"]
        return {
            t["task_id"] + (f"[{t['map_index']}]" if t["map_index"] >= 0 else ""): t["state"] or "none" for t in found
        }

    def wait_for(self, dag_id: str, run_id: str, task: str, *states: str, timeout: float = 60) -> None:
        """Wait until the task has one of the states."""
        until(
            lambda: self.tasks(dag_id, run_id).get(task) in states,
            f"{dag_id} {run_id} {task} to be {' or '.join(states)}",
            timeout,
        )

    def clear(self, dag_id: str, run_id: str, *tasks: str, downstream: bool = True, only_failed: bool = False) -> None:
        """Clear tasks of a run as the UI does; all of them when none is named."""
        body = {"dry_run": False, "dag_run_id": run_id, "include_downstream": downstream, "only_failed": only_failed}
        if tasks:
            body["task_ids"] = list(tasks)
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def clear_mapped(self, dag_id: str, run_id: str, task: str, map_index: int) -> None:
        """Clear one instance of a mapped task with downstream."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "include_downstream": True,
            "only_failed": False,
            "task_ids": [[task, map_index]],
        }
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def mark(self, dag_id: str, run_id: str, task: str, state: str) -> None:
        """Mark a task as failed or successful by hand."""
        self.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}", json={"new_state": state})

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a whole run as failed or successful by hand."""
        self.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": state})

    def pause(self, dag_id: str, *, paused: bool = True) -> None:
        """Pause a DAG, or let it go on."""
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def answer(self, dag_id: str, run_id: str, option: str, task: str = "decide") -> None:
        """Answer the open question of a run."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}/-1/hitlDetails"
        self.call("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def xcom(self, dag_id: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/{key}"
        return self.call("GET", path, params={"map_index": map_index, "deserialize": True})["value"]

    def log(self, dag_id: str, run_id: str, task: str, attempt: int = 1, map_index: int = -1) -> str:
        """Return the text of a task's log."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}/logs/{attempt}"
        content = self.call("GET", path, params={"map_index": map_index, "full_content": True})["content"]
        return "\n".join(str(line.get("event", "")) + str(line.get("error_detail", "")) for line in content)

    def last_log(self, dag_id: str, run_id: str, task: str, map_index: int = -1) -> str:
        """Return the text of the log of a task's last attempt."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}" + (f"/{map_index}" if map_index >= 0 else "")
        return self.log(dag_id, run_id, task, self.call("GET", path)["try_number"], map_index)

    def slots(self, pool: str) -> int:
        return self.call("GET", f"/pools/{pool}")["slots"]

    def set_slots(self, pool: str, slots: int) -> None:
        body = {"pool": pool, "slots": slots, "include_deferred": True}
        self.call("PATCH", f"/pools/{pool}", params={"update_mask": "slots"}, json=body)

    def set_variable(self, key: str, value: str) -> None:
        self.delete_variable(key)
        self.call("POST", "/variables", json={"key": key, "value": value})

    def delete_variable(self, key: str) -> None:
        self._session.delete(f"{self.url}/api/v2/variables/{key}", timeout=60)


def until(condition: Callable[[], bool], what: str, timeout: float) -> None:
    """Wait for the condition. Raises StackError naming what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"waited {timeout:.0f} s for {what}")
        time.sleep(0.3)
