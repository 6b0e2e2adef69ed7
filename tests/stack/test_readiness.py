from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from stack.guardian import StackError
from stack.readiness import COMPONENTS, ReadinessCheck

SINCE = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE, AFTER = "2026-01-01T11:59:59Z", "2026-01-01T12:00:01Z"


class Answering(ReadinessCheck):
    """An Airflow that gives prepared answers."""

    def __init__(self, read: str = AFTER, errors: tuple[dict, ...] = (), unhealthy: str = "none"):
        super().__init__("http://nowhere", "password")
        health = {name: {"status": "unhealthy" if name == unhealthy else "healthy"} for name in COMPONENTS}
        self._answers = {
            "/api/v2/monitor/health": health,
            "/api/v2/importErrors": {"import_errors": list(errors)},
            "/api/v2/dags": {"dags": [{"relative_fileloc": "one.py", "last_parsed_time": read}]},
        }

    def _log_in(self) -> None:
        pass

    def _get(self, path: str) -> dict:
        return self._answers[path.partition("?")[0]]


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    (tmp_path / "one.py").write_text("from airflow.sdk import dag")
    (tmp_path / "helper.py").write_text("# has neither word")
    return tmp_path


def import_error(moment: str) -> dict:
    return {"timestamp": moment, "filename": "one.py", "stack_trace": "Traceback:\nKeyError: 'which'\n"}


def test_ready_when_everything_is_healthy_and_read(dags: Path):
    assert Answering().missing(dags, SINCE) is None


def test_waits_for_no_file_of_a_source_that_is_left_out(dags: Path):
    (dags / "two_sync.py").write_text("from airflow.sdk import dag")
    assert Answering().missing(dags, SINCE) == "two_sync.py"
    assert Answering().missing(dags, SINCE, {"two_sync.py", "two_reconcile.py"}) is None


@pytest.mark.parametrize("component", COMPONENTS)
def test_waits_for_each_component(dags: Path, component: str):
    assert Answering(unhealthy=component).missing(dags, SINCE) == component


def test_waits_for_a_file_that_was_read_by_an_earlier_start_only(dags: Path):
    assert Answering(read=BEFORE).missing(dags, SINCE) == "one.py"


def test_an_import_error_is_told(dags: Path):
    with pytest.raises(StackError, match=r"DAG file one\.py can't be imported: KeyError: 'which'"):
        Answering(errors=(import_error(AFTER),)).missing(dags, SINCE)


def test_an_import_error_of_an_earlier_start_is_not(dags: Path):
    assert Answering(errors=(import_error(BEFORE),)).missing(dags, SINCE) is None


def test_waits_for_an_api_server_that_does_not_answer(dags: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> dict:
        raise requests.ConnectionError

    monkeypatch.setattr(Answering, "_get", refuse)
    assert Answering().missing(dags, SINCE) == "api-server"
