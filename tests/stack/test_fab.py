"""The whole stack under FAB, the auth manager with users and roles in Airflow's database: what each role may do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import requests

from include.simulators.repairshopr import Control, Mutation
from stack.airflow import Airflow
from stack.control import Stack
from stack.postgres import Postgres
from stack.prepare import AIRFLOW_MIGRATION
from stack.settings import REPOSITORY, Home, Secrets
from tests.folders import quick_folder
from tests.running_platform import POOL, RECONCILE, SETTINGS, SOURCE, SYNC, wait_for_question

FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
ROLLBACK = "warehouse_rollback"
# The role of each user. `runbook` is the service user of the connection `airflow_api`.
ROLES = {"admin": "Admin", "oncall": "Sync On-call", "viewer": "Sync Viewer", "runbook": "Sync Service"}
NOBODY: set[str] = set()
ALL, DECIDERS, PEOPLE = set(ROLES), {"admin", "oncall"}, {"admin", "oncall", "viewer"}


# The commands that set FAB up import all of Airflow each, beside the stack's own start.
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Site:
    """The running stack, a user's way into it, and a hold that waits for an answer."""

    stack: Stack
    sessions: dict[str, Airflow]
    held: str
    sync_run: str

    def status(self, user: str | None, method: str, path: str, **kwargs: Any) -> int:
        """What the server answers the user (None: nobody)."""
        session = self.sessions[user]._session if user else requests.Session()
        return session.request(method, self.stack.api_url + path, timeout=60, **kwargs).status_code

    def allowed(self, method: str, path: str, **kwargs: Any) -> set[str]:
        """The users who are not refused. Nobody is let in without a login."""
        assert self.status(None, method, path, **kwargs) == 401
        statuses = {user: self.status(user, method, path, **kwargs) for user in ROLES}
        assert set(statuses.values()) <= {200, 201, 204, 403}, statuses
        return {user for user, status in statuses.items() if status != 403}

    def query(self, query: str) -> list[tuple]:
        with psycopg.connect(self.stack.warehouse_url) as conn:
            return conn.execute(query).fetchall()


def set_up(folder: Path, metadata: str, password: str) -> None:
    """What people do once: tables, roles, and the first user."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__AUTH_MANAGER": FAB,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata.replace("postgresql:", "postgresql+psycopg2:"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(REPOSITORY),
    }
    airflow = [sys.executable, "-m", "stack.command"]
    name = ["--firstname", "A", "--lastname", "B", "--email", "admin@example.com"]
    for command in (
        AIRFLOW_MIGRATION,
        [*airflow, "roles", "import", REPOSITORY / "deploy" / "fab-roles.json"],
        [*airflow, "users", "create", "--username", "admin", "--role", "Admin", "--password", password, *name],
    ):
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def create_user(admin: Airflow, name: str, password: str) -> None:
    user = {
        "username": name,
        "password": password,
        "email": f"{name}@example.com",
        "first_name": name,
        "last_name": "B",
        "roles": [{"name": ROLES[name]}],
    }
    created = admin._session.post(f"{admin.url}/auth/fab/v1/users", json=user, timeout=60)
    assert created.ok, created.text


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with quick_folder("fab") as folder, Postgres(folder / "postgres", settings={"fsync": "off"}) as server:
        for database in ("airflow", "warehouse"):
            server.create_database(database)
        passwords = Secrets.of(Home(folder / "stack")).passwords
        (folder / "commands").mkdir()
        set_up(folder / "commands", server.url("airflow"), passwords["admin"])
        settings = SETTINGS | {
            "STACK_POSTGRES_URL": server.url("postgres"),
            "SYNC_CONFIDENCE_SOURCES": SOURCE,
            "AIRFLOW__CORE__AUTH_MANAGER": FAB,
        }
        with Stack(folder / "stack", settings=settings) as stack:
            admin = Airflow(stack.api_url, "admin", passwords["admin"])
            for name in set(ROLES) - {"admin"}:
                create_user(admin, name, passwords[name])
            sessions = {name: Airflow(stack.api_url, name, passwords[name]) for name in ROLES}
            sync_run, state = admin.run(SYNC)
            assert state == "success"
            shop = Control(stack.simulator_urls[SOURCE])
            shop.mutate(*[Mutation("delete", "line_items", i, silent=True) for i in shop.ids("line_items")[-60:]])
            held = sessions["oncall"].trigger(RECONCILE)
            wait_for_question(stack, admin, RECONCILE, held)
            yield Site(stack, sessions, held, sync_run)


def test_matrix_of_rights(site: Site):
    sync, pools = f"/api/v2/dags/{SYNC}/dagRuns/{site.sync_run}", "/api/v2/pools"
    refused, _ = site.sessions["oncall"].run(ROLLBACK, sync_id=999, reason="a test")
    rollback = {"logical_date": None, "conf": {"sync_id": 999, "reason": "a test"}}
    same_pool = {"pool": "default_pool", "slots": 128, "include_deferred": False}
    clear = {"dry_run": True, "dag_run_id": site.sync_run, "task_ids": ["sync"]}
    allowed = {
        "read pages": site.allowed("GET", "/sync-confidence/"),
        "read a source": site.allowed("GET", f"/sync-confidence/sources/{SOURCE}"),
        "read endpoints": site.allowed("GET", "/sync-confidence/sync-status"),
        "read metrics": site.allowed("GET", "/sync-confidence/metrics"),
        "see the pages in Airflow's navigation": site.allowed("GET", "/api/v2/plugins"),
        "read runs": site.allowed("GET", sync),
        "read states of tasks": site.allowed("GET", f"{sync}/taskInstances"),
        "read logs": site.allowed("GET", f"{sync}/taskInstances/sync/logs/1"),
        "read results": site.allowed("GET", f"{sync}/taskInstances/sync/xcomEntries/return_value"),
        "read pools": site.allowed("GET", pools),
        "read questions": site.allowed("GET", f"/api/v2/dags/{RECONCILE}/dagRuns/{site.held}/hitlDetails"),
        "change pools": site.allowed("PATCH", f"{pools}/default_pool?update_mask=slots", json=same_pool),
        "pause": site.allowed("PATCH", f"/api/v2/dags/{SYNC}", json={"is_paused": False}),
        "clear": site.allowed("POST", f"/api/v2/dags/{SYNC}/clearTaskInstances", json=clear),
        "trigger a rollback": site.allowed("POST", f"/api/v2/dags/{ROLLBACK}/dagRuns", json=rollback),
        "delete runs": site.allowed("DELETE", f"/api/v2/dags/{ROLLBACK}/dagRuns/{refused}"),
        "read variables": site.allowed("GET", "/api/v2/variables"),
        "read connections": site.allowed("GET", "/api/v2/connections"),
        "read users": site.allowed("GET", "/auth/fab/v1/users"),
    }
    assert allowed == {
        "read pages": ALL,
        "read a source": ALL,
        "read endpoints": ALL,
        "read metrics": PEOPLE,
        "see the pages in Airflow's navigation": PEOPLE,
        "read runs": ALL,
        "read states of tasks": ALL,
        "read logs": PEOPLE,
        "read results": PEOPLE,
        "read pools": ALL,
        "read questions": PEOPLE,
        "change pools": {"admin", "runbook"},
        "pause": DECIDERS,
        "clear": DECIDERS,
        "trigger a rollback": DECIDERS,
        "delete runs": {"admin"},
        "read variables": {"admin"},
        "read connections": {"admin"},
        "read users": {"admin"},
    }


def test_service_user_creates_pools_and_deletes_none(site: Site):
    pool = {"name": f"pool_{uuid4().hex}", "slots": 1, "include_deferred": True}
    assert site.status("oncall", "POST", "/api/v2/pools", json=pool) == 403
    assert site.status("runbook", "POST", "/api/v2/pools", json=pool) == 201
    assert site.status("runbook", "DELETE", f"/api/v2/pools/{pool['name']}") == 403


def test_forms_are_for_those_who_may_use_them(site: Site):
    ((sync_id,),) = site.query("SELECT max(sync_id) FROM confidence.sync_log")
    page = f"/sync-confidence/sources/{SOURCE}/syncs/{sync_id}"
    pages = {user: airflow.page(page) for user, airflow in site.sessions.items()}
    assert {user for user, text in pages.items() if "data-trigger" in text} == DECIDERS
    assert "the permissions to trigger warehouse_rollback" in pages["viewer"]
    pages = {user: airflow.page(f"/sync-confidence/sources/{SOURCE}") for user, airflow in site.sessions.items()}
    assert {user for user, text in pages.items() if "data-answer" in text} == DECIDERS


def test_hold_is_answered_by_on_call_and_by_none_who_may_not(site: Site):
    path = f"/api/v2/dags/{RECONCILE}/dagRuns/{site.held}/taskInstances/decide/-1/hitlDetails"
    answer = {"chosen_options": ["Resume without repair"], "params_input": {}}
    assert {site.status(user, "PATCH", path, json=answer) for user in ("viewer", "runbook")} == {403}
    assert site.query("SELECT count(*) FROM confidence.forensic_run WHERE decision IS NOT NULL") == [(0,)]
    assert site.status("oncall", "PATCH", path, json=answer) == 200
    # Somebody else has answered: that is no lack of a right.
    assert site.status("admin", "PATCH", path, json=answer) == 409
    airflow = site.sessions["oncall"]
    assert airflow.wait(RECONCILE, site.held) == "success"
    assert site.query("SELECT DISTINCT decided_by FROM confidence.forensic_run WHERE decision IS NOT NULL") == [
        ("oncall",)
    ]
    # The service user has opened the pool again.
    assert airflow.slots(POOL) == 1
