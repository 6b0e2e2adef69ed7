"""What a mirror takes for proof, and what it doesn't: a vendor that lies, lags and leaves things out."""

import time
from contextlib import suppress

import pytest

from include.api.errors import ApiError, NotFound
from include.confidence import unproven
from include.simulators.repairshopr import Mutation
from include.sources.base import SyncFailed
from include.sources.mirror import repair as repairing
from include.sources.mirror import scan as scanning
from include.sources.mirror import second_look
from include.sources.mirror.repair import repair, reset_watermarks, verify
from include.sources.mirror.sync import sync
from include.warehouse import fence
from include.warehouse.merge import Merged
from include.warehouse.staging import PullError

from .conftest import RUN, SOURCE
from .test_scan import drift, scan_entity
from .twisted import always, once, twisted


def live(conn, table):
    return {key for (key,) in conn.execute(f"SELECT id FROM repairshopr.{table} WHERE deleted_at IS NULL")}


def doubts(conn, table):
    return {row.key[0]: row for row in unproven.of(conn, "repairshopr", table)}


@pytest.fixture
def filled(shop, conn):
    sync(shop.context)
    return shop


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


def not_found(request, data):
    raise NotFound("404")


class TestChildrenOfASync:
    @pytest.mark.parametrize("lie", [emptied, emptied_with_its_totals, not_found])
    @pytest.mark.parametrize("often", [once, always])
    def test_are_not_gone_because_their_list_says_so(self, filled, conn, lie, often):
        before = live(conn, "line_items")
        invoice = touched_invoice(filled, conn)
        with twisted(filled.context, often(lie, "/line_items")) as context, suppress(SyncFailed):
            sync(context)
        assert live(conn, "line_items") == before
        sync(filled.context)
        assert live(conn, "line_items") == before
        note = conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone()
        assert note == ("changed",)

    def test_fail_by_name_while_their_list_contradicts_their_invoice(self, filled, conn):
        touched_invoice(filled, conn)
        lie = always(emptied_with_its_totals, "/line_items")
        with twisted(filled.context, lie) as context, pytest.raises(SyncFailed, match="another address does"):
            sync(context)

    def test_are_gone_where_the_invoice_agrees(self, filled, conn):
        invoice = touched_invoice(filled, conn)
        (line,) = conn.execute("SELECT min(id) FROM repairshopr.line_items WHERE invoice_id = %s", [invoice]).fetchone()
        before = live(conn, "line_items")
        filled.control.mutate(Mutation("delete", "line_items", line, silent=True))
        sync(filled.context)
        assert before - live(conn, "line_items") == {line}

    def test_that_come_later_than_their_invoice_get_a_second_chance(self, filled, conn):
        """A replica shows the new invoice before its lines."""
        customer = filled.control.ids("customers")[0]
        filled.control.mutate(Mutation("insert", "invoices", row={"customer_id": customer}))
        invoice = max(filled.control.ids("invoices"))
        filled.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice, "name": "late"}))
        query = "SELECT name FROM repairshopr.line_items WHERE invoice_id = %s"
        lagging = always(emptied_with_its_totals, "/line_items", invoice_id=invoice)
        with twisted(filled.context, lagging) as context:
            sync(context)
        assert conn.execute(query, [invoice]).fetchall() == []
        sync(filled.context)
        assert conn.execute(query, [invoice]).fetchall() == [("late",)]


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
            sync(context)
        assert not conn.execute("SELECT FROM confidence.sync_state WHERE entity = %s", [key]).fetchall()
        sync(shop.context)

    def test_is_no_evidence(self, filled, conn, path, key, page):
        with twisted(filled.context, self.lie(path, key, page)) as context, pytest.raises(ApiError, match="is empty"):
            scan_entity(replace_context(filled, context), key)


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
            summary = scan_entity(replace_context(filled, context), "customers")
        assert (summary.plan.insert, summary.plan.update, summary.plan.delete) == (0, 0, 0)
        assert summary.metrics["unproven"] == 1
        assert doubts(conn, "customers").keys() == {customer}
        assert summary.proven == summary.rows - 1
        again = scan_entity(filled, "customers")
        assert (again.plan.update, again.metrics["unproven"]) == (1, 0)

    def test_is_asked_for_once_more(self, filled, conn):
        conn.execute(
            "UPDATE repairshopr.customers SET notes = 'by hand' WHERE id = (SELECT min(id) FROM repairshopr.customers)"
        )
        lie = once(lambda request, data: {"message": "temporarily unavailable"}, "/customers/")
        with twisted(filled.context, lie) as context:
            summary = scan_entity(replace_context(filled, context), "customers")
        assert (summary.plan.update, summary.metrics["unproven"]) == (1, 0)

    def test_never_erases_a_known_link(self, filled, conn):
        def blank(request, data):
            rows = [{**row, "invoice_id": ""} if place == 3 else row for place, row in enumerate(data["line_items"])]
            return {**data, "line_items": rows} if request.params.get("page", 1) == 1 else data

        links = "SELECT id, invoice_id FROM repairshopr.line_items ORDER BY id"
        before = conn.execute(links).fetchall()
        feed = always(blank, "/line_items", invoice_id_not_null="true")
        with twisted(filled.context, feed) as context:
            scans = [scan_entity(replace_context(filled, context))]
        assert sum(vars(scans[0].plan).values()) == 0
        repair(filled.context, scans)
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
            summary = scan_entity(replace_context(filled, context), "customers")
            fence.resume(conn, SOURCE.name, RUN)
            with suppress(SyncFailed):
                sync(context)
        assert summary.plan.update == 0
        assert conn.execute("SELECT * FROM repairshopr.customers ORDER BY id").fetchall() == before


class TestTheAccount:
    def test_comes_out_for_every_entity(self, filled, conn):
        drift(filled, conn)
        for entity in SOURCE.entities:
            summary = scan_entity(filled, entity.name)
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
        summary = scan_entity(filled, "customers")
        assert summary.metrics["api_unique_not_in_db"] == summary.metrics["unproven"] == 1
        assert "NUL" in doubts(conn, "customers")[customer].why
        assert (summary.incomplete, summary.proven) == ("", summary.rows - 1)

    def test_of_refused_rows_alone_is_none(self, filled, conn):
        def refused(request, data):
            return {**data, "estimates": [{**row, "number": "\0"} for row in data["estimates"]]}

        with (
            twisted(filled.context, always(refused, "/estimates")) as context,
            pytest.raises(PullError, match="20 of 20 rows"),
        ):
            scan_entity(replace_context(filled, context), "estimates")

    def test_fails_where_a_row_of_the_copy_has_no_end(self, filled, conn, monkeypatch):
        """As if the comparison had overlooked one."""
        suspected = scanning.suspect

        def forgetful(context, pulled, **more):
            found = suspected(context, pulled, **more)
            conn.execute(
                "DELETE FROM staging.repairshopr_customers_scan WHERE id = (SELECT min(id) FROM repairshopr.customers)"
            )
            return found

        monkeypatch.setattr(scanning, "suspect", forgetful)
        summary = scan_entity(filled, "customers")
        assert "live rows" in summary.incomplete or "listed" in summary.incomplete


class TestSecondLooks:
    def test_go_first_to_what_waited_longest(self, filled, conn, monkeypatch):
        """Of six suspects four are looked at in a night; those that are left out come first in the next."""
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 4)
        ids = [key for (key,) in conn.execute("SELECT id FROM repairshopr.customers ORDER BY id LIMIT 6")]
        conn.execute("UPDATE repairshopr.customers SET notes = 'by hand' WHERE id = ANY (%s)", [ids])
        first = scan_entity(filled, "customers")
        assert (first.metrics["rows_differing"], first.metrics["unproven"]) == (4, 2)
        assert set(doubts(conn, "customers")) == set(ids[4:])
        second = scan_entity(filled, "customers")
        assert set(second.examples["unproven_examples"]) <= set(ids[:4])
        assert len(second.examples["unproven_examples"]) == 2

    def test_have_no_limit_in_a_full_sync(self, filled, conn, monkeypatch):
        """As after a column was added, which makes a suspect of every row."""
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 2)
        conn.execute("UPDATE repairshopr.customers SET notes = 'by hand'")
        sync(filled.context, full=True)
        summary = scan_entity(filled, "customers")
        assert (summary.metrics["rows_differing"], summary.metrics["unproven"]) == (0, 0)

    def test_are_not_spent_on_rows_that_the_list_shows_in_full(self, filled, conn, monkeypatch):
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 1)
        conn.execute("DELETE FROM repairshopr.payments WHERE id IN (SELECT id FROM repairshopr.payments LIMIT 30)")
        filled.control.reset_counters()
        summary = scan_entity(filled, "payments")
        assert (summary.plan.insert, summary.metrics["unproven"]) == (30, 0)
        assert filled.control.counters().total("GET payments/{id}") == 0


class TestVerify:
    def test_sees_a_repair_that_wrote_nothing(self, filled, conn, monkeypatch):
        drift(filled, conn)
        scans = [scan_entity(filled)]
        monkeypatch.setattr(repairing, "apply_plan", lambda *_: Merged(0, 0, 0, 3))
        sync_id, _ = repair(filled.context, scans)
        open_ = [c for c in verify(filled.context, scans, sync_id) if c.figure == "planned_changes_open"]
        assert [(check.before, check.after, check.worse) for check in open_] == [(0, 3, True)]

    @pytest.mark.parametrize("half", ["insert", "update", "delete"])
    def test_sees_a_repair_that_left_something_out(self, filled, conn, half):
        drift(filled, conn)
        scans = [scan_entity(filled)]
        conn.execute("CREATE TABLE kept AS SELECT * FROM staging.repairshopr_line_items_scan_plan")
        conn.execute("DELETE FROM staging.repairshopr_line_items_scan_plan WHERE _operation = %s", [half])
        sync_id, _ = repair(filled.context, scans)
        conn.execute("DELETE FROM staging.repairshopr_line_items_scan_plan")
        columns = [c.name for c in conn.execute("SELECT * FROM kept LIMIT 0").description if c.name != "row_hash"]
        names = ", ".join(columns)
        conn.execute(f"INSERT INTO staging.repairshopr_line_items_scan_plan ({names}) SELECT {names} FROM kept")
        worse = [check for check in verify(filled.context, scans, sync_id) if check.worse]
        assert "planned_changes_open" in {check.figure for check in worse}

    def test_leaves_what_was_superseded(self, filled, conn):
        _, deleted, changed = drift(filled, conn)
        scans = [scan_entity(filled)]
        conn.execute("UPDATE repairshopr.line_items SET name = 'by hand' WHERE id IN (%s, %s)", [deleted, changed])
        sync_id, counts = repair(filled.context, scans)
        assert counts["line_items"].superseded == 2
        open_ = [c for c in verify(filled.context, scans, sync_id) if c.figure == "planned_changes_open"]
        assert [(check.after, check.worse) for check in open_] == [(0, False)]


def test_a_reset_watermark_skips_what_changed_before_it(filled, conn):
    fence.stop(conn, SOURCE.name, RUN, timeout=1)
    invoice = touched_invoice(filled, conn)
    # The source tells the time in seconds.
    time.sleep(3)
    reset_watermarks(filled.context)
    fence.resume(conn, SOURCE.name, RUN)
    sync(filled.context)
    note = conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone()
    assert note != ("changed",)
    filled.control.mutate(Mutation("update", "invoices", invoice, {"note": "changed again"}))
    sync(filled.context)
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
    sync(filled.context)
    notes = "SELECT notes FROM repairshopr.customers WHERE id = %s"
    assert conn.execute(notes, [customer]).fetchone() != ("changed",)
    filled.control.mutate(Mutation("update", "customers", customer, {"notes": "changed again"}))
    sync(filled.context)
    assert conn.execute(notes, [customer]).fetchone() == ("changed again",)


def test_the_lines_of_progress_stay_with_the_run(filled, conn):
    scan_entity(filled)
    (lines,) = conn.execute("SELECT progress FROM confidence.forensic_run WHERE entity = 'line_items'").fetchone()
    assert [line["event"] for line in lines] == ["scan_progress"]
    assert lines[0]["api_unique_ids"] == len(live(conn, "line_items"))
