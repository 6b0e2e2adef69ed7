"""Recorded answers against declarations: what both could get wrong alike is told in one line."""

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from include.api.paginators import Cursor, LastId, NextLink, PageNumber, Paginator, Single, SpringPage
from include.api.request import Answer, Request
from include.sources.mirror.entity import Part
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.readers import identifier
from include.warehouse.table import Column, Table
from tests.contract.recorded import Recorded, read_examples
from tests.stub import WrongExamples
from tests.stub.test_stub import TOOL, feed, lines, mirror, tools

LOOKUP = {"tool": TOOL}
LINK = {"link": '<https://api.shop.example/v1/tools?page=2>; rel="next"'}
LINE = {"id": "l1", "tool": {"id": "t1"}}


def read(listing: Any, lookup: Any = LOOKUP, *, witness: Any = None, events: Any = None, **entity: Any) -> Any:
    recorded = Recorded(listing=listing, lookup=lookup, witness=witness, feed=events)
    return read_examples(mirror(tools(**entity)), {"tools": recorded})["tools"]


@pytest.mark.parametrize(
    ("paginator", "listing"),
    [
        (Cursor("items", token="page.next"), {"items": [TOOL], "page": {"next": "b"}}),
        (Cursor("items[*].tool"), {"items": [{"tool": TOOL}], "cursor": "b"}),
        (LastId("items"), {"items": [TOOL], "has_more": True}),
        (NextLink(), Answer([TOOL], headers=LINK)),
        (NextLink("value", key="next"), {"value": [TOOL], "next": "https://api.shop.example/v1/tools?skip=1"}),
        (PageNumber("items"), {"items": [TOOL]}),
        (Single(), [TOOL]),
        (Single("data.items"), {"data": {"items": [TOOL]}}),
    ],
)
def test_records_are_read_as_the_declaration_says(paginator, listing):
    assert read(listing, paginator=paginator) == [TOOL]


@pytest.mark.parametrize(
    ("paginator", "listing", "why"),
    [
        (Cursor("items", token="nxt"), {"items": [TOOL], "next": "b"}, "leads to no second page by the token 'nxt'"),
        (
            Cursor("item"),
            {"items": [TOOL], "cursor": "b"},
            "can't be read by its Cursor: the answer has no list 'item'",
        ),
        (Cursor("items"), {"items": [], "cursor": "b"}, "has no records: record a page that has some"),
        (Cursor("items", more="mor"), {"items": [TOOL], "cursor": "b", "more": True}, "has no 'mor', which its Cursor"),
        (
            Cursor("items", token="meta.cursor", more="meta.mor"),
            {"items": [TOOL], "meta": {"cursor": "b", "more": True}},
            "has no 'meta.mor', which its Cursor",
        ),
        (LastId("items", more="more"), {"items": [TOOL], "has_more": True}, "'more' is neither true nor false"),
        (LastId("items"), {"items": [TOOL], "has_more": False}, "leads to no second page by the flag 'has_more'"),
        (NextLink(), [TOOL], "leads to no second page by its Link header"),
        (
            NextLink("items", key="nxt"),
            {"items": [TOOL], "next": "a?b"},
            "leads to no second page by the address 'nxt'",
        ),
        (NextLink("items", key="next", total="n"), {"items": [TOOL], "next": "a?b"}, "has no 'n', which its NextLink"),
        (
            SpringPage("items"),
            {"items": [TOOL], "totalPages": 1, "last": True},
            "leads to no second page by its totals",
        ),
        (PageNumber("items", meta="paging"), {"items": [TOOL], "page": {}}, "has no 'paging', which its PageNumber"),
    ],
)
def test_a_list_that_is_misread_is_told(paginator: Paginator, listing: Any, why: str):
    with pytest.raises(WrongExamples, match=re.escape(why)) as caught:
        read(listing, paginator=paginator)
    assert str(caught.value).startswith("the recorded answer of the list of shop.tools ")


PAGE = {"tools": [TOOL], "meta": {"total_pages": 2}}


@pytest.mark.parametrize(
    ("lookup", "rows", "why"),
    [
        ({"tool": TOOL}, lambda data: data.get("tol", []), "`rows` doesn't find the list's first record"),
        ({"tool": TOOL}, lambda data: [data["tol"]], "(GET /tools/t1) is refused: the answer does not have the"),
        (
            {"tool": {**TOOL, "id": "t9"}},
            lambda data: [data["tool"]],
            "is refused: its tool.id is that of another record",
        ),
        (None, lambda data: [data["tool"]], "ANSWERS lacks the look-up of shop.tools: record what the API answers to"),
        (
            {"tool": {**TOOL, "a": 1, "b": 2}},
            lambda data: [data["tool"]],
            "only the look-up shows a, b (the look-up of",
        ),
        ({"tool": {**TOOL, "more": 1}}, lambda data: [{"id": data["tool"]["id"]}], "only the list shows changed, city"),
    ],
)
def test_a_look_up_that_is_misread_is_told(lookup, rows, why):
    declared = Lookup(
        request=lambda id_: Request(f"/tools/{quote(id_, safe='')}", check=names(id_, "tool", "id")), rows=rows
    )
    with pytest.raises(WrongExamples, match=re.escape(why)):
        read_examples(mirror(tools(lookup=declared)), {"tools": Recorded(listing=PAGE, lookup=lookup)})


@pytest.mark.parametrize(
    ("paginator", "address", "is_told"),
    [
        (PageNumber("tools"), "https://api.shop.example/v1/tools?$skiptoken=9", True),
        (PageNumber("tools"), "https://api.shop.example/v1/tools?page=2", False),
        (PageNumber("tools", param="seite"), "/v1/tools?page=2", True),
        (LastId("tools"), "https://api.shop.example/v1/tools?before=9", True),
        (Cursor("tools", param="after", token="token"), "https://api.shop.example/v1/tools?from=b", True),
        (Cursor("tools", param="from", token="token"), "https://api.shop.example/v1/tools?from=b", False),
        (NextLink("tools", key="@next"), "https://api.shop.example/v1/tools?x=2", False),
        (PageNumber("tools"), "b", False),
    ],
)
def test_an_address_of_the_next_page_that_contradicts_the_paginator_is_told(paginator, address, is_told):
    listing = {"tools": [TOOL], "@next": address, "has_more": True, "token": "b", "@odata.id": address}
    if not is_told:
        assert read(listing, paginator=paginator) == [TOOL]
        return
    with pytest.raises(WrongExamples, match=r"has the address of its next page under '@next', .* take NextLink"):
        read(listing, paginator=paginator)


def test_a_look_up_without_the_rows_inside_a_record_is_told():
    spares = Table("shop", "spares", (Column("tool_id"), Column("id")), key=("tool_id", "id"), version=None)
    part = Part(spares, lambda tool: [{**each, "tool_id": tool["id"]} for each in tool["spares"]], by=("tool_id",))
    table = replace(tools().table, ignored={"spares": "they are rows of spares"})
    full = {**TOOL, "spares": [{"id": "s1"}, {"id": "s2"}]}
    page = {**PAGE, "tools": [full]}
    assert read(page, {"tool": full}, table=table, parts=(part,)) == [full]
    for looked_up, why in (
        (TOOL, "has a record in which the rows of shop.spares can't be read (KeyError: 'spares')"),
        ({**full, "spares": [{"id": "s1"}]}, "shows other rows of shop.spares than the list"),
    ):
        with pytest.raises(WrongExamples, match=re.escape(why)):
            read(page, {"tool": looked_up}, table=table, parts=(part,))


def test_a_field_with_a_dot_is_told_as_it_is_ignored():
    annotated = {"tool": {**TOOL, "@odata.context": "x"}}
    with pytest.raises(WrongExamples, match=r'^only the look-up shows "@odata\.context" \('):
        read_examples(mirror(tools()), {"tools": Recorded(listing=PAGE, lookup=annotated)})
    table = replace(tools().table, ignored={'"@odata.context"': "only a look-up shows it"})
    assert read(PAGE, annotated, table=table) == [TOOL]


def test_a_field_that_is_ignored_under_a_wrong_name_is_told():
    table = replace(tools().table, ignored={"links.uri": "it expires"})
    with pytest.raises(WrongExamples, match=r"^shop\.tools ignores links\.uri, which no recorded answer shows"):
        read(
            {**PAGE, "tools": [{**TOOL, "links": {"url": "x"}}]}, {"tool": {**TOOL, "links": {"url": "x"}}}, table=table
        )


def test_a_field_that_is_ignored_may_be_in_one_answer_alone():
    table = replace(tools().table, ignored={"url": "only the look-up shows it"})
    assert read(PAGE, {"tool": {**TOOL, "url": "x"}}, table=table) == [TOOL]


def test_a_feed_that_is_misread_is_told():
    told = {"id": "e1", "type": "tools.updated", "object": TOOL}
    assert read(PAGE, events={"data": [told], "has_more": True}, changes=feed("tools")) == [TOOL]
    for events, why in (
        (None, "ANSWERS lacks the feed of shop.tools: record the first page of its events"),
        ({"data": [told]}, "the recorded answer of the feed of shop.tools can't be read by its LastId: 'has_more'"),
        ({"data": [{"id": "e1"}], "has_more": True}, "has an event that `record` or `deleted` can't read (KeyError:"),
        ({"data": [{**told, "type": "x.updated"}], "has_more": True}, "has no event in which `record` or `deleted`"),
    ):
        with pytest.raises(WrongExamples, match=re.escape(why)):
            read(PAGE, events=events, changes=feed("tools"))


def test_a_field_that_only_the_feed_shows_is_told_unless_it_is_ignored():
    told = {"id": "e1", "type": "tools.updated", "object": {**TOOL, "exported_at": 1383685952}}
    feeds = {"events": {"data": [told], "has_more": True}, "changes": feed("tools")}
    with pytest.raises(WrongExamples, match=r"^only the feed shows exported_at \(the feed of shop\.tools\)"):
        read(PAGE, **feeds)
    assert read(PAGE, table=replace(tools().table, ignored={"exported_at": "only the feed shows it"}), **feeds)
    other = {**told, "object": {**told["object"], "id": "another"}}
    assert read(PAGE, events={"data": [other], "has_more": True}, changes=feed("tools")) == [TOOL]


def test_a_witness_is_read_too_and_rows_inside_their_parent_need_not_name_it():
    source = mirror(tools(), lines())
    page = {"lines": [LINE], "last": False, "totalPages": 2}
    answers = {
        "tools": Recorded(listing=PAGE, lookup=LOOKUP),
        "lines": Recorded(listing=page, lookup={"lines": [LINE]}, witness={"tool": {**TOOL, "lines": [LINE]}}),
    }
    assert read_examples(source, answers) == {"tools": [TOOL], "lines": [LINE]}
    with pytest.raises(WrongExamples, match=r"ANSWERS lacks the witness of shop\.lines"):
        read_examples(source, {**answers, "lines": replace(answers["lines"], witness=None)})


def test_a_key_that_its_reader_does_not_take_is_told():
    columns = (Column("id", identifier), *tools().table.columns[1:])
    why = "has nothing that the readers of id take: see the columns' fields and readers"
    with pytest.raises(WrongExamples, match=why):
        read(PAGE, table=replace(tools().table, columns=columns))


def test_an_entity_without_answers_is_told():
    with pytest.raises(WrongExamples, match=r"ANSWERS has nothing of tools: give Recorded\(listing=..., lookup=...\)"):
        read_examples(mirror(tools()), {})
