"""RepairShopr's invoices have a number, by which their address takes them too: it may be the id of another one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from include.simulators.repairshopr import Mutation
from include.sources.base import SyncFailed
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.repair import repair_entities, verify_repair
from include.sources.mirror.sync import sync_entities

from .conftest import Shop
from .test_mirror_evidence import doubts, emptied_with_its_totals, live, replace_context
from .test_scan import scanned
from .twisted import always, twisted


@pytest.fixture
def numbered(open_shop: Callable[..., Shop]) -> tuple[Shop, list[int]]:
    """A synced account with invoices whose numbers are the ids of others, and all ids."""
    shop = open_shop(invoices=30, line_items=90, customers=3, payments=3, products=3, tickets=3, estimates=3)
    ids = sorted(shop.control.ids("invoices"))
    for gone, other in ((ids[0], ids[1]), (ids[2], ids[3])):
        shop.control.mutate(Mutation("update", "invoices", other, {"number": str(gone)}))
    sync_entities(shop.context)
    return shop, ids


@contextmanager
def number_first(shop: Shop) -> Iterator[MirrorContext]:
    """The vendor looks for the number first, and so shows another invoice than the one that has the id."""
    numbers = {row["number"]: row for row in shop.control.rows("invoices")}

    def by_number(request, data):
        found = numbers.get(request.path.removeprefix("/invoices/"))
        return {"invoice": found | {"line_items": []}} if found else data

    with twisted(shop.context, always(by_number, "/invoices/")) as context:
        yield context


@pytest.mark.parametrize("entity", ["invoices", "line_items"])
def test_an_invoice_is_gone_if_its_address_shows_one_with_that_number(numbered, conn, entity):
    shop, ids = numbered
    shop.control.mutate(Mutation("delete", "invoices", ids[0]))
    summary = scanned(shop, entity)
    assert summary.metrics["unproven"] == 0
    assert summary.plan.delete > 0
    sync_id, _ = repair_entities(shop.context, [summary])
    assert not any(check.worse for check in verify_repair(shop.context, [summary], sync_id))
    assert live(conn, entity) <= set(shop.control.ids(entity))


@pytest.mark.parametrize("stale", [False, True])
def test_an_invoice_is_not_gone_if_its_address_prefers_numbers(numbered, conn, stale):
    """Nor if the copy is behind: the other invoice has another number by now, so the address has nothing to prefer."""
    shop, ids = numbered
    if stale:
        shop.control.mutate(Mutation("update", "invoices", ids[3], {"number": "1"}))

    def hidden(request, data):
        kept = [row for row in data["invoices"] if row["id"] != ids[0]]
        return {**data, "invoices": kept}

    with number_first(shop) as context:
        exchange = context.client.twist
        context.client.twist = lambda request, data: (
            hidden(request, data) if request.path == "/invoices" else exchange(request, data)
        )
        summary = scanned(replace_context(shop, context), "invoices")
    assert summary.plan.delete == 0
    assert ids[0] in doubts(conn, "invoices")


def test_what_the_address_prefers_is_asked_once(numbered, conn):
    shop, ids = numbered
    shop.control.mutate(Mutation("update", "invoices", ids[5], {"number": str(ids[4])}))
    sync_entities(shop.context)
    shop.control.mutate(*(Mutation("delete", "invoices", ids[place]) for place in (0, 2)))
    asked = []

    def note(request, data):
        asked.append(request.path)
        return data

    with twisted(shop.context, note) as context:
        summary = scanned(replace_context(shop, context), "invoices")
    assert summary.plan.delete == 2
    assert asked.count(f"/invoices/{ids[4]}") == 1


def test_lines_are_not_gone_because_the_address_of_their_listed_invoice_shows_another(numbered, conn):
    """The invoices' list has just shown it, so one of the two is wrong."""
    shop, ids = numbered
    before = live(conn, "line_items")
    shop.control.mutate(Mutation("update", "invoices", ids[0], {"note": "changed"}))
    other = next(row for row in shop.control.rows("invoices") if row["number"] == str(ids[0]))

    def lie(request, data):
        if request.path == f"/invoices/{ids[0]}":
            return {"invoice": other | {"line_items": []}}
        its_lines = request.path == "/line_items" and request.params.get("invoice_id") == ids[0]
        return emptied_with_its_totals(request, data) if its_lines else data

    with (
        twisted(shop.context, lie) as context,
        pytest.raises(SyncFailed, match=r"line_items \d+ \(its parent is not at its own address"),
    ):
        sync_entities(context)
    assert live(conn, "line_items") == before


def test_without_an_invoice_to_try_it_nobody_knows(numbered, conn):
    shop, ids = numbered
    shop.control.mutate(Mutation("update", "invoices", ids[3], {"number": "1"}))
    sync_entities(shop.context)
    shop.control.mutate(Mutation("delete", "invoices", ids[0]))
    summary = scanned(shop, "invoices")
    assert (summary.plan.delete, summary.metrics["unproven"]) == (0, 1)
    (reason,) = conn.execute("SELECT why FROM confidence.unproven WHERE entity = 'invoices'").fetchone()
    assert "shows another row of invoices, whose number is the id" in reason
