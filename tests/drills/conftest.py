"""What the drills are played with: the accounts of all sources, and the runbook's tasks without a scheduler."""

from collections.abc import Iterator

import pytest

from include.sources.mirror.sync import sync_entities
from tests.contract.conftest import account, filled, first_sync, run, synced_before, warehouse
from tests.notifications import Service
from tests.plugins.conftest import airflow, asked, connected, control, opened, people

__all__ = [
    "account",
    "airflow",
    "asked",
    "connected",
    "control",
    "filled",
    "first_sync",
    "opened",
    "people",
    "run",
    "synced_before",
    "warehouse",
]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service that people are told by, and the connection to it."""
    with Service() as running:
        monkeypatch.setenv("AIRFLOW_CONN_NOTIFICATIONS", running.connection)
        yield running


@pytest.fixture
def synced(control, opened):
    """The hand on a small account whose copy is complete."""
    with opened() as context:
        sync_entities(context)
    return control
