"""Each kind of lie makes another answer of the truth, for the shapes that vendors have."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from tests.liar import bucket_lies, lies
from tests.liar.lies import KINDS, OF_WRITES, WRITES, Telling
from tests.liar.wire import Asked, Reply

LINE = {"id": 5, "invoice_id": 1, "name": "Work", "price": "95.0", "taxable": True}
INVOICE = {
    "id": 1,
    "number": "20418",
    "total": "332.45",
    "updated_at": "2026-02-03T16:02:40.117Z",
    "line_items": [LINE],
}
PAGE = {
    "invoices": [INVOICE, {**INVOICE, "id": 2}, {**INVOICE, "id": 3}],
    "meta": {"total_pages": 2, "total_entries": 5, "page": 1},
}
OLD = {**PAGE, "invoices": [{**INVOICE, "total": "1.0"}, {**INVOICE, "id": 9}]}
SHAPES = {
    "page": PAGE,
    "spring": {"content": PAGE["invoices"], "totalElements": 5, "last": False, "number": 0, "totalPages": 2},
    "plain list": PAGE["invoices"],
    "record": {"invoice": INVOICE},
    "bare record": INVOICE,
}
ALWAYS = {"": {"number", "total"}, "line_items": {"price"}, ".": {"number"}}
LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult><Name>images</Name><KeyCount>2</KeyCount><IsTruncated>false</IsTruncated>\
<Contents><Key>a/1</Key><Size>7</Size></Contents><Contents><Key>b/2</Key><Size>7</Size></Contents></ListBucketResult>"""


def told(kind: lies.Lie, truth: Reply | None, method: str = "GET", seed: int = 0) -> Reply:
    asked = Asked(method, "/invoices", (("page", "1"),), b"")
    worlds = {
        "now": truth or Reply(200),
        "old": Reply(200).saying(OLD),
        "filtered": Reply(200).saying({"invoices": []}),
    }

    async def ask(other: Asked = asked, world: str = "now") -> Reply:
        return replace(worlds.get(world, Reply(404)), headers={"date": "Mon, 05 Jan 2026 12:00:00 GMT"})

    telling = Telling(
        random=Random(seed),
        of_run=Random(seed),
        earlier=(Reply(200).saying(OLD),),
        asked=asked,
        ask=ask,
        others=(Asked("GET", "/invoices/7", (), b""),),
        elsewhere=(Asked("GET", "/customers", (), b""),),
        always=ALWAYS,
        count=0,
        first_page=1,
    )
    return asyncio.run(kind(telling, truth))


@pytest.mark.parametrize("shape", SHAPES)
def test_lies_differ_from_the_truth(shape):
    """Each kind of lie changes an answer at some seed, unless it needs something that the answer's shape lacks."""
    truth = Reply(200, headers={"date": "Mon, 05 Jan 2026 12:00:00 GMT"}).saying(SHAPES[shape])
    honest = {name for name, kind in KINDS.items() if all(told(kind, truth, seed=seed) == truth for seed in range(30))}
    one = {"short", "repeated", "mixed_up", "miscounted", "doubled", "torn"}
    needs = {"page": set(), "spring": set(), "plain list": {"miscounted"}, "record": one, "bare record": one}
    # The same answer comes from another question, in this test.
    assert honest - {"swapped", "astray", "mixed_up"} <= needs[shape], shape


def test_nothing_of_the_truth_is_changed_in_place():
    truth = Reply(200).saying(PAGE)
    before = truth.body
    for kind in KINDS.values():
        for seed in range(10):
            told(kind, truth, seed=seed)
    assert truth.body == before
    assert truth.data == PAGE


@pytest.mark.parametrize("name", bucket_lies.KINDS)
def test_lies_about_a_bucket_differ_from_the_truth(name):
    kind = bucket_lies.KINDS[name]
    listing, found = Reply(200, LISTING.encode()), Reply(200, b"", {"content-length": "7"})
    of_list = [told(kind, listing, seed=seed) != listing for seed in range(20)]
    of_object = [told(kind, found, "HEAD", seed) != found for seed in range(20)]
    assert any(of_list) or any(of_object)


def test_lies_about_a_write_are_told_without_asking():
    for kind in WRITES.values():
        assert told(kind, None, "POST").status in range(600)
    assert set(OF_WRITES) <= set(KINDS)


def test_rows_are_those_that_lie_least_deep():
    assert lies.rows_of(PAGE) == PAGE["invoices"]
    assert lies.rows_of({"invoice": INVOICE}) is None
    assert lies.records_of({"invoice": INVOICE}) == [INVOICE]
    assert lies.rows_of([]) == []
    assert lies.rows_of({}) is None


def test_a_poorer_record_lacks_what_all_have():
    truth = Reply(200).saying(PAGE)
    for seed in range(20):
        lacking = [
            (name, field)
            for name, records in lies.by_list(told(KINDS["poorer"], truth, seed=seed).data)
            for record in records
            for field in ALWAYS[name] - lies.filled(record)
        ]
        assert lacking
