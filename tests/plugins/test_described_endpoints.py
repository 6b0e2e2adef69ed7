"""The endpoints do what their OpenAPI document says, whatever is asked and whoever asks.

ENDPOINT_CASES sets how many requests of each endpoint are generated; `make fuzz ENDPOINTS=1` generates more.
"""

import json
import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from include.sources import REGISTRY
from plugins.pages import api, html
from plugins.pages.app import create_app
from plugins.sync_confidence import PREFIX
from tests.plugins import test_pages_api as endpoints
from tests.plugins.test_pages_api import RUN_ID, RUNBOOK, SOURCE, USERS, Site

airflow_app, filled, site = endpoints.airflow_app, endpoints.filled, endpoints.site

# Generated requests of each endpoint. The same ones come in each run, unless it is asked for more than the default.
CASES = int(os.environ.get("ENDPOINT_CASES", "20"))
SAME = "ENDPOINT_CASES" not in os.environ
OTHER = next(source for source in REGISTRY if source != SOURCE)
# A role beside Airflow's own, which may read the runs of one source only.
OF_ONE = "of one source"
READABLE = (f"{SOURCE}_sync", RUNBOOK)
ROLES = (None, *USERS, OF_ONE)
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
# What there is, so that not every generated request ends with a 404; and what is hidden from OF_ONE.
KNOWN = {"source": SOURCE, "evidence": "e6", "sync_id": 1, "dag_id": RUNBOOK, "run_id": quote(RUN_ID, safe="")}
HIDDEN = KNOWN | {"source": OTHER, "dag_id": f"{OTHER}_reconcile"}
ROW = {"table": "repairshopr.customers", "key": '{"id": 7}'}


def described() -> dict[str, Any]:
    """Return the endpoints' operations by path, without logins: those are not generated."""
    document = create_app().openapi()
    for path in document["paths"].values():
        del path["get"]["security"]
    found = [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]
    return {operation.path: operation for operation in found}


OPERATIONS = described()


def cases(operation: Any) -> st.SearchStrategy:
    """Generate requests, valid or not, for what there is, for what is hidden from some, and for anything."""
    names = {parameter.name for parameter in operation.path_parameters}
    asked = {parameter.name for parameter in operation.query}
    paths = [{name: value for name, value in known.items() if name in names} for known in (KNOWN, HIDDEN, {})]
    queries = [None, ROW] if ROW.keys() <= asked else [None]
    found = st.one_of(
        operation.as_strategy(generation_mode=mode, path_parameters=path or None, query=query)
        for mode in GenerationMode
        for path in paths
        for query in queries
    )
    # Airflow's router takes no line break in a path: such a request doesn't come to the app.
    return found.filter(lambda case: "%0A" not in str(case.path_parameters))


class Asking:
    """The site as each role asks it."""

    def __init__(self, site: Site):
        self._site = site
        self.role: str | None = None

    def get(self, url: str, role: str | None, params: Any = None) -> Any:
        self.role = role
        user = "viewer" if role == OF_ONE else role
        headers = {"Authorization": f"Bearer {self._site.token(user)}"} if user else {}
        return self._site.client.get(PREFIX + url, params=params, headers=headers)


@pytest.fixture(scope="module")
def asking(site: Site) -> Iterator[Asking]:
    found = Asking(site)
    allowed = SimpleAuthManager.is_authorized_dag

    def is_authorized(self: Any, *, method: str, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        if found.role == OF_ONE and (details is None or details.id not in READABLE):
            return False
        return allowed(self, method=method, user=user, access_entity=access_entity, details=details)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimpleAuthManager, "is_authorized_dag", is_authorized)
        yield found


def is_clear(answer: Any) -> bool:
    """Return whether a refusal says what is wrong: in one line, or on a page."""
    if answer.headers["Content-Type"].startswith("text/html"):
        return "<h1>" in answer.text
    (line,) = answer.json().values()
    return 0 < len(line) < 1000 and line.isprintable()


@pytest.mark.parametrize("path", OPERATIONS)
def test_each_role_gets_what_is_documented(asking, path):
    @settings(max_examples=CASES, deadline=None, database=None, derandomize=SAME, suppress_health_check=HealthCheck)
    @given(case=cases(OPERATIONS[path]))
    def ask(case: Any) -> None:
        asked = case.as_transport_kwargs(base_url="")
        answers = {role: asking.get(asked["url"], role, asked["params"]) for role in ROLES}
        for answer in answers.values():
            case.validate_response(answer, checks=CHECKS)
            assert answer.status_code in (200, 401, 403, 404, 422) or path == "/readiness"
            assert answer.status_code in (200, 503) or is_clear(answer)
        got = {role: answer.status_code for role, answer in answers.items()}
        everyone = {got[user] for user in USERS}
        assert got[None] == 401, asked
        assert len(everyone) == 1
        assert everyone.isdisjoint({401, 403})
        named = case.path_parameters
        hidden = named.get("source") == OTHER or ("dag_id" in named and named["dag_id"] not in READABLE)
        if path != "/readiness":
            # Unknown parameters are refused before anything is looked up.
            assert got[OF_ONE] == (403 if hidden and got[OF_ONE] != 422 else got["viewer"])

    ask()


def test_names_of_parameters_are_told_in_one_line(asking):
    answer = asking.get("/sync-status?a%0Ab%E2%80%AE=1", "viewer")
    assert answer.status_code == 422
    assert is_clear(answer)


@pytest.mark.parametrize("since", ["2026", "1772000000", "1e9", "2026-03-01", "yesterday"])
def test_time_is_not_guessed(asking, since):
    answer = asking.get(f"/sync-status/{SOURCE}/runs?since={since}", "viewer")
    assert answer.status_code == 422
    assert is_clear(answer)


def cursor(*place: Any) -> str:
    return urlsafe_b64encode(json.dumps(place).encode()).decode()


# What nobody asks by intention, as it stands in an address. Half a surrogate pair, and what is no UTF-8 at all, too.
ODD = ["", "%00", "a%00b", "%ED%A0%80", "%FF", "a%0Ab"]
ODD += map(
    quote,
    ["0", "-1", "1e400", "NaN", "null", str(2**63), "9" * 5000, "\u202e'; --%s{}", "x" * 10_000, "~", "[]", "{}"],
)
# By the name of a parameter, what is odd there alone.
CURSORS = [
    *(cursor(value) for value in (-1, 10**40, True, None, "x", {}, [1])),
    cursor(),
    cursor("\0", "x"),
    cursor("2026-01-01", "x"),
    cursor("0001-01-01T00:00:00+23:59", "x"),
    cursor("9999-12-31T23:59:59.999999-23:59", "x"),
    cursor("2026-01-01T00:00:00Z", "\ud800"),
    urlsafe_b64encode(b"[" * 10_000).decode(),
    urlsafe_b64encode(b"[" + b"9" * 5000 + b"]").decode(),
]
TIMES = [
    "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:00",
    "2026-01-01T24:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "10000-01-01T00:00:00Z",
]
KEYS = [
    "[" * 10_000,
    f'{{"id": {10**40}}}',
    f'{{"id": {"9" * 4000}}}',
    f'{{"id": {"9" * 5000}}}',
    *(f'{{"id": {value}}}' for value in ("1e999", "NaN", "null", "true", "[7]", r'"\u0000"', r'"\ud800"', r'"\u202e"')),
    r'{"\ud800": 1}',
]
ODD_OF = {"cursor": CURSORS, "syncs": CURSORS, "changes": CURSORS, "since": TIMES, "key": KEYS}
PLACES = [
    (route, parameter.alias)
    for route in [
        *html.static_router.routes,
        *html.router.routes,
        *api.router.routes,
        *api.readiness_router(open_to_all=False).routes,
    ]
    if isinstance(route, APIRoute)
    for flat in [get_flat_dependant(route.dependant)]
    for parameter in [*flat.path_params, *flat.query_params]
]


@pytest.mark.parametrize(("route", "name"), PLACES, ids=[f"{route.path} {name}" for route, name in PLACES])
def test_odd_value_is_refused_clearly_or_finds_nothing(asking, route, name):
    known = KNOWN | {"name": "pages.css", "run": KNOWN["run_id"]} | {key: quote(value) for key, value in ROW.items()}
    asked = get_flat_dependant(route.dependant).query_params
    in_query = {parameter.alias for parameter in asked if parameter.field_info.is_required() or parameter.alias == name}
    faults = []
    for odd in [*ODD, *map(quote, ODD_OF.get(name, []))]:
        values = known | {name: odd}
        path = re.sub(r"\{(\w+)(:path)?\}", lambda part, values=values: str(values[part[1]]), route.path)
        address = f"{path}?{'&'.join(f'{each}={values[each]}' for each in sorted(in_query))}"
        answer = asking.get(address, "viewer")
        if answer.status_code not in (200, 404, 422) or not (answer.status_code == 200 or is_clear(answer)):
            faults.append((address[:200], answer.status_code, answer.text[:300]))
    assert not faults
