"""When the stack counts as ready: every component healthy, every DAG file read without an error."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import requests

from stack.guardian import StackError

COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
TIMEOUT_SECONDS = 5.0


class ReadinessCheck:
    """Airflow's REST API as the admin sees it."""

    def __init__(self, url: str, password: str):
        self._url = url
        self._login = {"username": "admin", "password": password}
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between us and ourselves

    def missing(self, dags: Path, since: datetime, without: Collection[str] = ()) -> str | None:
        """Return what the stack still waits for; None when it is ready.

        `dags`: the folder of DAG files, each of which has to be read after `since`. `without`: the names of files that
        make no DAG, since their source is left out. Raises `StackError` when a file can't be imported.
        """
        try:
            health = self._get("/api/v2/monitor/health")
            unhealthy = [name for name in COMPONENTS if (health.get(name) or {}).get("status") != "healthy"]
            if unhealthy:
                return ", ".join(unhealthy)
            self._log_in()
            self._refuse_import_errors(since)
            unread = _dag_files(dags).difference(without, self._read_files(since))
        except requests.RequestException:
            return "api-server"
        return ", ".join(sorted(unread)) or None

    def _log_in(self) -> None:
        if "Authorization" not in self._session.headers:
            answer = self._session.post(f"{self._url}/auth/token", json=self._login, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _refuse_import_errors(self, since: datetime) -> None:
        for error in self._get("/api/v2/importErrors?limit=100")["import_errors"]:
            if datetime.fromisoformat(error["timestamp"]) >= since:
                reason = error["stack_trace"].strip().splitlines()[-1]
                raise StackError(f"DAG file {error['filename']} can't be imported: {reason}")

    def _read_files(self, since: datetime) -> set[str]:
        found = self._get("/api/v2/dags?limit=100")["dags"]
        return {dag["relative_fileloc"] for dag in found if _is_after(dag["last_parsed_time"], since)}

    def _get(self, path: str) -> dict:
        answer = self._session.get(self._url + path, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer.json()


def _is_after(moment: str | None, since: datetime) -> bool:
    return moment is not None and datetime.fromisoformat(moment) >= since


def _dag_files(folder: Path) -> set[str]:
    """Return the files in which Airflow looks for DAGs: those that contain both words."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if all(word in path.read_text().lower() for word in ("dag", "airflow"))
    }
