"""The pages behind Airflow's own login and permissions, on a real warehouse."""

from urllib.parse import quote

import pytest

from tests.plugins import test_pages_api as endpoints
from tests.plugins.test_pages_api import RUN_ID, RUNBOOK, SOURCE, USERS

# One stage for both: Airflow's login and database, and a warehouse with a few nights of one source.
airflow_app, filled, site, denied = endpoints.airflow_app, endpoints.filled, endpoints.site, endpoints.denied

OF_SOURCE = [
    f"/sources/{SOURCE}",
    f"/sources/{SOURCE}/syncs/1",
    f"/dags/{RUNBOOK}",
    f"/dags/{RUNBOOK}/runs/{quote(RUN_ID, safe='')}",
]
PAGES = ["/", "/months", "/months.csv", *OF_SOURCE]


@pytest.mark.parametrize("path", [*PAGES, "/static/pages.css"])
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
        ("/dags/warehouse_rollback", {}, 200),
        ("/dags/warehouse_rollback/runs/1", {}, 200),
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
