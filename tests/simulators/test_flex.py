"""The Flex simulator over real HTTP: the shapes of its rows, its writes, what people do, and every order."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import requests

from include.simulators.flex import (
    SPOILS,
    Config,
    Control,
    Fault,
    Line,
    Mutation,
    Simulator,
    Write,
    application,
    running,
)
from include.simulators.flex.config import ROLES, SIZES

Row = dict[str, Any]
CODES = ("contact", "business-role")
ROW_DATA, ADD = "line-item/*/row-data", "line-item/*/add-resource/*"


class Client:
    """What a reader and writer of the API does, with the right token unless told otherwise."""

    def __init__(self, simulator: Simulator) -> None:
        self.control: Control = simulator.control
        self.url = f"{simulator.url}/f5/api"
        self._session = requests.Session()
        self._session.headers["X-Auth-Token"] = simulator.token

    def send(self, method: str, path: str, /, timeout: float = 10, **options: Any) -> requests.Response:
        options = {"allow_redirects": False} | options
        return self._session.request(method, f"{self.url}/{path}", timeout=timeout, **options)

    def get(self, path: str, /, headers: Row | None = None, **query: Any) -> requests.Response:
        return self.send("GET", path, headers=headers, params={"_dc": 1, "node": "root"} | query)

    def read(self, path: str, /, **query: Any) -> Any:
        answer = self.get(path, **query)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()

    def tree(self, element: UUID, codes: tuple[str, ...] = CODES) -> list[Row]:
        return self.read(f"line-item/{element}/row-data/", codeList=codes)

    def rows(self, element: UUID) -> list[Row]:
        return flat(self.tree(element))

    def post_add(self, element: UUID, resource: UUID, **options: Any) -> requests.Response:
        return self.send("POST", f"line-item/{element}/add-resource/{resource}", **options)

    def add(self, element: UUID, resource: UUID, **form: Any) -> UUID:
        answer = self.post_add(element, resource, data=form)
        assert answer.status_code == 200, answer.text
        return UUID(new_id(answer.json()))

    def set_role(self, element: UUID, line: Any, role: Any, **fields: Any) -> requests.Response:
        body = {"lineItemId": str(line), "fieldType": "business-role", "payloadValue": str(role)} | fields
        return self.send("POST", f"line-item/{element}/row-data/", json=body)

    def delete(self, line: UUID) -> int:
        return self.send("DELETE", f"line-item/{line}").status_code

    def crew(self, element: UUID) -> list[Line]:
        return [line for line in self.control.lines(element) if line.kind == "contact"]


def flat(rows: list[Row]) -> list[Row]:
    return [found for row in rows for found in (row, *flat(row["children"]))]


def new_id(answer: Row) -> str:
    answer = answer.get("data", answer)
    return answer.get("id") or answer.get("lineItemId") or answer["addedResourceLineIds"][0]


def resources(row: Row) -> set[str]:
    """All that a row says of its resource; one, unless it is wrong."""
    nested = row.get("resource", {})
    return set(filter(None, (row.get("resourceId"), nested.get("id"), nested.get("resourceId"))))


def types(row: Row) -> set[str]:
    return set(filter(None, (row.get("managedResourceLineItemType"), row.get("type"))))


def plain(value: Any) -> Any:
    return value["data"] if isinstance(value, dict) else value


def contacts(rows: list[Row]) -> list[Row]:
    return [row for row in rows if types(row) == {"contact"}]


def text(thing: UUID | None) -> str | None:
    return thing and str(thing)


HABITS = {name: value for name, value in asdict(Config()).items() if name not in ("seed", "now", *SIZES)}


@pytest.fixture(scope="module")
def account() -> Iterator[Simulator]:
    """An account for all tests that work with crew calls of their own."""
    with running() as simulator:
        yield simulator


@pytest.fixture
def client(account: Simulator) -> Client:
    """The account with its first habits, and with no order of another test."""
    account.control.set(**HABITS)
    account.control.clear()
    account.control.reset_counters()
    return Client(account)


@pytest.fixture(scope="module")
def shown() -> Iterator[Client]:
    """A large account that no test changes."""
    with running(Config(elements=20, crew=12)) as simulator:
        yield Client(simulator)


@pytest.fixture
def element(client: Client) -> UUID:
    """A crew call without crew."""
    return client.control.create_element()


# Reading


def test_rows_tell_the_truth(shown: Client) -> None:
    for element in shown.control.elements():
        told = {
            (row["id"], *resources(row), *types(row), plain(row["business-role"])): plain(row["contact"])
            for row in shown.rows(element)
        }
        lines = shown.control.lines(element)
        assert told.keys() == {
            (str(line.id), *filter(None, [text(line.resource_id)]), line.kind, text(line.role_id)) for line in lines
        }
        assert Counter(line.kind for line in lines) == {"contact": 12, "inventory": 1, "header": 1}
        assert sum(name is not None for name in told.values()) == 12


def test_rows_lie_under_their_headers(shown: Client) -> None:
    for element in shown.control.elements():
        parents = {str(line.id): line.parent_id for line in shown.control.lines(element)}
        tree = shown.tree(element)
        assert [row["id"] for row in tree] == [line for line, parent in parents.items() if parent is None]
        [header] = [row for row in tree if types(row) == {"header"}]
        assert {row["id"] for row in header["children"]} == {line for line, parent in parents.items() if parent}
        assert shown.tree(UUID(header["id"])) == header["children"]
        assert {(row["leaf"], row["container"]) for row in tree} == {(True, False), (False, True)}


def test_rows_come_in_every_shape_and_the_same_one_again(shown: Client) -> None:
    rows = [row for element in shown.control.elements() for row in shown.rows(element)]
    found = contacts(rows)
    assert {("resourceId" in row, *row.get("resource", ())) for row in found} == {
        (True,),
        (True, "id"),
        (False, "id"),
        (False, "resourceId"),
    }
    long, short = "managedResourceLineItemType", "type"
    assert {(long in row, short in row) for row in found} == {(True, False), (False, True), (True, True)}
    for code in CODES:
        assert {isinstance(row[code], dict) for row in found} == {True, False}
    assert {plain(row["business-role"]) for row in found} == {None, *map(str, ROLES)}
    assert not any(resources(row) for row in rows if types(row) == {"header"})
    again = [row for element in shown.control.elements() for row in shown.rows(element)]
    assert again == rows


def test_rows_have_the_fields_that_are_asked_for(shown: Client) -> None:
    element = shown.control.elements()[0]
    for codes in ((), ("contact",), ("business-role",), CODES):
        for row in flat(shown.tree(element, codes)):
            assert set(CODES) & row.keys() == set(codes)


def inside(answer: Any) -> tuple[str, list[Row]]:
    """The items in an answer or an item, and the way to them."""
    if isinstance(answer, list):
        return "", answer
    for key in ("children", "items", "lineItems", "results"):
        if key in answer:
            return key, answer[key]
    way, items = inside(answer.get("data", []))
    return f"data.{way}", items


def test_other_reads_give_the_same_lines_wrapped_and_with_less(shown: Client) -> None:
    ways: dict[str, set[str]] = {"list": set(), "children": set(), "item": set()}
    told: set[tuple[bool, bool]] = set()
    for element in shown.control.elements():
        ids = {str(line.id) for line in shown.control.lines(element)}
        positions = shown.read(f"line-item/{element}/row-data/findRowData")
        assert {row["id"] for row in positions} == ids
        assert all(row.keys() == {"id", "rootLineId", "leaf", "container"} for row in positions)
        for name, path in (
            ("list", f"element/{element}/line-items"),
            ("children", f"line-item/{element}/children"),
            ("item", f"line-item/{element}"),
        ):
            way, items = inside(shown.read(path))
            ways[name].add(way)
            items += [below for item in items for below in inside(item)[1]]
            assert {item["id"] for item in items} == ids
            told |= {(bool(resources(item)), bool(types(item))) for item in items}
    assert ways["list"] == ways["children"] == {"", "data.items", "items", "results"}
    assert ways["item"] == {"children", "lineItems", "data.children"}
    assert told == {(True, True), (False, True), (False, False)}


def test_a_contact_is_told_by_its_name(shown: Client) -> None:
    row = contacts(shown.rows(shown.control.elements()[0]))[0]
    [resource] = resources(row)
    assert shown.read(f"contact/{resource}/key-info/") == {"id": resource, "name": plain(row["contact"])}


def test_what_is_not_there_is_not_found(client: Client) -> None:
    nobody = uuid4()
    lines = [f"line-item/{nobody}{end}" for end in ("", "/row-data", "/row-data/findRowData", "/children")]
    for path in ("nothing", "line-item/5/row-data", f"element/{nobody}/line-items", *lines):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["exceptionMessage"]
    assert client.send("PUT", f"line-item/{nobody}").status_code == 405


# Writing


def test_every_add_makes_another_line(client: Client, element: UUID) -> None:
    resource = uuid4()
    added = [client.add(element, resource) for _ in range(30)]
    assert len(set(added)) == 30
    assert [(line.id, line.resource_id, line.role_id) for line in client.crew(element)] == [
        (line_id, resource, None) for line_id in added
    ]
    assert {UUID(row["id"]) for row in contacts(client.rows(element))} == set(added)
    # Some come to lie under the header.
    assert {line.parent_id is None for line in client.crew(element)} == {True, False}


def test_the_new_line_is_told_under_five_names(client: Client, element: UUID) -> None:
    answers = [client.post_add(element, uuid4()).json() for _ in range(60)]
    assert {(*answer, *answer.get("data", ())) for answer in answers} == {
        ("id",),
        ("lineItemId",),
        ("data", "id"),
        ("data", "lineItemId"),
        ("addedResourceLineIds",),
    }


def test_an_add_can_have_a_form(client: Client, element: UUID) -> None:
    form = {"resourceParentId": "", "managedResourceLineItemType": "contact", "quantity": 1, "nextSiblingId": ""}
    [header] = [line.id for line in client.control.lines(element) if line.kind == "header"]
    under = client.add(element, uuid4(), **form, parentLineItemId=header)
    client.add(element, uuid4(), **form, parentLineItemId="")
    assert [line.parent_id for line in client.crew(element) if line.id == under] == [header]
    for wrong in ({"parentLineItemId": under}, {"parentLineItemId": "x"}, {"managedResourceLineItemType": "inventory"}):
        assert client.post_add(element, uuid4(), data=form | wrong).status_code == 400
    assert client.post_add(uuid4(), uuid4()).status_code == 404
    assert len(client.crew(element)) == 2


def test_a_business_role_is_set_and_shown(client: Client, element: UUID) -> None:
    line = client.add(element, uuid4())
    for role in ROLES:
        assert client.set_role(element, line, role).json() == {"success": True}
        assert [line.role_id for line in client.crew(element)] == [role]
        assert [plain(row["business-role"]) for row in contacts(client.rows(element))] == [str(role)]
    [header, gear] = [line.id for line in client.control.lines(element) if line.kind != "contact"]
    for wrong in ((line, uuid4()), (line, "x"), (header, ROLES[0]), (gear, ROLES[0])):
        assert client.set_role(element, *wrong).status_code == 400
    assert client.set_role(element, line, ROLES[0], fieldType="notes").status_code == 400
    for missing in ((element, uuid4()), (uuid4(), line), (client.control.elements()[0], line)):
        assert client.set_role(*missing, ROLES[0]).status_code == 404
    assert [line.role_id for line in client.crew(element)] == [ROLES[-1]]


def test_a_line_is_deleted_once(client: Client, element: UUID) -> None:
    line, other = client.add(element, uuid4()), client.add(element, uuid4())
    answer = client.send("DELETE", f"line-item/{line}")
    assert (answer.status_code, answer.content, "Content-Length" in answer.headers) == (204, b"", False)
    assert client.delete(line) == client.get(f"line-item/{line}").status_code == 404
    assert [line.id for line in client.crew(element)] == [other]
    [header] = [line.id for line in client.control.lines(element) if line.kind == "header"]
    under = client.add(element, uuid4(), parentLineItemId=header)
    assert client.delete(header) == 204
    assert client.delete(under) == 404
    assert {line.kind for line in client.control.lines(element)} <= {"contact"}


@pytest.mark.parametrize("name", [None, "lineItemIds", "lineItemId", "ids"])
def test_several_are_deleted_by_one_name_or_not_at_all(client: Client, element: UUID, name: str | None) -> None:
    def statuses(lines: list[Any]) -> dict[str, int]:
        return {
            key: client.send("DELETE", "line-item", data={key: list(map(str, lines))}).status_code
            for key in ("lineItemIds", "lineItemId", "ids")
        }

    client.control.set(bulk_delete=name)
    lines = [client.add(element, uuid4()) for _ in range(3)]
    refused = dict.fromkeys(("lineItemIds", "lineItemId", "ids"), 405 if name is None else 400)
    assert statuses([*lines, uuid4()]) == refused | ({name: 404} if name else {})
    assert statuses(["x"]) == refused
    assert len(client.crew(element)) == 3
    assert statuses(lines[:2]) == refused | ({name: 204} if name else {})
    assert len(client.crew(element)) == (1 if name else 3)
    if name:
        everything = ",".join(str(line.id) for line in client.control.lines(element))
        assert client.send("DELETE", "line-item", data={name: everything}).status_code == 204
        assert client.control.lines(element) == []


def test_the_journal_has_what_the_api_wrote(client: Client, element: UUID) -> None:
    resource = uuid4()
    line = client.add(element, resource)
    client.set_role(element, line, ROLES[0])
    client.set_role(element, line, uuid4())
    client.control.mutate(Mutation("add", element))
    client.delete(line)
    client.delete(line)
    assert [write for write in client.control.journal() if write.element_id == element] == [
        Write("add", element, line, resource, None),
        Write("role", element, line, resource, ROLES[0]),
        Write("delete", element, line, resource, ROLES[0]),
    ]


# What there is, and what people do


def test_the_seed_fixes_the_data() -> None:
    def data(seed: int) -> list[Any]:
        with running(Config(seed=seed)) as simulator:
            client = Client(simulator)
            return [client.tree(element) for element in client.control.elements()]

    assert data(1) == data(1)
    assert data(1) != data(2)


def test_crew_calls_are_made_with_ids_of_the_callers(client: Client) -> None:
    wanted = [uuid4(), uuid4()]
    before = client.control.elements()
    assert client.control.create_elements(wanted) == wanted
    made = client.control.create_element()
    assert client.control.elements() == [*before, *wanted, made]
    for element in (*wanted, made):
        assert [line.kind for line in client.control.lines(element)] == ["header", "inventory"]
    with pytest.raises(ValueError, match="exists"):
        client.control.create_element(made)
    with pytest.raises(ValueError, match="there is no element"):
        client.control.lines(uuid4())


def test_people_change_crews(client: Client, element: UUID) -> None:
    resource = uuid4()
    [[first], [second], [gear], [third]] = client.control.mutate(
        Mutation("add", element, resource, role=ROLES[1]),
        Mutation("add", element, resource),
        Mutation("gear", element),
        Mutation("add", element),
    )
    assert [(line.id, line.role_id) for line in client.crew(element)] == [
        (first, ROLES[1]),
        (second, None),
        (third, None),
    ]
    assert [types(row) for row in client.rows(element) if row["id"] == str(gear)] == [{"inventory"}]
    assert client.control.mutate(
        Mutation("role", element, resource, role=ROLES[2]), Mutation("role", element, line=first)
    ) == [[first, second], [first]]
    assert [line.role_id for line in client.crew(element)] == [None, ROLES[2], None]
    assert client.control.mutate(Mutation("delete", element, line=third)) == [[third]]
    assert client.control.mutate(Mutation("delete", element, resource)) == [[first, second]]
    assert client.control.mutate(Mutation("delete", element, resource)) == [[]]
    assert client.crew(element) == []
    for wrong in (Mutation("delete", element, line=third), Mutation("add", uuid4()), Mutation("delete", element)):
        with pytest.raises(ValueError, match=r"no line|no element|needs a line or a resource"):
            client.control.mutate(wrong)


def test_people_come_between_two_requests(client: Client, element: UUID) -> None:
    resource = uuid4()
    client.control.before(ROW_DATA, 2, Mutation("add", element, resource), method="GET")
    client.control.before(ADD, 1, Mutation("delete", element, resource))
    assert contacts(client.rows(element)) == []
    assert [resources(row) for row in contacts(client.rows(element))] == [{str(resource)}]
    line = client.add(element, resource)
    assert [line.id for line in client.crew(element)] == [line]


# Orders to the control


@pytest.mark.parametrize("status", [202, 400, 401, 403, 404, 408, 409, 422, 429, 500, 503])
def test_answers_fail_on_order(client: Client, element: UUID, status: int) -> None:
    client.control.fault(Fault("status", path=ADD, status=status, nth=2, times=2, retry_after=3))
    answers = [client.post_add(element, uuid4()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, status, status, 200]
    assert answers[1].headers["Retry-After"] == "3"
    assert answers[1].json() == {"exceptionMessage": "Something went wrong"}
    assert len(client.crew(element)) == 2
    assert client.control.counters().faults == 2


def test_a_read_can_fail_while_the_write_on_the_same_path_does_not(client: Client, element: UUID) -> None:
    client.control.fault(Fault("status", path=ROW_DATA, method="GET", times=None))
    line = client.add(element, uuid4())
    assert client.set_role(element, line, ROLES[0]).status_code == 200
    assert [client.get(f"line-item/{element}/row-data").status_code for _ in range(3)] == [500] * 3
    client.control.clear()
    assert len(contacts(client.rows(element))) == 1


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("kind", ["drop", "hang"])
def test_answers_are_lost_before_or_after_the_write(client: Client, element: UUID, kind: str, committed: bool) -> None:
    client.control.fault(Fault(kind, path=ADD, committed=committed))
    with pytest.raises(requests.RequestException):
        client.post_add(element, uuid4(), timeout=0.3)
    assert len(client.crew(element)) == committed
    assert client.control.counters().requests["POST line-item/{id}/add-resource/{resource}"] == {"cut": 1}


@pytest.mark.parametrize("status", [200, 202, 500])
def test_a_write_can_be_carried_out_and_answered_unreadably(client: Client, element: UUID, status: int) -> None:
    client.control.fault(Fault("status", path=ADD, status=status, html=True, committed=True))
    answer = client.post_add(element, uuid4())
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    client.control.fault(Fault("broken_json", path=ADD))
    answer = client.post_add(element, uuid4())
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        answer.json()
    assert len(client.crew(element)) == 2


def test_answers_are_cut(client: Client, element: UUID) -> None:
    client.control.fault(Fault("cut", times=3))
    with pytest.raises(requests.RequestException):
        client.post_add(element, uuid4())
    [line] = client.crew(element)
    for method, path in (("GET", f"line-item/{element}/row-data"), ("DELETE", f"line-item/{line.id}")):
        with pytest.raises(requests.RequestException):
            client.send(method, path)
    assert client.crew(element) == []


@pytest.mark.parametrize("committed", [False, True])
def test_a_slow_write_happens_though_the_client_has_gone(client: Client, element: UUID, committed: bool) -> None:
    client.control.fault(Fault("slow", path=ADD, seconds=0.6, times=2, committed=committed))
    started = time.monotonic()
    with pytest.raises(requests.Timeout):
        client.post_add(element, uuid4(), timeout=0.1)
    while not client.crew(element):
        assert time.monotonic() < started + 10
        time.sleep(0.02)
    assert (time.monotonic() < started + 0.5) is committed
    answer = client.post_add(element, uuid4())
    assert answer.elapsed.total_seconds() > 0.5
    assert new_id(answer.json()) == str(client.crew(element)[1].id)


def test_a_request_is_sent_elsewhere(client: Client, element: UUID) -> None:
    other = f"{client.url}/line-item/{element}/add-resource/{uuid4()}"
    client.control.fault(Fault("status", path=ADD, status=307, location=other))
    answer = client.post_add(element, uuid4())
    assert (answer.status_code, answer.headers["Location"]) == (307, other)
    assert client.crew(element) == []


def several(things: Iterable[Any]) -> list[Any]:
    return [thing for thing, number in Counter(things).items() if number > 1]


WRONG = {
    "object": lambda rows: list(rows) == ["rows"],
    "null": lambda rows: rows is None,
    "null_row": lambda rows: rows[-1] is None and all(rows[:-1]),
    "no_line_id": lambda rows: ["id" in row for row in contacts(flat(rows))] == [False],
    "no_resource": lambda rows: list(map(resources, contacts(flat(rows)))) == [set()],
    "no_type": lambda rows: list(map(types, flat(rows))).count(set()) == 1,
    "inventory": lambda rows: list(map(types, flat(rows))).count({"inventory"}) == 2 and not contacts(flat(rows)),
    "line_twice": lambda rows: len(several(row["id"] for row in contacts(flat(rows)))) == 1,
    "resource_twice": lambda rows: (
        len(several(frozenset(resources(row)) for row in contacts(flat(rows)))) == 1
        and not several(row["id"] for row in flat(rows))
    ),
    "ids_disagree": lambda rows: [len(resources(row)) for row in contacts(flat(rows))] == [2],
    "types_disagree": lambda rows: {"contact", "inventory"} in map(types, flat(rows)),
}


@pytest.mark.parametrize("kind", SPOILS)
@pytest.mark.parametrize("crew", [0, 1])
def test_rows_are_wrong_on_order(client: Client, element: UUID, kind: str, crew: int) -> None:
    """With a contact or without one, for which one is made up then."""
    for _ in range(crew):
        client.add(element, uuid4())
    client.control.fault(Fault(kind, nth=2, times=2))
    right = client.tree(element)
    assert not WRONG[kind](right)
    # Only where rows are read.
    client.read(f"element/{element}/line-items")
    for _ in range(2):
        wrong = client.tree(element)
        assert WRONG[kind](wrong), wrong
    assert client.tree(element) == right
    assert client.control.counters().faults == 2


def test_the_row_of_one_line_can_be_wrong(client: Client, element: UUID) -> None:
    lines = [client.add(element, uuid4()) for _ in range(4)]
    client.control.fault(*(Fault("inventory", line=line) for line in lines))
    for line in lines:
        assert {row["id"] for row in contacts(client.rows(element))} == {str(other) for other in lines if other != line}
    client.control.fault(Fault("inventory", times=None))
    assert client.get(f"line-item/{uuid4()}/row-data").json().keys() == {"exceptionMessage"}


def test_the_token_is_wanted_and_may_be_refreshed(client: Client, element: UUID) -> None:
    path = f"line-item/{element}/row-data"
    for wrong in ("", "other"):
        answer = client.get(path, headers={"X-Auth-Token": wrong})
        assert (answer.status_code, list(answer.json())) == (401, ["exceptionMessage"])
        assert client.post_add(element, uuid4(), headers={"X-Auth-Token": wrong}).status_code == 401
    assert client.crew(element) == []
    assert "X-Auth-Token-Refreshed" not in client.get(path).headers
    client.control.set(refreshed_token="fresh")
    fresh = client.get(path).headers["X-Auth-Token-Refreshed"]
    assert client.get(path, headers={"X-Auth-Token": fresh}).status_code == 200
    client.control.set(token="another")
    assert client.get(path).status_code == 401


def test_the_quota_is_that_of_an_hour_and_of_a_day() -> None:
    assert (Config().per_hour, Config().per_day) == (2_000, 10_000)
    with running(Config(per_hour=3, per_day=5)) as simulator:
        client, [element, *_] = Client(simulator), simulator.control.elements()

        def statuses(number: int) -> list[int]:
            return [client.get(f"line-item/{element}/row-data").status_code for _ in range(number)]

        assert client.get("nothing", headers={"X-Auth-Token": "other"}).status_code == 401
        assert statuses(4) == [200, 200, 200, 429]
        answer = client.post_add(element, uuid4())
        assert (answer.status_code, list(answer.json())) == (429, ["exceptionMessage"])
        assert client.control.journal() == []
        client.control.advance(3_600)
        assert statuses(3) == [200, 200, 429]
        client.control.advance(3_600)
        assert statuses(1) == [429]
        client.control.advance(86_400)
        assert statuses(4) == [200, 200, 200, 429]
        client.control.set(per_hour=None, per_day=None)
        assert statuses(4) == [200] * 4


def test_counters_count_and_orders_are_dropped(client: Client, element: UUID) -> None:
    resource, other = uuid4(), uuid4()
    client.add(element, other)
    client.control.before("*", 1, Mutation("delete", element, other))
    client.control.fault(Fault("status", path=ROW_DATA))
    client.control.clear()
    client.control.reset_counters()
    client.control.fault(Fault("drop", path=ADD, nth=2))
    client.add(element, resource)
    with pytest.raises(requests.RequestException):
        client.post_add(element, resource)
    client.add(element, other)
    client.delete(uuid4())
    client.rows(element)
    counters = client.control.counters()
    add, row_data = "POST line-item/{id}/add-resource/{resource}", "GET line-item/{id}/row-data"
    assert counters.requests == {
        add: {"200": 2, "cut": 1},
        "DELETE line-item/{id}": {"404": 1},
        row_data: {"200": 1},
    }
    assert counters.adds == {element: {resource: 2, other: 1}}
    assert (counters.total(), counters.total("add-resource"), counters.total(status=404)) == (5, 3, 1)
    assert (counters.max_concurrent, counters.max_concurrent_by_element, counters.faults) == (1, {element: 1}, 1)
    assert [line.resource_id for line in client.crew(element)] == [other, resource, other]


def test_requests_underway_are_counted_for_each_element(client: Client) -> None:
    elements = client.control.create_elements([uuid4(), uuid4()])
    line = client.add(elements[0], uuid4())
    client.control.set(latency_ms=300)
    client.control.reset_counters()
    paths = [f"line-item/{elements[0]}/row-data", f"line-item/{line}", f"element/{elements[1]}/line-items"]
    headers = {"X-Auth-Token": "demo-token"}

    def get(path: str) -> float:
        return requests.get(f"{client.url}/{path}", headers=headers, timeout=10).elapsed.total_seconds()

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(get, [*paths, f"contact/{uuid4()}/key-info"]))
    assert min(taken) > 0.29
    counters = client.control.counters()
    assert counters.max_concurrent == 4
    assert counters.max_concurrent_by_element == {elements[0]: 2, elements[1]: 1}
    assert client.get(paths[0]).status_code == 200
    client.control.reset_counters()
    assert client.control.counters().max_concurrent_by_element == {}


def test_the_clock_stands_still_and_answers_are_dated_by_it() -> None:
    with running(Config(elements=0)) as simulator:
        assert simulator.control.now() == "2026-11-04T18:00:00Z"
        assert simulator.control.advance(3_600) == "2026-11-04T19:00:00Z"
        assert Client(simulator).get("nothing").headers["Date"] == "Wed, 04 Nov 2026 19:00:00 GMT"


def test_the_clock_may_run() -> None:
    with running(Config(now=None)) as simulator:
        now = datetime.fromisoformat(simulator.control.now())
        assert abs((datetime.now(now.tzinfo) - now).total_seconds()) < 60
    with pytest.raises(ValueError, match="no instant with a time zone"), running(Config(now="2026-11-04T18:00:00")):
        pass


def test_habits_change_and_sizes_do_not(client: Client) -> None:
    role = uuid4()
    assert client.control.set(roles=[role]).roles == (role,)
    for fields, reason in (
        ({"elements": 5}, "elements can't change"),
        ({"colour": 5}, "no colour"),
        ({"latency_ms": "x"}, "latency_ms"),
    ):
        with pytest.raises(ValueError, match=reason):
            client.control.set(**fields)


# Lies: nothing is wrong in their form


def of(client: Client, element: UUID) -> tuple[set[str], set[str]]:
    """The lines that the rows show, and those that the crew call's own record shows."""
    rows = {row["id"] for row in client.rows(element)}
    record = client.read(f"line-item/{element}")
    assert record["id"] == str(element)
    return rows, {item["id"] for item in nested_items(record)}


def nested_items(item: Row) -> list[Row]:
    data = item.get("data", {})
    below = item.get("children") or item.get("lineItems") or data.get("children") or []
    return [found for each in below for found in (each, *nested_items(each))]


def test_a_list_may_lie_about_what_is_on_a_crew_call(client: Client, element: UUID) -> None:
    other = client.control.create_element()
    lines = [client.add(element, uuid4()) for _ in range(3)]
    true = {str(line.id) for line in client.control.lines(element)}
    assert of(client, element) == (true, true)
    lies = {
        Fault("empty"): set(),
        Fault("short"): true - {str(lines[-1])},
        Fault("short", line=lines[0]): true - {str(lines[0])},
        Fault("lag", changes=2): true - {str(line) for line in lines[1:]},
        Fault("swapped", element=other): {str(line.id) for line in client.control.lines(other)},
    }
    for fault, shown in lies.items():
        client.control.fault(replace(fault, path=f"line-item/{element}/row-data"))
        assert of(client, element) == (shown, true)
        client.control.fault(replace(fault, path=f"line-item/{element}"))
        assert of(client, element) == (true, shown)
        assert of(client, element) == (true, true)


@pytest.mark.parametrize(("records", "told"), [("whole", {True}), ("types", {False}), ("ids", {False})])
def test_a_crew_calls_record_tells_by_habit_whose_its_lines_are(
    client: Client, element: UUID, records: str, told: set[bool]
) -> None:
    lines = {str(client.add(element, uuid4())) for _ in range(8)}
    client.control.set(records=records)
    items = [item for item in nested_items(client.read(f"line-item/{element}")) if item["id"] in lines]
    assert {not {"resourceId", "resource"}.isdisjoint(item) for item in items} == told
    typed = {not {"managedResourceLineItemType", "type"}.isdisjoint(item) for item in items}
    assert typed == {records != "ids"}


def test_an_error_may_come_with_success_and_roles_may_be_left_out(client: Client, element: UUID) -> None:
    line = client.add(element, uuid4())
    client.set_role(element, line, ROLES[0])
    client.control.fault(Fault("envelope", path=ROW_DATA), Fault("without_roles", path=ROW_DATA))
    assert [*client.read(f"line-item/{element}/row-data")] == ["exceptionMessage"]
    assert all("business-role" not in row for row in client.rows(element))
    assert all("business-role" in row for row in client.rows(element))


def test_a_write_may_be_taken_for_done_and_not_be_carried_out(client: Client, element: UUID) -> None:
    line = client.add(element, uuid4())
    before, journal = client.control.lines(element), client.control.journal()
    client.control.fault(Fault("ignored", times=3))
    assert client.add(element, uuid4()) not in {each.id for each in before}
    assert client.set_role(element, line, ROLES[0]).json() == {"success": True}
    assert client.delete(line) == 204
    assert (client.control.lines(element), client.control.journal()) == (before, journal)
    assert client.delete(line) == 204
    assert client.control.lines(element) != before


def test_a_deleted_line_may_be_put_back(client: Client, element: UUID) -> None:
    line = client.add(element, uuid4())
    before = client.control.lines(element)
    client.delete(line)
    assert client.get(f"line-item/{line}").status_code == 404
    assert client.control.mutate(Mutation("restore", element, line=line)) == [[line]]
    assert client.control.lines(element) == before
    assert client.get(f"line-item/{line}").status_code == 200
    with pytest.raises(ValueError, match=str(line)):
        client.control.mutate(Mutation("restore", element, line=line))


@pytest.mark.parametrize(
    ("gone", "status", "body"), [("405", 405, None), ("410", 410, None), ("null", 200, None), ("empty", 200, {})]
)
def test_the_address_of_a_line_that_is_gone_answers_by_habit(
    client: Client, element: UUID, gone: str, status: int, body: Any
) -> None:
    line = client.add(element, uuid4())
    client.delete(line)
    client.control.set(gone=gone)
    answer = client.get(f"line-item/{line}")
    assert answer.status_code == status
    if status == 200:
        assert answer.json() == body
    client.control.set(gone="page")
    assert client.get(f"line-item/{line}").headers["content-type"].startswith("text/html")


# The program


def test_the_program_serves_until_it_is_told_to_end() -> None:
    role = uuid4()
    options = ["--elements", "2", "--crew", "1", "--token", "t", "--now", "2026-05-01T00:00:00Z", "--roles", str(role)]
    command = [sys.executable, "-m", "include.simulators.flex", *options, "--no-quota"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[-1]
            client = Client(Simulator(url, "t", Control(url)))
            assert [len(client.crew(element)) for element in client.control.elements()] == [1, 1]
            assert client.get(f"line-item/{client.control.elements()[0]}/row-data").status_code == 200
            config = client.control.set()
            assert (config.roles, config.per_hour, config.per_day) == ((role,), None, None)
            assert client.control.now() == "2026-05-01T00:00:00Z"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture
def planned(warehouse: str) -> str:
    """The URL of an application's tables, which are empty."""
    return f"{warehouse}{'&' if '?' in warehouse else '?'}options=-csearch_path%3Dflex"


def test_the_program_has_the_crew_calls_that_the_application_names_at_every_start(planned: str) -> None:
    def start() -> tuple[dict[UUID, list[Line]], UUID]:
        command = [sys.executable, "-m", "include.simulators.flex", "--elements", "0", "--database", planned]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                client = Client(Simulator(url := process.stdout.readline().split()[-1], "demo-token", Control(url)))
                lines = {element: client.control.lines(element) for element in client.control.elements()}
                return lines, client.add(next(iter(lines)), uuid4())
            finally:
                process.terminate()

    (first, added), (second, another) = start(), start()
    assert first.keys() == second.keys()
    with psycopg.connect(planned) as conn:
        assert first.keys() == {row[0] for row in conn.execute("SELECT flex_element_id FROM flex_crew_calls")}
    assert {tuple(line.kind for line in lines) for lines in first.values()} == {("header", "inventory", "contact")}
    # No id comes back for something else: rows that name one from before the restart are stale, and nothing more.
    ids = [{line.id for lines in found.values() for line in lines} for found in (first, second)]
    assert not (ids[0] | {added}) & (ids[1] | {another})


def test_the_application_is_filled_once(planned: str) -> None:
    def rows() -> dict[str, list[tuple]]:
        tables = ("jobs", "profiles", "job_assignments", "flex_crew_calls")
        return {table: conn.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in tables}

    named = application.set_up(planned)
    with psycopg.connect(planned, autocommit=True) as conn:
        found = rows()
        assert all(found.values())
        conn.execute("DELETE FROM job_assignments WHERE sound_role = 'FOH-R'")
        left = rows()
        assert application.set_up(planned) == named
        assert rows() == left != found
        # One crew call is that of both departments; everybody but one has a contact.
        assert len(named) == len(found["flex_crew_calls"]) - 1
        (unknown,) = conn.execute("SELECT count(*) FROM profiles WHERE flex_resource_id IS NULL").fetchone()
        assert unknown == 1


def test_the_program_says_when_its_port_is_taken(shown: Client) -> None:
    port = shown.url.rsplit(":", 1)[1].removesuffix("/f5/api")
    command = [sys.executable, "-m", "include.simulators.flex", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "can't listen on 127.0.0.1" in done.stderr
    assert "choose another --port" in done.stderr
