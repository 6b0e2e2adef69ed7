"""The stub alone, asked over HTTP without the project's client: what it serves, refuses and spoils."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import pytest
import requests

from include.api.paginators import Cursor, LastId, NextLink, Offset, PageNumber, Single, SpringPage
from include.api.request import Request
from include.simulators import serving
from include.sources import get_source
from include.sources.base import NOTHING
from include.sources.mirror.changes import BothEnds, Feed, FullList, Since, Window, as_unix_time
from include.sources.mirror.entity import Child, Entity, Listed, Part
from include.sources.mirror.listing import Partitions
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.source import Mirror
from include.warehouse.readers import boolean, identifier, instant, text
from include.warehouse.table import Column, Table
from tests.stub import Fault, NotServed, Store, Stub, WrongExamples, WrongLookup
from tests.stub.store import Telling

COLUMNS = (Column("id"), Column("city"), Column("note"), Column("gone"), Column("changed", instant))
TOOLS = Table("shop", "tools", COLUMNS, version="changed")
LINES = Table("shop", "lines", (Column("id"), Column("tool", text, "tool.id")), version=None)
OWN = Lookup(request=lambda id_: Request(f"/tools/{quote(id_, safe='')}"), rows=lambda data: [data["tool"]])
TOOL = {"id": "t1", "city": "Ulm", "note": "x", "gone": None, "changed": "2026-03-01T08:00:00Z"}
LINE = {"id": "l1", "tool": {"id": "t1"}}
EXAMPLES = {"tools": [TOOL], "lines": [LINE]}


def tools(**more: Any) -> Listed:
    usual = {"listing": Request("/tools"), "paginator": PageNumber("tools"), "changes": Since("since"), "lookup": OWN}
    return Listed(**{"table": TOOLS, "leaves_out": NOTHING, **usual, **more})


def lines(**more: Any) -> Child:
    inside = Lookup(by=("tool",), request=OWN.request, rows=lambda data: data["tool"]["lines"])
    listed = Lookup(
        by=("tool",),
        request=lambda id_: Request("/lines", {"tool": id_}),
        rows=lambda data: data["lines"],
        own=False,
        witness=inside,
    )
    usual = {"listing": Request("/lines"), "paginator": SpringPage("lines"), "parent": "tools", "lookup": listed}
    return Child(**{"table": LINES, "leaves_out": NOTHING, **usual, **more})


class Asker:
    """The stub, and a way to ask it."""

    def __init__(self, stub: Stub, url: str):
        self.stub, self._url = stub, url

    def ask(self, path: str, *, method: str = "GET", body: Any = None, token: str = "stub-token") -> tuple[int, Any]:
        answer = self.answer(path, method=method, body=body, token=token)
        return answer.status_code, answer.json()

    def answer(
        self, path: str, *, method: str = "GET", body: Any = None, token: str = "stub-token"
    ) -> requests.Response:
        headers = {"Authorization": token}
        return requests.request(method, f"{self._url}/v1{path}", json=body, headers=headers, timeout=5)

    def data(self, path: str, **more: Any) -> Any:
        status, data = self.ask(path, **more)
        assert status == 200, data
        return data


@contextmanager
def served(*entities: Entity) -> Iterator[Asker]:
    stub = Stub(Store(mirror(*entities), EXAMPLES))
    with serving.in_thread(stub) as url:
        yield Asker(stub, url)


def mirror(*entities: Entity) -> Mirror:
    every = timedelta(minutes=5)
    return Mirror("shop", "/v1", lambda token: {"Authorization": token}, entities or (tools(), lines()), every)


def ids(rows: list[dict]) -> list[str]:
    return [row["id"] for row in rows]


class TestLists:
    def test_numbered_pages_tell_their_totals(self):
        with served() as shop:
            first, last, behind = (shop.data(f"/tools?page={number}") for number in (1, 3, 4))
        assert first["meta"] == {"total_pages": 3, "total_entries": 10}
        assert (ids(first["tools"]), len(last["tools"]), behind["tools"]) == (["t1", "t1-1", "t1-2", "t1-3"], 2, [])

    def test_pages_of_spring_say_which_is_the_last(self):
        with served() as shop:
            first, last = (shop.data(f"/lines?page={number}") for number in (0, 3))
        assert (first["last"], first["totalPages"], first["totalElements"], len(first["lines"])) == (False, 4, 15, 4)
        assert (last["last"], len(last["lines"])) == (True, 3)

    @pytest.mark.parametrize("in_body", [False, True])
    def test_a_cursor_leads_to_the_next_page_until_there_is_none(self, in_body):
        paginator = Cursor("items", param="after", token="next", more="more", in_body=in_body)
        method = "POST" if in_body else "GET"
        listing = Request("/tools/search", method=method, body={"all": True} if in_body else None)
        pages, token = [], None
        with served(tools(listing=listing, paginator=paginator)) as shop:
            while not pages or token:
                after = {"after": token} if token else {}
                query = f"?after={token}" if token and not in_body else ""
                body = {"all": True, **after} if in_body else None
                page = shop.data(f"/tools/search{query}", method=method, body=body)
                pages.append(page["items"])
                token = page.get("next")
                assert page["more"] == bool(token)
        assert list(map(len, pages)) == [4, 4, 2]

    @pytest.mark.parametrize(
        ("path", "form"),
        [
            ("data.items", lambda data: data["data"]["items"]),
            ("data.all[*].a.tool", lambda data: [each["a"]["tool"] for each in data["data"]["all"]]),
        ],
    )
    def test_rows_are_where_the_declared_path_leads(self, path, form):
        with served(tools(paginator=Cursor(path, token="data.next"))) as shop:
            data = shop.data("/tools")
            assert (ids(form(data)), bool(data["data"]["next"])) == (["t1", "t1-1", "t1-2", "t1-3"], True)

    def test_the_last_id_leads_to_the_next_page_until_no_more_follow(self):
        with served(tools(paginator=LastId("items"))) as shop:
            found = [shop.data("/tools")]
            while found[-1]["has_more"]:
                found.append(shop.data(f"/tools?starting_after={found[-1]['items'][-1]['id']}"))
        assert [len(page["items"]) for page in found] == [4, 4, 2]
        assert len({id_ for page in found for id_ in ids(page["items"])}) == 10

    @pytest.mark.parametrize("in_body", [False, True])
    def test_an_offset_leads_to_the_rows_behind_it(self, in_body):
        paginator = Offset("items", total="meta.total", in_body=in_body)
        listing = Request("/tools", method="POST", body={"all": True}) if in_body else Request("/tools")
        with served(tools(listing=listing, paginator=paginator)) as shop:
            found = []
            for offset in (0, 4, 9, 10):
                body = {"all": True, "offset": offset} if in_body else None
                query = "" if in_body else f"?offset={offset}"
                found.append(shop.data(f"/tools{query}", method=listing.method, body=body))
        assert [len(page["items"]) for page in found] == [4, 4, 1, 0]
        assert {page["meta"]["total"] for page in found} == {10}

    @pytest.mark.parametrize("kind", [Cursor, NextLink, Offset, PageNumber, SpringPage])
    def test_a_page_that_no_answer_has_named_is_refused(self, kind):
        paginator = kind("items")
        param = "skip_token" if isinstance(paginator, NextLink) else paginator.param
        with served(tools(paginator=paginator)) as shop:
            assert shop.ask(f"/tools?{param}=hush")[0] == 400

    @pytest.mark.parametrize("key", [None, "next"])
    def test_a_link_leads_to_the_next_page_and_asks_for_the_same(self, key):
        paginator = NextLink("items", key=key, total="count")
        with served(tools(paginator=paginator, listing=Request("/tools", {"sort": "id"}))) as shop:
            found, link = [], "?sort=id"
            while link:
                answer = shop.answer(f"/tools?{urlsplit(link).query}")
                found.append(answer.json())
                link = found[-1].get("next") if key else answer.links.get("next", {}).get("url")
        assert [len(page["items"]) for page in found] == [4, 4, 2]
        assert {page["count"] for page in found} == {10}

    def test_a_single_answer_is_the_whole_list(self):
        with served(tools(paginator=Single(), changes=FullList())) as shop:
            assert len(shop.data("/tools")) == 10
        with served(tools(paginator=Single("items"), changes=FullList())) as shop:
            assert len(shop.data("/tools")["items"]) == 10

    def test_a_list_that_is_read_from_both_ends_begins_with_what_changed_last(self):
        with served(tools(changes=BothEnds())) as shop:
            shop.stub.store.update(shop.stub.store.source.entities[0], 7, "note", "new")
            assert shop.data("/tools")["tools"][0]["note"] == "new"


def between(listing: Request, start: datetime, end: datetime) -> Request:
    return replace(listing, body={"filter": {"from": start.isoformat(), "to": end.isoformat()}})


class TestChanges:
    @pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y %H:%M", "%s"])
    def test_since(self, form):
        moment = datetime.now(UTC) - timedelta(hours=1)
        text = str(int(moment.timestamp())) if form == "%s" else moment.strftime(form)
        with served(tools(changes=Since("since", format=form))) as shop:
            assert shop.data(f"/tools?since={text}")["tools"] == []
            new = shop.stub.store.insert(shop.stub.store.source.entities[0])
            assert ids(shop.data(f"/tools?since={text}")["tools"]) == [new["id"]]
            assert len(shop.data("/tools")["tools"]) == 4

    def test_window_has_two_ends_which_belong_to_it(self):
        now, hour = datetime.now(UTC), timedelta(hours=1)
        listing = Request("/tools/search", method="POST", body={"filter": {}})
        with served(tools(listing=listing, changes=Window(between))) as shop:
            shop.stub.store.insert(shop.stub.store.source.entities[0])
            windows = [(now - hour, now + hour), (now - 2 * hour, now - hour), (now + hour, now + 2 * hour)]
            found = [between(listing, *each).body for each in windows]
            assert [len(shop.data("/tools/search", method="POST", body=body)["tools"]) for body in found] == [1, 0, 0]


class TestLookups:
    def test_own_address(self):
        with served() as shop:
            assert shop.data("/tools/t1-3")["tool"]["id"] == "t1-3"
            assert shop.ask("/tools/nobody")[0] == 404

    def test_children_are_a_list_and_inside_their_parent(self):
        with served() as shop:
            assert ids(shop.data("/lines?tool=t1")["lines"]) == ["l1", "l1-10"]
            assert ids(shop.data("/tools/t1")["tool"]["lines"]) == ["l1", "l1-10"]
            assert shop.data("/lines?tool=nobody")["lines"] == []

    def test_several_at_once(self):
        def request(values: list[tuple]) -> Request:
            return Request("/tools/some", method="POST", body={"ids": [id_ for (id_,) in values]})

        batch = Lookup(request=request, rows=lambda data: data["found"], own=False, batch=50, witness=OWN)
        with served(tools(lookup=batch)) as shop:
            found = shop.data("/tools/some", method="POST", body={"ids": ["t1-2", "nobody", "t1"]})
        assert sorted(ids(found["found"])) == ["t1", "t1-2"]

    def test_parts_are_asked_for_by_name(self):
        def of(listing: Request, cities: list[str]) -> Request:
            return replace(listing, params={**listing.params, "cities": ",".join(cities)})

        parts = Partitions(lambda context: ["Ulm"], of, column="city", size=2)
        with served(tools(partitions=parts)) as shop:
            shop.stub.store.update(shop.stub.store.source.entities[0], 0, "city", "Rom")
            counts = [
                shop.data(f"/tools?cities={cities}")["meta"]["total_entries"] for cities in ("Ulm,Bonn", "Rom,Ulm")
            ]
        assert counts == [9, 10]


def feed(kind: str, more: str = "") -> Feed:
    """The feed that all entities share, of which one takes the events of its own."""
    return Feed(
        request=lambda since: Request("/events", {"created[gte]": as_unix_time(since)}),
        paginator=LastId("data"),
        record=lambda event: event["object"] if event["type"] == f"{kind}.updated" else None,
        deleted=lambda event: event["object"] if event["type"] == f"{kind}.deleted" else None,
    )


def telling(entity: str) -> Telling:
    def event(kind: str, record: dict, moment: datetime) -> dict:
        kind = "deleted" if kind == "deleted" else "updated"
        return {"id": moment.isoformat(), "type": f"{entity}.{kind}", "object": record}

    return event


PEOPLE = Table("shop", "people", (Column("id"), Column("name")), version=None)


def people(**more: Any) -> Listed:
    own = Lookup(request=lambda id_: Request(f"/people/{quote(id_, safe='')}"), rows=lambda data: [data])
    return Listed(PEOPLE, own, Request("/people"), LastId("data"), leaves_out=NOTHING, **more)


class TestFeeds:
    def test_begin_with_the_oldest_if_the_vendor_does(self):
        entity = tools(changes=feed("tools"))
        store = Store(mirror(entity), EXAMPLES, telling={"tools": telling("tools")})
        start = int(datetime.now(UTC).timestamp()) - 60
        with serving.in_thread(Stub(store, oldest_first={"tools"})) as url:
            for note in ("first", "second"):
                store.update(entity, 0, "note", note)
            told = Asker(store, url).data(f"/events?created[gte]={start}")["data"]
        assert [event["object"]["note"] for event in told] == ["first", "second"]

    def test_of_a_new_record_name_one_that_was_never_there(self):
        entity = tools(changes=feed("tools"))
        store = Store(mirror(entity), EXAMPLES, telling={"tools": telling("tools")})
        first = store.insert(entity)
        store.delete(entity, len(store.rows["tools"]) - 1)
        assert store.insert(entity)["id"] != first["id"]

    def test_tell_each_change_since_a_time_newest_first(self):
        entities = tools(changes=feed("tools")), people(changes=feed("people"))
        examples = {**EXAMPLES, "people": [{"id": "p1", "name": "Ann"}]}
        events = {"tools": telling("tools"), "people": telling("people")}
        store = Store(mirror(*entities), examples, telling=events)
        start = int(datetime.now(UTC).timestamp()) - 60
        stub = Stub(store)
        with serving.in_thread(stub) as url:
            shop = Asker(stub, url)
            assert shop.data(f"/events?created[gte]={start}") == {"data": [], "has_more": False}
            tool = store.insert(entities[0])
            store.update(entities[1], 2, "name", "Bob")
            store.delete(entities[0], 1)
            store.delete(entities[0], 1, silent=True)
            told = shop.data(f"/events?created[gte]={start}")["data"]
            assert shop.data(f"/events?created[gte]={start + 120}")["data"] == []
        assert [event["type"] for event in told] == ["tools.deleted", "people.updated", "tools.updated"]
        assert ids([event["object"] for event in told]) == ["t1-1", "p1-2", tool["id"]]

    def test_of_new_records_that_only_name_them_are_refused(self):
        changes = replace(feed("tools"), record=lambda event: None, deleted=lambda event: event["object"])
        with pytest.raises(WrongExamples, match="finds no record in an event of kind 'created'"):
            Store(mirror(tools(changes=changes)), EXAMPLES, telling={"tools": telling("tools")})

    @pytest.mark.parametrize(
        ("telling", "why"),
        [
            ({}, r"shop.tools has a Feed, and nothing makes its events: give stubbed(..., events={'tools': "),
            ({"tools": telling("else")}, "the Feed of shop.tools finds no record in an event of kind 'created'"),
            (
                {"tools": lambda kind, record, moment: {"id": "e"}},
                "the Feed of shop.tools can't read (KeyError: 'type') an event of kind 'created'",
            ),
        ],
    )
    def test_that_nothing_tells_or_reads_are_refused(self, telling, why):
        with pytest.raises(WrongExamples, match=re.escape(why)):
            Store(mirror(tools(changes=feed("tools"))), EXAMPLES, telling=telling)


def labels(*key: str, **more: Any) -> Part:
    """Labels inside tools."""
    table = Table("shop", "labels", (Column("tool_id"), Column("id"), Column("text")), key=key, version=None)
    return Part(table, lambda tool: [{**label, "tool_id": tool["id"]} for label in tool["labels"]], by=("tool_id",))


LABELED = {"tools": [{**TOOL, "labels": [{"id": "red", "text": "Red"}, {"id": "new", "text": "New"}]}]}


class TestRowsInsideRecords:
    def test_name_the_record_that_they_are_in_also_if_the_api_names_it(self):
        part = replace(labels("id"), rows=lambda tool: tool["labels"])
        named = {**TOOL, "labels": [{"id": "red", "text": "Red", "tool_id": TOOL["id"]}]}
        store = Store(mirror(tools(parts=(part,))), {"tools": [named]}, unique={"labels"})
        found = [(tool["id"], label["tool_id"]) for tool in store.rows["tools"] for label in tool["labels"]]
        assert len(found) == 10 == len(set(found))
        assert all(tool == label for tool, label in found)

    def test_share_their_ids_where_the_key_tells_them_apart(self):
        store = Store(mirror(tools(parts=(labels("tool_id", "id"),))), LABELED)
        found = [[label["id"] for label in tool["labels"]] for tool in store.rows["tools"]]
        assert found == [["red", "new"]] * 10

    def test_have_ids_of_their_own_where_the_api_says_so(self):
        store = Store(mirror(tools(parts=(labels("id"),))), LABELED, unique={"labels"})
        found = [label["id"] for tool in store.rows["tools"] for label in tool["labels"]]
        assert len(set(found)) == 20

    def test_are_asked_about_where_the_key_would_lose_some(self):
        why = (
            "and labels would keep only one of them: add tool_id to its key. If the API says that no two records share"
        )
        with pytest.raises(WrongExamples, match=why):
            Store(mirror(tools(parts=(labels("id"),))), LABELED)

    @pytest.mark.parametrize(
        ("labels_of", "why"),
        [
            ({}, "`rows` of the Part can't read an example of shop.tools as rows of labels (KeyError: 'labels')"),
            ({"labels": [{"id": "red"}]}, "no example of shop.labels has the field text of column text: add it"),
        ],
    )
    def test_that_the_examples_lack_are_refused(self, labels_of, why):
        examples = {"tools": [{**TOOL, **labels_of}]}
        with pytest.raises(WrongExamples, match=re.escape(why)):
            Store(mirror(tools(parts=(labels("tool_id", "id"),))), examples)


class TestFaults:
    def test_once_and_for_good(self):
        with served() as shop:
            shop.stub.fault(Fault(500))
            assert [shop.ask("/tools")[0] for _ in range(2)] == [500, 200]
            shop.stub.fault(Fault(503, times=None))
            assert [shop.ask(path)[0] for path in ("/tools", "/tools/t1")] == [503, 503]
            shop.stub.clear()
            assert shop.ask("/tools")[0] == 200

    def test_at_one_page_of_a_list(self):
        with served() as shop:
            shop.stub.fault(Fault(502, entity="tools", after=1))
            asked = ["/tools/t1", "/lines", "/tools?page=1", "/tools?page=2", "/tools?page=3"]
            assert [shop.ask(path)[0] for path in asked] == [200, 200, 200, 502, 200]

    def test_a_page_that_lost_its_rows(self):
        with served() as shop:
            shop.stub.fault(Fault(dropped=True))
            assert shop.data("/tools") == {"tools": [], "meta": {"total_pages": 3, "total_entries": 10}}
            assert len(shop.data("/tools")["tools"]) == 4

    def test_a_wrong_token_and_an_unknown_address(self):
        with served() as shop:
            assert (shop.ask("/tools", token="wrong")[0], shop.ask("/elsewhere")[0]) == (401, 404)


class TestStore:
    def test_a_record_takes_its_children_with_it(self):
        store = Store(mirror(), EXAMPLES)
        store.delete(store.source.entities[0], 0, silent=True)
        assert (len(store.rows["tools"]), len(store.rows["lines"])) == (9, 13)

    def test_a_delete_is_told_where_the_api_does(self):
        columns = tuple(replace(each, read=boolean) if each.name == "gone" else each for each in COLUMNS)
        store = Store(mirror(tools(table=replace(TOOLS, columns=columns, tombstone="gone"))), EXAMPLES)
        store.delete(store.source.entities[0], 0)
        assert (len(store.rows["tools"]), store.rows["tools"][0]["gone"]) == (10, True)
        assert store.rows["tools"][0]["changed"] > TOOL["changed"]

    @pytest.mark.parametrize(
        ("examples", "why"),
        [
            (
                {"tools": [{"id": "t1"}, {"id": "t2", "city": "Ulm", "note": ""}]},
                "no example of shop.tools has the field gone of column gone: add it, or see what the API calls it",
            ),
            (
                {"tools": [{**TOOL, "changed": 1772355600}]},
                "column changed of shop.tools refuses its value in an example, which is no ISO 8601 time: see its",
            ),
            ({"tools": [{**TOOL, "id": None}]}, "no usable key can be made from the examples of shop.tools"),
            ({"tools": [TOOL, TOOL]}, "two records of shop.tools get the same key"),
        ],
    )
    def test_examples_that_can_not_be_used(self, examples, why):
        with pytest.raises(WrongExamples, match=why):
            Store(mirror(tools()), examples)

    def test_a_reader_that_makes_nothing_of_an_example(self):
        table = replace(TOOLS, columns=(*COLUMNS, Column("owner", identifier, "owner.id")))
        with pytest.raises(
            WrongExamples, match=r"column owner of shop\.tools makes nothing of its value in an example"
        ):
            Store(mirror(tools(table=table)), {"tools": [{**TOOL, "owner": {"id": "per_1"}}]})


BROKEN = Lookup(request=lambda id_: Request(f"/tools/{int(id_)}"), rows=OWN.rows)
BLIND = Lookup(request=lambda id_: Request("/tools/any"), rows=OWN.rows)
WORDY = Window(lambda listing, start, end: replace(listing, params={"when": f"from {start} to {end}"}))
BLIND_PARTS = Partitions(lambda context: [], lambda listing, cities: listing, column="city")


class TestNotServed:
    """One line, which says what the stub doesn't know and what to write by hand."""

    @pytest.mark.parametrize(
        ("entity", "why"),
        [
            (tools(lookup=BROKEN), "the look-up of shop.tools takes no text (ValueError)"),
            (tools(lookup=BLIND), "the look-up of shop.tools doesn't show which id it asks for"),
            (tools(changes=WORDY), "shop.tools is asked for changes in a form that is no time: 'from 2031-03-04"),
            (
                tools(changes=Since("since", format="week %U")),
                "shop.tools is asked for changes in a form that is no time: 'week 09'",
            ),
            (tools(partitions=BLIND_PARTS), "shop.tools doesn't show which parts it asks for"),
        ],
    )
    def test_ways_that_are_not_known(self, entity, why):
        with pytest.raises(NotServed) as caught:
            Stub(Store(mirror(entity), EXAMPLES))
        assert str(caught.value).startswith(why)
        assert str(caught.value).endswith("adapter (tests/contract/shop.py) by hand, as tekmetric has them")

    @pytest.mark.parametrize(
        ("source", "why"),
        [("tekmetric", "is found by lists in brief"), ("square", "deletes rows with others")],
    )
    def test_declared_sources_that_have_simulators_for_that_reason(self, source, why):
        with pytest.raises(NotServed, match=why):
            Stub(SimpleNamespace(source=get_source(source), rows={}))


class TestWrongLookup:
    """One line, which says what became of the answer, and what to change."""

    @pytest.mark.parametrize(
        ("path", "rows", "why"),
        [
            ((), lambda data: [{**data["tool"], "more": 1}], 'from the answer {"tool": <record>} `rows` reads other'),
            ((), lambda data: [{**data["tool"], "more": 1}], "records than the examples: with more"),
            ((), lambda data: [each["x"] for each in data["all"]], "`rows` reads nothing (KeyError: 'x')"),
            ((), lambda data: [data["tool"], data["tool"]], "`rows` reads 2 records in place of 1"),
            (("tool", "id"), lambda data: data["tool"], "but `check` refuses it: its tool.id is missing"),
            (("tool", "number"), lambda data: [data["tool"]], "but `check` refuses it: its tool.number is missing"),
        ],
    )
    def test_says_what_the_reader_did(self, path, rows, why):
        def request(id_: str) -> Request:
            return Request(f"/tools/{quote(id_, safe='')}", check=names(id_, *path) if path else None)

        with pytest.raises(WrongLookup) as caught:
            Stub(Store(mirror(tools(lookup=Lookup(request=request, rows=rows))), EXAMPLES))
        assert str(caught.value).startswith("the look-up of shop.tools (GET /tools/t1) doesn't find the example: from")
        assert why in str(caught.value)
        assert "Change `rows` and `check` so that they read the API's answer" in str(caught.value)


class TestGone:
    """A deleted record's own address may answer that it is deleted, in place of a 404."""

    GONE: ClassVar[dict] = {"tools": lambda record: {"tool": {"id": record["id"], "deleted": True}}}
    LIVING = replace(OWN, rows=lambda data: [] if data["tool"].get("deleted") else [data["tool"]])

    def test_is_said_of_what_was_deleted_alone(self):
        stub = Stub(Store(mirror(tools(lookup=self.LIVING), lines()), EXAMPLES), gone=self.GONE)
        with serving.in_thread(stub) as url:
            shop = Asker(stub, url)
            stub.store.delete(tools(), 2)
            assert shop.data("/tools/t1-2") == {"tool": {"id": "t1-2", "deleted": True}}
            assert shop.ask("/tools/t99")[0] == 404

    @pytest.mark.parametrize(
        ("wrong", "why"),
        [
            ({"gone": {"tool": lambda record: {}}}, "`gone` names tool, which shop doesn't have: it has tools, lines"),
            ({"oldest_first": {"tool"}}, "`oldest_first` names tool, which shop doesn't have: it has tools, lines"),
            ({"oldest_first": {"tools"}}, "`oldest_first` names tools, whose changes are no Feed: leave it out"),
        ],
    )
    def test_names_that_mean_nothing_are_refused(self, wrong, why):
        with pytest.raises(WrongExamples, match=re.escape(why)):
            Stub(Store(mirror(), EXAMPLES), **wrong)

    def test_has_to_be_read_as_no_record(self):
        with pytest.raises(WrongLookup, match=r"shop\.tools does not read the answer about a deleted record as none"):
            Stub(Store(mirror(tools(), lines()), EXAMPLES), gone=self.GONE)
