"""Recorded answers against declarations: what both could get wrong alike is told in one line."""

import re
from dataclasses import replace
from typing import Any

import pytest

from include.api.paginators import Cursor, LastId, NextLink, PageNumber, Paginator, Single, SpringPage
from include.api.request import Answer, Request
from include.sources.mirror.entity import Lookup
from include.sources.mirror.lookup import names
from include.warehouse.readers import identifier
from include.warehouse.table import Column
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
        ({"tool": TOOL}, lambda data: [data["tol"]], "(GET /tools/t1) is refused: the answer has not the shape that"),
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
    declared = Lookup(request=lambda id_: Request(f"/tools/{id_}", check=names(id_, "tool", "id")), rows=rows)
    with pytest.raises(WrongExamples, match=re.escape(why)):
        read_examples(mirror(tools(lookup=declared)), {"tools": Recorded(listing=PAGE, lookup=lookup)})


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
