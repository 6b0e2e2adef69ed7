"""What a mirror takes for proof, and what it doesn't: a vendor that lies, lags and leaves things out."""

import time
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest

from include.api.errors import ApiError, NotFound, TryLater
from include.api.request import Request
from include.confidence import unproven
from include.simulators.repairshopr import Fault, Mutation
from include.sources.base import SyncFailed
from include.sources.mirror import repair as repairing
from include.sources.mirror import scan as scanning
from include.sources.mirror import second_look
from include.sources.mirror.repair import repair_entities, reset_watermarks, verify_repair
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence
from include.warehouse.merge import Merged
from include.warehouse.pull import PullError

from .conftest import RUN, SOURCE
from .test_scan import LINES, drift, scanned
from .twisted import always, once, twisted


def live(conn, table):
    return {key for (key,) in conn.execute(f"SELECT id FROM repairshopr.{table} WHERE deleted_at IS NULL")}


def doubts(conn, table):
    return {row.key[0]: row for row in unproven.of(conn, "repairshopr", table)}


def touched_invoice(shop, conn):
    """An invoice with lines, changed at the source without them."""
    (invoice,) = conn.execute(
        "SELECT invoice_id FROM repairshopr.line_items GROUP BY 1 HAVING count(*) > 2 ORDER BY 1 LIMIT 1"
    ).fetchone()
    shop.control.mutate(Mutation("update", "invoices", invoice, {"note": "changed"}))
    return invoice


def emptied(request, data):
    return {**data, "line_items": [], "meta": {**data.get("meta", {}), "total_pages": 1}}


def emptied_with_its_totals(request, data):
    return {"line_items": [], "meta": {"total_pages": 1, "total_entries": 0, "per_page": 100, "page": 1}}


def nameless(request, data):
    return {**data, "line_items": [{**row, "invoice_id": None} for row in data["line_items"]]}


def not_found(request, data):
    raise NotFound("404")


class TestChildrenOfASync:
    @pytest.mark.parametrize("lie", [emptied, emptied_with_its_totals, not_found])
    @pytest.mark.parametrize("often", [once, always])
    def test_are_not_gone_because_their_list_says_so(self, filled, conn, lie, often):
        before = live(conn, "line_items")
        invoice = touched_invoice(filled, conn)
        with twisted(filled.context, often(lie, "/line_items")) as context, suppress(SyncFailed):
            sync_entities(context)
        assert live(conn, "line_items") == before
        sync_entities(filled.context)
        assert live(conn, "line_items") == before
        note = conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone()
        assert note == ("changed",)

    def test_fail_by_name_while_their_list_contradicts_their_invoice(self, filled, conn):
        touched_invoice(filled, conn)
        lie = always(emptied_with_its_totals, "/line_items")
        with twisted(filled.context, lie) as context, pytest.raises(SyncFailed, match="another address does"):
            sync_entities(context)

    def test_are_not_gone_while_the_invoice_that_they_moved_to_cannot_be_read(self, filled, conn):
        left = touched_invoice(filled, conn)
        query = "SELECT id FROM repairshopr.line_items WHERE invoice_id = %s LIMIT 1"
        (line,) = conn.execute(query, [left]).fetchone()
        (joined,) = conn.execute("SELECT max(id) FROM repairshopr.invoices WHERE id <> %s", [left]).fetchone()
        filled.control.mutate(
            Mutation("update", "line_items", line, {"invoice_id": joined}),
            Mutation("update", "invoices", joined, {"note": "changed"}),
        )

        def fail(request, data):
            if request.path == "/line_items" and request.params.get("invoice_id") == joined:
                raise TryLater("503")
            return data

        with twisted(filled.context, fail) as context, pytest.raises(SyncFailed):
            sync_entities(context)
        assert line in live(conn, "line_items")
        sync_entities(filled.context)
        assert conn.execute("SELECT invoice_id FROM repairshopr.line_items WHERE id = %s", [line]).fetchone() == (
            joined,
        )
        assert line in live(conn, "line_items")

    def test_are_not_gone_because_their_listed_invoice_is_not_found(self, filled, conn):
        invoice = touched_invoice(filled, conn)
        before = live(conn, "line_items")

        def lie(request, data):
            if request.path == f"/invoices/{invoice}":
                raise NotFound("404")
            return emptied_with_its_totals(request, data) if request.path == "/line_items" else data

        with (
            twisted(filled.context, lie) as context,
            pytest.raises(SyncFailed, match=r"line_items \d+ \(its parent is not at its own address"),
        ):
            sync_entities(context)
        assert live(conn, "line_items") == before
        sync_entities(filled.context)
        assert live(conn, "line_items") == before

    @pytest.mark.parametrize("lines", [{}, "", None, "none"])
    def test_are_not_gone_because_their_invoice_has_something_else_than_a_list(self, filled, conn, lines):
        invoice = touched_invoice(filled, conn)
        before = live(conn, "line_items")
        told = []

        def lie(request, data):
            if request.path == f"/invoices/{invoice}":
                told.append(request)
                return {"invoice": {**data["invoice"], "line_items": lines}}
            if request.path == "/line_items" and request.params.get("invoice_id") == invoice:
                return emptied_with_its_totals(request, data)
            if request.path == "/line_items":
                return {**data, "line_items": [row for row in data["line_items"] if row["invoice_id"] != invoice]}
            return data

        with twisted(filled.context, lie) as context:
            with pytest.raises(SyncFailed, match="line_items"):
                sync_entities(context)
            assert told
            summary = scanned(replace_context(filled, context))
        assert (summary.plan.delete, summary.metrics["unproven"] > 0) == (0, True)
        assert live(conn, "line_items") == before

    def test_are_not_gone_because_one_list_says_so_twice(self, filled, conn):
        """Their list tells where it ends, and no other address shows them."""
        lines = replace(LINES, lookup=replace(LINES.lookup, witness=None, complete=True))
        entities = [lines if each.name == lines.name else each for each in SOURCE.entities]
        touched_invoice(filled, conn)
        before = live(conn, "line_items")
        with twisted(filled.context, always(emptied_with_its_totals, "/line_items")) as context:
            sync_entities(replace(context, source=replace(SOURCE, entities=tuple(entities))))
        assert live(conn, "line_items") == before

    def test_are_not_changed_by_one_address_alone(self, filled, conn):
        """In the same version, which is no news: the whole invoice shows another price."""
        invoice = touched_invoice(filled, conn)
        line, price = conn.execute(
            "SELECT id, price FROM repairshopr.line_items WHERE invoice_id = %s ORDER BY id LIMIT 1", [invoice]
        ).fetchone()

        def dearer(request, data):
            rows = [{**row, "price": "1234.0"} if row["id"] == line else row for row in data["line_items"]]
            return {**data, "line_items": rows}

        with twisted(filled.context, always(dearer, "/line_items", invoice_id=invoice)) as context:
            sync_entities(context)
        query = "SELECT price FROM repairshopr.line_items WHERE id = %s"
        assert conn.execute(query, [line]).fetchone() == (price,)

    def test_are_mended_where_the_invoice_shows_the_same(self, filled, conn):
        invoice = touched_invoice(filled, conn)
        conn.execute("UPDATE repairshopr.line_items SET price = price + 1 WHERE invoice_id = %s", [invoice])
        sync_entities(filled.context)
        assert scanned(filled).plan.update == 0

    def test_are_gone_where_the_invoice_agrees(self, filled, conn):
        invoice = touched_invoice(filled, conn)
        (line,) = conn.execute("SELECT min(id) FROM repairshopr.line_items WHERE invoice_id = %s", [invoice]).fetchone()
        before = live(conn, "line_items")
        filled.control.mutate(Mutation("delete", "line_items", line, silent=True))
        sync_entities(filled.context)
        assert before - live(conn, "line_items") == {line}

    def test_in_a_list_of_their_own_have_to_name_their_invoice(self, filled, conn):
        before = live(conn, "line_items")
        touched_invoice(filled, conn)
        told = "a row doesn't name the invoice_id that was asked for"
        with (
            twisted(filled.context, always(nameless, "/line_items")) as context,
            pytest.raises(SyncFailed, match=told),
        ):
            sync_entities(context)
        assert live(conn, "line_items") == before

    def test_inside_their_invoice_need_not_name_it(self, filled, conn):
        """Its own address was asked, so it agrees that one of them is gone."""
        invoice = touched_invoice(filled, conn)
        (line,) = conn.execute("SELECT min(id) FROM repairshopr.line_items WHERE invoice_id = %s", [invoice]).fetchone()
        filled.control.mutate(Mutation("delete", "line_items", line, silent=True))
        told = []

        def lie(request, data):
            told.append(request)
            return {**data, "invoice": nameless(request, data["invoice"])}

        with twisted(filled.context, always(lie, f"/invoices/{invoice}")) as context:
            sync_entities(context)
        assert told
        assert line not in live(conn, "line_items")

    def test_that_come_later_than_their_invoice_get_a_second_chance(self, filled, conn):
        """A replica shows the new invoice before its lines."""
        customer = filled.control.ids("customers")[0]
        filled.control.mutate(Mutation("insert", "invoices", row={"customer_id": customer}))
        invoice = max(filled.control.ids("invoices"))
        filled.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice, "name": "late"}))
        query = "SELECT name FROM repairshopr.line_items WHERE invoice_id = %s"
        lagging = always(emptied_with_its_totals, "/line_items", invoice_id=invoice)
        with twisted(filled.context, lagging) as context:
            sync_entities(context)
        assert conn.execute(query, [invoice]).fetchall() == []
        sync_entities(filled.context)
        assert conn.execute(query, [invoice]).fetchall() == [("late",)]

    def test_that_are_shown_twice_alike_are_one(self, filled, conn):
        invoice = touched_invoice(filled, conn)
        (line,) = filled.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice}))

        def lie(request, data):
            again = [dict(row) for row in data["line_items"] if row["id"] == line]
            return {**data, "line_items": data["line_items"] + again}

        with twisted(filled.context, always(lie, "/line_items", invoice_id=invoice)) as context:
            sync_entities(context)
        assert line in live(conn, "line_items")

    def test_that_are_shown_in_two_states_are_left_to_the_next_sync(self, filled, conn):
        invoice = touched_invoice(filled, conn)
        (line,) = filled.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice}))

        def lie(request, data):
            again = [{**row, "name": "shown last"} for row in data["line_items"] if row["id"] == line]
            return {**data, "line_items": data["line_items"] + again}

        query = "SELECT name <> 'shown last' FROM repairshopr.line_items WHERE id = %s"
        twice = twisted(filled.context, always(lie, "/line_items", invoice_id=invoice))
        with twice as context, pytest.raises(SyncFailed, match="shows two different rows with the same key"):
            sync_entities(context)
        assert conn.execute(query, [line]).fetchall() == []
        sync_entities(filled.context)
        assert conn.execute(query, [line]).fetchall() == [(True,)]


@pytest.mark.parametrize(
    ("path", "key"), [("/payments", "payments"), ("/invoices", "invoices"), ("/line_items", "line_items")]
)
@pytest.mark.parametrize("page", [2, 3])
class TestAPageThatContradictsItsTotals:
    def lie(self, path, key, page):
        def emptied(request, data):
            asked = request.params.get("page", 1) == page
            return {**data, key: []} if asked and "invoice_id" not in request.params else data

        return always(emptied, path)

    def test_fails_a_first_load(self, shop, conn, path, key, page):
        with twisted(shop.context, self.lie(path, key, page)) as context, pytest.raises(SyncFailed, match=key):
            sync_entities(context)
        assert not conn.execute("SELECT FROM confidence.sync_state WHERE entity = %s", [key]).fetchall()
        sync_entities(shop.context)

    def test_is_no_evidence(self, filled, conn, path, key, page):
        with twisted(filled.context, self.lie(path, key, page)) as context, pytest.raises(ApiError, match="is empty"):
            scanned(replace_context(filled, context), key)


class TestAListThatIsReadFromBothEnds:
    """Payments come by their ids, 25 to a page, so that the newest of the 190 stand on the eighth."""

    @pytest.fixture
    def filled(self, open_shop, conn):
        few = dict.fromkeys(("customers", "invoices", "line_items", "tickets", "estimates"), 10)
        shop = open_shop(**few, payments=190, products=100)
        sync_entities(shop.context)
        return shop

    @pytest.fixture
    def new(self, filled):
        (payment,) = filled.control.mutate(Mutation("insert", "payments", row={"ref_num": "new"}))
        filled.control.reset_counters()
        return payment

    def test_ends_on_each_side_where_a_page_shows_nothing_young(self, filled, conn, new):
        on_the_page_before = filled.control.ids("payments")[160]
        filled.control.mutate(Mutation("update", "payments", on_the_page_before, {"ref_num": "changed"}))
        sync_entities(filled.context)
        assert new in live(conn, "payments")
        query = "SELECT ref_num FROM repairshopr.payments WHERE id = %s"
        assert conn.execute(query, [on_the_page_before]).fetchone() == ("changed",)
        counters = filled.control.counters()
        # The first page, one that is asked for ahead, and the last three. Products come by their change.
        assert counters.total("GET payments") <= 5
        assert counters.total("GET products") <= 2

    def test_is_read_to_its_end_where_neither_total_nor_order_tells_of_one(self, filled, conn, new):
        filled.control.fault(Fault("total_pages", resource="payments", value=None, times=None))
        sync_entities(filled.context)
        assert new in live(conn, "payments")

    @pytest.mark.parametrize("often", [1, 2])
    def test_may_contradict_its_totals_once(self, filled, conn, new, often):
        told = []

        def lie(request, data):
            if request.params.get("page") == 8 and len(told) < often:
                told.append(request)
                return {**data, "payments": []}
            return data

        fails = pytest.raises(SyncFailed, match=r"payments: .*page 8: .*is empty")
        with twisted(filled.context, always(lie, "/payments")) as context, fails if often > 1 else nullcontext():
            sync_entities(context)
        assert len(told) == often
        assert (new in live(conn, "payments")) is (often == 1)

    def test_and_shows_nothing_is_none(self, filled, conn, new):
        before = live(conn, "payments")

        def lie(request, data):
            return {"payments": [], "meta": {"total_pages": 0, "page": 1}}

        told = f"the list of payments shows nothing, and the copy has {len(before)} rows"
        with twisted(filled.context, always(lie, "/payments")) as context, pytest.raises(SyncFailed, match=told):
            sync_entities(context)
        sync_entities(filled.context)
        assert live(conn, "payments") == before | {new}


def replace_context(shop, context):
    return type(shop)(shop.simulator, context)


class TestAnAnswerThatDoesNotFitTheQuestion:
    @pytest.mark.parametrize(
        "lie",
        [
            lambda request, data: {"message": "temporarily unavailable"},
            lambda request, data: {**data, "errors": ["partial"]},
            lambda request, data: {"customer": {"id": 7, "deleted": True}},
            lambda request, data: {"customer": {"id": data["customer"]["id"], "deleted": True}},
            lambda request, data: {"customer": {**data["customer"], "id": data["customer"]["id"] + 1}},
            lambda request, data: {"customer": []},
            lambda request, data: [],
        ],
    )
    def test_is_unknown_and_named(self, filled, conn, lie):
        (customer,) = conn.execute("SELECT min(id) FROM repairshopr.customers").fetchone()
        conn.execute("UPDATE repairshopr.customers SET notes = 'by hand' WHERE id = %s", [customer])
        with twisted(filled.context, always(lie, "/customers/")) as context:
            summary = scanned(replace_context(filled, context), "customers")
        assert (summary.plan.insert, summary.plan.update, summary.plan.delete) == (0, 0, 0)
        assert summary.metrics["unproven"] == 1
        assert doubts(conn, "customers").keys() == {customer}
        assert summary.proven == summary.rows - 1
        again = scanned(filled, "customers")
        assert (again.plan.update, again.metrics["unproven"]) == (1, 0)

    def test_is_asked_for_once_more(self, filled, conn):
        conn.execute(
            "UPDATE repairshopr.customers SET notes = 'by hand' WHERE id = (SELECT min(id) FROM repairshopr.customers)"
        )
        lie = once(lambda request, data: {"message": "temporarily unavailable"}, "/customers/")
        with twisted(filled.context, lie) as context:
            summary = scanned(replace_context(filled, context), "customers")
        assert (summary.plan.update, summary.metrics["unproven"]) == (1, 0)

    def test_never_erases_a_known_link(self, filled, conn):
        def blank(request, data):
            rows = [{**row, "invoice_id": ""} if place == 3 else row for place, row in enumerate(data["line_items"])]
            return {**data, "line_items": rows} if request.params.get("page", 1) == 1 else data

        links = "SELECT id, invoice_id FROM repairshopr.line_items ORDER BY id"
        before = conn.execute(links).fetchall()
        feed = always(blank, "/line_items", invoice_id_not_null="true")
        with twisted(filled.context, feed) as context:
            scans = [scanned(replace_context(filled, context))]
        assert sum(vars(scans[0].plan).values()) == 0
        repair_entities(filled.context, scans)
        assert conn.execute(links).fetchall() == before


class TestAPoorerRecord:
    @pytest.mark.parametrize("gone", ["email", "created_at", "updated_at"])
    @pytest.mark.parametrize("how", ["missing", "null"])
    def test_does_not_overwrite_the_copy(self, filled, conn, gone, how):
        (customer,) = conn.execute("SELECT min(id) FROM repairshopr.customers WHERE email > ''").fetchone()
        before = conn.execute("SELECT * FROM repairshopr.customers ORDER BY id").fetchall()

        def poorer(request, data):
            def cut(row):
                if row["id"] != customer:
                    return row
                return {name: v for name, v in row.items() if name != gone} | ({gone: None} if how == "null" else {})

            return {**data, "customers": [cut(row) for row in data["customers"]]} if "customers" in data else data

        with twisted(filled.context, always(poorer, "/customers")) as context:
            summary = scanned(replace_context(filled, context), "customers")
            fence.resume(conn, SOURCE.name, RUN)
            with suppress(SyncFailed):
                sync_entities(context)
        assert summary.plan.update == 0
        assert conn.execute("SELECT * FROM repairshopr.customers ORDER BY id").fetchall() == before


class TestTheAccount:
    def test_comes_out_for_every_entity(self, filled, conn):
        drift(filled, conn)
        for entity in SOURCE.entities:
            summary = scanned(filled, entity.name)
            assert summary.incomplete == ""
            for account in summary.accounts.values():
                assert account.wrong_sum == ""
                assert account.listed > 0
            assert summary.proven == summary.rows
        kept = conn.execute("SELECT summary -> 'accounts' FROM confidence.forensic_run").fetchall()
        assert len(kept) == len(SOURCE.entities)

    def test_names_a_refused_row_as_one_that_the_copy_lacks(self, filled, conn):
        filled.control.mutate(Mutation("insert", "customers", row={"firstname": "A\0B"}))
        customer = max(filled.control.ids("customers"))
        summary = scanned(filled, "customers")
        assert summary.metrics["api_unique_not_in_db"] == summary.metrics["unproven"] == 1
        assert "NUL" in doubts(conn, "customers")[customer].why
        assert (summary.incomplete, summary.proven) == ("", summary.rows - 1)

    def test_names_a_row_that_is_refused_twice_once(self, filled, conn):
        filled.control.mutate(Mutation("insert", "customers", row={"firstname": "A\0B"}))
        # The newest come first.
        filled.control.fault(Fault("duplicate_rows", resource="customers", value=1))
        summary = scanned(filled, "customers")
        assert (summary.metrics["rows_refused"], summary.metrics["api_unique_not_in_db"]) == (2, 1)
        assert (summary.accounts["customers"].missing, summary.proven) == (1, summary.rows - 1)

    def test_does_not_take_a_refused_row_that_the_copy_has_for_one_that_it_lacks(self, filled, conn):
        (customer,) = conn.execute("SELECT min(id) FROM repairshopr.customers").fetchone()
        filled.control.mutate(Mutation("update", "customers", customer, {"firstname": "A\0B"}))
        summary = scanned(filled, "customers")
        assert (summary.metrics["rows_refused"], summary.metrics["api_unique_not_in_db"]) == (1, 0)
        assert doubts(conn, "customers").keys() == {customer}
        assert (summary.accounts["customers"].missing, summary.proven) == (0, summary.rows - 1)

    def test_of_refused_rows_alone_is_none(self, filled, conn):
        def refused(request, data):
            return {**data, "estimates": [{**row, "number": "\0"} for row in data["estimates"]]}

        with (
            twisted(filled.context, always(refused, "/estimates")) as context,
            pytest.raises(PullError, match="20 of 20 rows"),
        ):
            scanned(replace_context(filled, context), "estimates")

    def test_fails_where_a_row_of_the_copy_has_no_end(self, filled, conn, monkeypatch):
        """As if the comparison had overlooked one."""
        plan_suspects = scanning.plan_suspects

        def forgetful(context, extract, **more):
            found = plan_suspects(context, extract, **more)
            conn.execute(
                "DELETE FROM staging.repairshopr_customers_scan WHERE id = (SELECT min(id) FROM repairshopr.customers)"
            )
            return found

        monkeypatch.setattr(scanning, "plan_suspects", forgetful)
        summary = scanned(filled, "customers")
        assert "live rows" in summary.incomplete or "listed" in summary.incomplete


class TestSecondLooks:
    def test_go_first_to_what_waited_longest(self, filled, conn, monkeypatch):
        """Of six suspects four are looked at in a night; those that are left out come first in the next."""
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 4)
        ids = [key for (key,) in conn.execute("SELECT id FROM repairshopr.customers ORDER BY id LIMIT 6")]
        conn.execute("UPDATE repairshopr.customers SET notes = 'by hand' WHERE id = ANY (%s)", [ids])
        first = scanned(filled, "customers")
        assert (first.metrics["rows_differing"], first.metrics["unproven"]) == (4, 2)
        assert set(doubts(conn, "customers")) == set(ids[4:])
        second = scanned(filled, "customers")
        assert set(second.examples["unproven_examples"]) <= set(ids[:4])
        assert len(second.examples["unproven_examples"]) == 2

    def test_have_no_limit_in_a_full_sync(self, filled, conn, monkeypatch):
        """As after a column was added, which makes a suspect of every row."""
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 2)
        conn.execute("UPDATE repairshopr.customers SET notes = 'by hand'")
        sync_entities(filled.context, full=True)
        summary = scanned(filled, "customers")
        assert (summary.metrics["rows_differing"], summary.metrics["unproven"]) == (0, 0)

    def test_that_a_scan_has_no_requests_for_are_made_by_a_full_sync(self, filled, conn, monkeypatch):
        """If many rows change without a new version, no later scan gets further by itself."""
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 4)
        conn.execute("UPDATE repairshopr.customers SET notes = 'by hand'")
        for _ in range(2):
            assert "36 of them were not looked up" in scanned(filled, "customers").incomplete
        assert "trigger repairshopr_sync with mode full" in scanned(filled, "customers").incomplete
        fence.resume(conn, "repairshopr", RUN)
        sync_entities(filled.context, full=True)
        summary = scanned(filled, "customers")
        assert (summary.metrics["rows_differing"], summary.metrics["unproven"], summary.incomplete) == (0, 0, "")

    def test_leave_nothing_of_a_mass_of_lost_rows_to_the_next_night(self, open_shop, conn):
        few = dict.fromkeys(("customers", "invoices", "line_items", "products", "tickets", "estimates"), 3)
        shop = open_shop(**few, payments=1200)
        sync_entities(shop.context)
        lose(conn, "payments", 1175)
        summary = scanned(shop, "payments")
        assert (summary.plan.insert, summary.metrics["unproven"], summary.incomplete) == (1175, 0, "")
        repair_entities(shop.context, [summary])
        assert live(conn, "payments") == set(shop.control.ids("payments"))

    def test_are_not_needed_by_rows_that_the_list_shows_in_full(self, filled, conn, monkeypatch):
        monkeypatch.setattr(second_look, "SECOND_READINGS", 1)
        lose(conn, "payments", 30)
        filled.control.reset_counters()
        summary = scanned(filled, "payments")
        assert (summary.plan.insert, summary.metrics["unproven"]) == (30, 0)
        assert filled.control.counters().total("GET payments/id") == 1


def lose(conn, table, count):
    """Take so many rows out of the copy. Return their ids."""
    lost = conn.execute(
        f"DELETE FROM repairshopr.{table} WHERE id IN (SELECT id FROM repairshopr.{table} ORDER BY id LIMIT %s)"
        " RETURNING id",
        [count],
    ).fetchall()
    return {key for (key,) in lost}


class TestTwoAddressesThatDisagree:
    """Whichever of them the copy equals: it was written from one of them."""

    def test_about_a_value_that_was_cleared(self, filled, conn):
        (invoice,) = conn.execute("SELECT min(id) FROM repairshopr.invoices").fetchone()
        filled.control.mutate(Mutation("update", "invoices", invoice, {"note": "pay soon"}))
        sync_entities(filled.context)
        before = filled.context.client.send(Request(f"/invoices/{invoice}")).data
        filled.control.mutate(Mutation("update", "invoices", invoice, {"note": None}))
        lie = always(lambda request, data: before, f"/invoices/{invoice}")
        with twisted(filled.context, lie) as context, pytest.raises(SyncFailed, match="older version than its list"):
            sync_entities(context)
        sync_entities(filled.context)
        assert conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone() == (None,)

    def test_about_a_row_that_comes_back(self, filled, conn):
        (estimate,) = conn.execute("SELECT min(id) FROM repairshopr.estimates").fetchone()
        conn.execute("UPDATE repairshopr.estimates SET deleted_at = now() WHERE id = %s", [estimate])
        with twisted(filled.context, always(without_total, f"/estimates/{estimate}")) as context:
            with pytest.raises(SyncFailed, match="show different content"):
                sync_entities(context, full=True)
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.rows, doubts(conn, "estimates").keys()) == (0, {estimate})

    def test_about_a_version_from_the_future(self, filled, conn):
        (estimate,) = conn.execute("SELECT min(id) FROM repairshopr.estimates").fetchone()
        conn.execute("UPDATE repairshopr.estimates SET number = 'by hand' WHERE id = %s", [estimate])

        def redated(request, data):
            return {"estimate": {**data["estimate"], "updated_at": "2099-12-30T00:00:00.000Z"}}

        with twisted(filled.context, always(redated, f"/estimates/{estimate}")) as context:
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.rows, doubts(conn, "estimates").keys()) == (0, {estimate})

    def test_about_a_field_that_the_list_leaves_out(self, filled, conn):
        (estimate,) = conn.execute("SELECT min(id) FROM repairshopr.estimates").fetchone()

        def lie(request, data):
            if request.path == f"/estimates/{estimate}":
                return {"estimate": {**data["estimate"], "number": "FALSE"}}
            if "estimates" not in data:
                return data
            rows = [
                {name: value for name, value in row.items() if name != "number" or row["id"] != estimate}
                for row in data["estimates"]
            ]
            return {**data, "estimates": rows}

        with twisted(filled.context, lie) as context:
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.rows, doubts(conn, "estimates").keys()) == (0, {estimate})


def without_total(request, data):
    return {"estimate": {**data["estimate"], "total": None}}


def test_a_change_that_no_sync_is_sure_to_bring_is_drift(open_shop, conn):
    """Syncs read the estimates from both ends."""
    shop = open_shop(customers=5, invoices=5, line_items=5, payments=5, products=5, tickets=5, estimates=160)
    sync_entities(shop.context)
    ids = [key for (key,) in conn.execute("SELECT id FROM repairshopr.estimates ORDER BY id")]
    shop.control.mutate(Mutation("update", "estimates", ids[80], {"number": "E-1"}))
    summary = scanned(shop, "estimates")
    assert (summary.plan.update, summary.metrics["rows_young"]) == (1, 0)


class TestReadingAgain:
    """Rows that the list alone has proven are read a second time, as far as there are requests left."""

    def test_finds_a_record_that_the_list_shows_with_other_content(self, filled, conn):
        torn, other = sorted(lose(conn, "estimates", 2))

        def tear(request, data):
            if "estimates" not in data:
                return data
            rows = [{**row, "number": "E-1"} if row["id"] == torn else row for row in data["estimates"]]
            return {**data, "estimates": rows}

        with twisted(filled.context, always(tear, "/estimates")) as context:
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.insert, summary.metrics["unproven"]) == (1, 1)
        assert doubts(conn, "estimates").keys() == {torn}
        repair_entities(filled.context, [summary])
        assert torn not in live(conn, "estimates")
        assert other in live(conn, "estimates")

    def test_finds_a_newer_version_that_the_list_alone_has(self, filled, conn):
        (estimate,) = conn.execute("SELECT min(id) FROM repairshopr.estimates").fetchone()
        # Else the row is young.
        conn.execute("UPDATE confidence.sync_state SET watermark = now() + interval '1 hour'")

        def redate(request, data):
            if "estimates" not in data:
                return data
            changed = {"updated_at": "2026-01-01T00:00:00.000Z", "number": "E-1"}
            rows = [{**row, **changed} if row["id"] == estimate else row for row in data["estimates"]]
            return {**data, "estimates": rows}

        conn.execute("UPDATE repairshopr.estimates SET updated_at = '2025-01-01' WHERE id = %s", [estimate])
        with twisted(filled.context, always(redate, "/estimates")) as context:
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.rows, doubts(conn, "estimates").keys()) == (0, {estimate})

    def test_leaves_a_row_unproven_that_its_own_address_does_not_have(self, filled, conn):
        lost = lose(conn, "estimates", 1)
        with twisted(filled.context, once(not_found, f"/estimates/{min(lost)}")) as context:
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.insert, doubts(conn, "estimates").keys()) == (0, lost)

    def test_changes_nothing_while_look_ups_have_no_answer(self, filled, conn):
        def down(request, data):
            raise TryLater("503")

        lose(conn, "estimates", 12)
        with twisted(filled.context, always(down, "/estimates/")) as context:
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.insert, summary.metrics["unproven"], summary.incomplete) == (12, 0, "")

    def test_takes_no_older_version_for_noise(self, filled, conn):
        """Its own address still shows what the copy has."""
        (estimate,) = conn.execute("SELECT min(id) FROM repairshopr.estimates").fetchone()
        before = filled.context.client.send(Request(f"/estimates/{estimate}")).data
        filled.control.mutate(Mutation("update", "estimates", estimate, {"number": "E-1"}))
        with twisted(filled.context, always(lambda request, data: before, f"/estimates/{estimate}")) as context:
            summary = scanned(replace_context(filled, context), "estimates")
        assert (summary.plan.rows, doubts(conn, "estimates").keys()) == (0, {estimate})

    def test_has_a_limit(self, filled, conn, monkeypatch):
        monkeypatch.setattr(second_look, "SECOND_READINGS", 4)
        lose(conn, "estimates", 6)
        filled.control.reset_counters()
        assert scanned(filled, "estimates").plan.insert == 6
        assert filled.control.counters().total("GET estimates/id") == 4


def open_changes(shop, scans, sync_id):
    """How many planned changes verify finds open, and whether that is worse than none."""
    (check,) = [c for c in verify_repair(shop.context, scans, sync_id) if c.figure == "planned_changes_open"]
    return check.after, check.worse


class TestVerify:
    def test_sees_a_repair_that_wrote_nothing(self, filled, conn, monkeypatch):
        drift(filled, conn)
        scans = [scanned(filled)]
        monkeypatch.setattr(repairing, "apply_plan", lambda *_: Merged(0, 0, 0, 3))
        sync_id, _ = repair_entities(filled.context, scans)
        open_ = [c for c in verify_repair(filled.context, scans, sync_id) if c.figure == "planned_changes_open"]
        assert [(check.before, check.after, check.worse) for check in open_] == [(0, 3, True)]

    @pytest.mark.parametrize("half", ["insert", "update", "delete"])
    def test_sees_a_repair_that_left_something_out(self, filled, conn, half):
        drift(filled, conn)
        scans = [scanned(filled)]
        conn.execute("CREATE TABLE kept AS SELECT * FROM staging.repairshopr_line_items_scan_plan")
        conn.execute("DELETE FROM staging.repairshopr_line_items_scan_plan WHERE _operation = %s", [half])
        sync_id, _ = repair_entities(filled.context, scans)
        conn.execute("DELETE FROM staging.repairshopr_line_items_scan_plan")
        columns = [c.name for c in conn.execute("SELECT * FROM kept LIMIT 0").description if c.name != "row_hash"]
        names = ", ".join(columns)
        conn.execute(f"INSERT INTO staging.repairshopr_line_items_scan_plan ({names}) SELECT {names} FROM kept")
        worse = [check for check in verify_repair(filled.context, scans, sync_id) if check.worse]
        assert "planned_changes_open" in {check.figure for check in worse}

    @pytest.mark.parametrize(
        ("kind", "spoilt"),
        [
            ("missing", "name = 'by mistake'"),
            ("changed", "name = 'by mistake'"),
            ("changed", "deleted_at = now()"),
            ("deleted", "deleted_at = NULL, name = 'by mistake'"),
        ],
    )
    def test_sees_a_repair_that_wrote_something_else(self, filled, conn, kind, spoilt):
        row = dict(zip(("missing", "deleted", "changed"), drift(filled, conn), strict=True))[kind]
        scans = [scanned(filled)]
        sync_id, _ = repair_entities(filled.context, scans)
        assert open_changes(filled, scans, sync_id) == (0, False)
        conn.execute(f"UPDATE repairshopr.line_items SET {spoilt} WHERE id = %s", [row])
        assert open_changes(filled, scans, sync_id) == (1, True)

    @pytest.mark.parametrize("written", [True, False])
    def test_counts_anew_what_is_still_missing(self, filled, conn, monkeypatch, written):
        """A line is lost with its invoice, and comes back alone, or not at all."""
        lone = "SELECT min(id), invoice_id FROM repairshopr.line_items GROUP BY 2 HAVING count(*) = 1 LIMIT 1"
        line, invoice = conn.execute(lone).fetchone()
        conn.execute("UPDATE repairshopr.line_items SET deleted_at = now() WHERE id = %s", [line])
        conn.execute("UPDATE repairshopr.invoices SET deleted_at = now() WHERE id = %s", [invoice])
        scans = [scanned(filled)]
        if not written:
            monkeypatch.setattr(repairing, "apply_plan", lambda *_: Merged())
        sync_id, _ = repair_entities(filled.context, scans)
        checks = {check.figure: check for check in verify_repair(filled.context, scans, sync_id)}
        found = checks["missing_invoice_ids_without_parent_invoice_row"]
        assert (found.before, found.after) == (1, 0 if written else 1)
        orphans = checks["db_null_parent_invoice_id_count"]
        assert (orphans.before, orphans.after, orphans.worse) == (0, 1 if written else 0, written)
        assert conn.execute("SELECT id FROM staging.repairshopr_line_items_scan_plan").fetchall() == [(line,)]
        assert (line in live(conn, "line_items")) is written

    def test_leaves_what_was_superseded(self, filled, conn):
        _, deleted, changed = drift(filled, conn)
        scans = [scanned(filled)]
        conn.execute("UPDATE repairshopr.line_items SET name = 'by hand' WHERE id IN (%s, %s)", [deleted, changed])
        sync_id, counts = repair_entities(filled.context, scans)
        assert counts["line_items"].superseded == 2
        open_ = [c for c in verify_repair(filled.context, scans, sync_id) if c.figure == "planned_changes_open"]
        assert [(check.after, check.worse) for check in open_] == [(0, False)]


def test_a_reset_watermark_skips_what_changed_before_it(filled, conn):
    fence.stop(conn, SOURCE.name, RUN, timeout=1)
    invoice = touched_invoice(filled, conn)
    # The source tells the time in seconds.
    time.sleep(3)
    reset_watermarks(filled.context)
    fence.resume(conn, SOURCE.name, RUN)
    sync_entities(filled.context)
    note = conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone()
    assert note != ("changed",)
    filled.control.mutate(Mutation("update", "invoices", invoice, {"note": "changed again"}))
    sync_entities(filled.context)
    note = conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone()
    assert note == ("changed again",)


def test_a_reset_watermark_skips_what_a_list_shows_all_the_same(filled, conn):
    """The list of customers can't be asked for changes alone."""
    fence.stop(conn, SOURCE.name, RUN, timeout=1)
    (customer,) = conn.execute("SELECT min(id) FROM repairshopr.customers").fetchone()
    filled.control.mutate(Mutation("update", "customers", customer, {"notes": "changed"}))
    time.sleep(3)
    reset_watermarks(filled.context)
    fence.resume(conn, SOURCE.name, RUN)
    sync_entities(filled.context)
    notes = "SELECT notes FROM repairshopr.customers WHERE id = %s"
    assert conn.execute(notes, [customer]).fetchone() != ("changed",)
    filled.control.mutate(Mutation("update", "customers", customer, {"notes": "changed again"}))
    sync_entities(filled.context)
    assert conn.execute(notes, [customer]).fetchone() == ("changed again",)


def test_the_lines_of_progress_stay_with_the_run(filled, conn):
    scanned(filled)
    (lines,) = conn.execute("SELECT progress FROM confidence.forensic_run WHERE entity = 'line_items'").fetchone()
    assert [line["event"] for line in lines] == ["scan_progress"]
    assert lines[0]["api_unique_ids"] == len(live(conn, "line_items"))
