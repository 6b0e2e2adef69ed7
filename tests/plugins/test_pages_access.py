"""The pages behind Airflow's own login and permissions, on a real warehouse."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import pytest
from airflow.models import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import insert

from tests.plugins import test_pages_api as endpoints
from tests.plugins.test_pages_api import ROW, RUN_ID, RUNBOOK, SOURCE, USERS, waits_for_an_answer

# One stage for both: Airflow's login and database, and a warehouse with a few nights of one source.
airflow_app, filled, site, denied = endpoints.airflow_app, endpoints.filled, endpoints.site, endpoints.denied
airflow_rows = endpoints.airflow_rows

OF_SOURCE = [
    f"/sources/{SOURCE}",
    f"/sources/{SOURCE}/syncs/1",
    f"/sources/{SOURCE}/rows?{ROW}",
    f"/sources/{SOURCE}/rows/changes.csv?{ROW}",
    f"/dags/{RUNBOOK}",
    f"/dags/{RUNBOOK}/runs/{quote(RUN_ID, safe='')}",
]
PAGES = ["/", "/months", "/months.csv", *OF_SOURCE]


def test_page_that_offers_the_login_looks_like_the_others(site):
    assert site.get("/static/pages.css", user=None).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_for_those_who_are_logged_in(site, path):
    assert site.get(path, user=None).status_code == 401
    assert {user: site.get(path, user).status_code for user in USERS} == dict.fromkeys(USERS, 200)


@pytest.mark.parametrize("path", OF_SOURCE)
def test_pages_of_a_source_are_for_those_who_may_read_its_runs(site, denied, path):
    denied(RUNBOOK)
    assert site.get(path).status_code == 403


def test_overview_leaves_out_what_is_not_for_the_user(site, denied):
    assert 'data-label="Writer"' in site.get("/").text
    assert f"/sources/{SOURCE}" in site.get("/").text
    denied(RUNBOOK)
    assert f"/sources/{SOURCE}" not in site.get("/").text


def test_months_leave_out_what_is_not_for_the_user(site, denied):
    assert f"/sources/{SOURCE}" in site.get("/months").text
    denied(RUNBOOK)
    assert SOURCE not in site.get("/months").text
    assert SOURCE not in site.get("/months.csv").text


@pytest.mark.parametrize("path", [f"/dags/{SOURCE}_sync", f"/dags/{SOURCE}_sync/runs/1"])
def test_right_to_another_dag_is_not_the_right_to_its_source(site, denied, path):
    assert site.get(path).status_code == 200
    denied(RUNBOOK)
    assert site.get(path).status_code == 403


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_changed_by_a_page(site, method, path):
    headers = {"Authorization": f"Bearer {site.token('admin')}"}
    assert getattr(site.client, method)(f"/sync-confidence{path}", headers=headers).status_code == 405


@pytest.mark.parametrize(
    ("path", "asked", "code"),
    [
        ("/sources/nothing", {}, 404),
        (f"/sources/{SOURCE}/syncs/999", {}, 404),
        (f"/sources/{SOURCE}/syncs/none", {}, 422),
        (f"/sources/{SOURCE}", {"syncs": "none"}, 422),
        (f"/sources/{SOURCE}/rows", {}, 422),
        (f"/sources/{SOURCE}/rows", {"table": "repairshopr.customers", "key": "7"}, 422),
        (f"/sources/{SOURCE}/rows", {"table": "repairshopr.customers", "key": '{"id": 999}'}, 404),
        (f"/sources/{SOURCE}/rows", {"table": "repairshopr.customers", "key": '{"id": 7}', "cursor": "none"}, 422),
        ("/dags/warehouse_rollback", {}, 200),
        ("/dags/warehouse_rollback/runs/1", {}, 404),
        (f"/sources/{SOURCE}", {"entity": "nothing"}, 200),
    ],
)
def test_address_that_leads_nowhere_is_a_page_too(site, path, asked, code):
    answer = site.get(path, **asked)
    assert answer.status_code == code
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<h1>" in answer.text


def test_source_page_says_what_the_warehouse_has(site):
    text = site.get(f"/sources/{SOURCE}").text
    for what in ("far too many", "confirmed_missing", "the vendor is down", "missing_examples", "6 to insert"):
        assert what in text


AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
ROLLBACK = f"/sources/{SOURCE}/syncs/1/rollbacks/{quote(RUN_ID, safe='')}"
TAB = f"/dags/warehouse_rollback/runs/{quote(RUN_ID, safe='')}"
# What the task of a dry run leaves.
COUNTED = {
    "sync_id": None,
    "tables": {"repairshopr.customers": {"updated": 4321}},
    "conflicts": [{"rows": 9, "what": "of repairshopr.customers by hand", "examples": ["5", "6"], "later": []}],
}


@pytest.fixture
def rollback(airflow_rows) -> Iterator[Any]:
    """Leave a run of warehouse_rollback in Airflow's database, as a state and the XComs of its task."""

    def leave(state: str, conf: dict[str, Any] | None = None, **xcoms: Any) -> None:
        conf = {"sync_id": 1, "dry_run": True} if conf is None else conf
        run = {"dag_id": "warehouse_rollback", "run_id": RUN_ID, "run_type": "manual", "run_after": AT}
        airflow_rows.execute(
            insert(DagRun.__table__).values(**run, state=state, conf=conf, queued_at=AT, triggering_user_name="op")
        )
        task = {"dag_id": "warehouse_rollback", "run_id": RUN_ID, "task_id": "rollback", "map_index": -1}
        airflow_rows.execute(insert(TaskInstance.__table__).values(**task, id=uuid4(), pool="p", pool_slots=1))
        (number,) = airflow_rows.query(DagRun.id).one()
        for key, value in xcoms.items():
            airflow_rows.execute(insert(XComModel.__table__).values(**task, dag_run_id=number, key=key, value=value))
        airflow_rows.commit()

    yield leave
    airflow_rows.execute(XComModel.__table__.delete())


@pytest.mark.parametrize("path", [ROLLBACK, TAB])
def test_rollback_is_read_from_airflows_database(site, rollback, path):
    rollback("success", return_value=COUNTED)
    text = site.get(path, "op").text
    for what in ("4,321", "9 of repairshopr.customers by hand", "7 more", "by op", "data-trigger"):
        assert what in text


@pytest.mark.parametrize(
    ("state", "xcoms", "told"),
    [
        ("queued", {}, "waits for its start"),
        ("running", {"failure": {"error": "X", "message": "of an earlier try", "subject": ""}}, "It counts"),
        ("failed", {"failure": {"error": "FenceError", "message": "held by a run", "subject": ""}}, "Held by a run"),
        ("failed", {}, "nobody could record why"),
        ("success", {}, "ended without counts"),
        # As an earlier version left it.
        ("success", {"return_value": COUNTED | {"conflicts": ["9 of them"]}}, "ended without counts"),
    ],
)
def test_each_state_of_a_rollback(site, rollback, state, xcoms, told):
    rollback(state, **xcoms)
    assert told in site.get(ROLLBACK).text


@pytest.mark.parametrize("path", [ROLLBACK, TAB])
def test_rollback_is_for_those_who_may_read_the_sources_runs(site, rollback, denied, path):
    rollback("success", return_value=COUNTED)
    assert site.get(path, None).status_code == 401
    assert {user: site.get(path, user).status_code for user in USERS} == dict.fromkeys(USERS, 200)
    denied(RUNBOOK)
    assert site.get(path).status_code == 403


def test_rollback_of_another_sync_or_of_none_is_not_there(site, rollback):
    assert site.get(ROLLBACK).status_code == 404
    rollback("success", {"sync_id": 2})
    assert site.get(ROLLBACK).status_code == 404


def test_run_that_names_no_sync_is_no_rollback(site, rollback):
    rollback("failed", {"sync_id": "one"})
    assert "Nothing in the warehouse" in site.get(TAB).text


def test_forms_are_for_those_who_may_decide(site, rollback):
    rollback("success", return_value=COUNTED)
    for path in (f"/sources/{SOURCE}/syncs/1", ROLLBACK, TAB):
        offered = {user: "data-trigger" in site.get(path, user).text for user in USERS}
        assert offered == {"viewer": False, "user": False, "op": True, "admin": True}
        assert "that takes the role op or admin" in site.get(path, "user").text


def test_forms_are_not_for_those_whom_airflow_would_refuse(site, denied):
    path = f"/sources/{SOURCE}/syncs/1"
    assert "data-trigger" in site.get(path, "op").text
    denied("warehouse_rollback")
    assert "data-trigger" not in site.get(path, "op").text


ASKING = f"/dags/{RUNBOOK}/runs/{quote(RUN_ID, safe='')}"
OPTIONS = ["Keep stopped", "Repair, then resume"]
MAY = [{"id": user, "name": user} for user in ("op", "admin")]


@pytest.fixture
def question(airflow_rows) -> Any:
    """The open question of the run, which Airflow lets `op` and `admin` answer; a function that reads it."""
    asked = {"options": OPTIONS, "defaults": OPTIONS[:1], "assignees": MAY, "body": "What now?", "multiple": False}
    waits_for_an_answer(airflow_rows, None, **asked)

    def read() -> Any:
        airflow_rows.expire_all()
        return airflow_rows.query(HITLDetail).one()

    return read


def answer(site, user: str, address: str, **more: Any) -> Any:
    """Send what the form sends."""
    body = {"chosen_options": OPTIONS[1:], "params_input": {"reason": "as seen", "leave_out": ["customers"]}}
    headers = {"Authorization": f"Bearer {site.token(user)}"} if user else {}
    return site.client.patch(address, json=body, headers=headers | more)


def test_question_is_answered_where_its_form_says_by_those_who_are_offered_it(site, question):
    forms = {user: re.search('data-answer="([^"]+)"', site.get(ASKING, user).text) for user in USERS}
    assert {user for user, form in forms.items() if form} == {"op", "admin"}
    address = unescape(forms["op"][1])
    assert f'data-attempt="{question().ti_id}"' in site.get(ASKING, "op").text
    refused = {user: answer(site, user, address).status_code for user in ("viewer", "user", "")}
    assert refused == {"viewer": 403, "user": 403, "": 401}
    assert question().responded_at is None
    assert answer(site, "op", address).status_code == 200
    assert question().params_input == {"reason": "as seen", "leave_out": ["customers"]}
    # Who comes second is refused, and reads who was first.
    assert answer(site, "admin", address).status_code == 409
    text = site.get(ASKING, "admin").text
    assert "data-answer" not in text
    assert "Answered by op" in text
    assert "without customers. Reason: as seen" in text


def test_a_page_of_another_origin_can_neither_answer_nor_frame_the_form(site, question):
    """Browsers ask first whether another origin may send this; and such a page may not show ours inside it."""
    address = unescape(re.search('data-answer="([^"]+)"', site.get(ASKING, "op").text)[1])
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PATCH"}
    allowed = site.client.options(address, headers=asks)
    assert (allowed.status_code, "access-control-allow-origin" in allowed.headers) == (405, False)
    page = site.get(ASKING, "op")
    for rule in ("form-action 'self'", "frame-ancestors 'self'", "default-src 'self'"):
        assert rule in page.headers["Content-Security-Policy"]
    # What a form without a script could send changes nothing.
    headers = {"Authorization": f"Bearer {site.token('op')}", "Origin": "https://evil.example"}
    assert (
        site.client.post(f"/sync-confidence{ASKING}", data={"option": OPTIONS[1]}, headers=headers).status_code == 405
    )
    assert site.client.post(address, data={"chosen_options": OPTIONS[1]}, headers=headers).status_code == 405
    assert question().responded_at is None


def test_question_of_a_task_that_was_marked_by_hand_is_not_shown(site, airflow_rows):
    waits_for_an_answer(airflow_rows, None, state="success", options=OPTIONS, body="What now?")
    assert "What now?" not in site.get(ASKING, "op").text


def test_who_is_not_logged_in_comes_back_after_the_login(site):
    link = re.search('href="([^"]*login[^"]*)"', site.get(f"{ASKING}?a=b", None).text)[1]
    address = parse_qs(urlsplit(unescape(link)).query)["next"]
    assert address == [f"/sync-confidence{ASKING}?a=b"]


def test_plan_says_how_it_was_repaired(site):
    text = " ".join(re.sub("<[^>]+>", "", site.get(f"/sources/{SOURCE}/plans/e6").text).split())
    assert "planned to change in the copy: 6 to insert, 1 to update" in text
    assert re.search(r"Repaired by sync 2, \S+ \S+ UTC: 6 inserted, 0 updated, 0 deleted\.", text)
