"""Habits of a vendor that nobody documents: where the simulators guess one way, these tests go the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from psycopg.types.json import Jsonb

from include.api.errors import NotFound, RefuseData
from include.api.request import Answer, Request
from include.simulators.repairshopr import Mutation
from include.sources.base import SyncFailed
from include.sources.mirror import second_look
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.lookup import names
from include.sources.mirror.repair import repair_entities
from include.sources.mirror.sync import sync_entities
from include.warehouse import sync_log
from include.warehouse.staging import Stage

from .test_mirror_evidence import doubts, live, replace_context
from .test_scan import scanned
from .twisted import always, twisted

RESOURCES = ("customers", "invoices", "line_items", "payments", "products", "tickets", "estimates")
FEW = dict.fromkeys(RESOURCES, 5)


def lacking(shop, conn, table):
    """The ids of the source's rows that the copy lacks."""
    return set(shop.control.ids(table)) - live(conn, table)


@contextmanager
def unsorted(context: MirrorContext, path: str) -> Iterator[MirrorContext]:
    """The vendor ignores by what this list is to be sorted."""
    with twisted(context, lambda request, data: data) as ignoring:
        exchange = ignoring.client._exchange

        def exchange_unsorted(request):
            if request.path == path:
                request = replace(request, params={k: v for k, v in request.params.items() if k != "sort"})
            return exchange(request)

        ignoring.client._exchange = exchange_unsorted
        yield ignoring


class TestListsWithoutATotalOfRows:
    """Invoices and payments tell how many pages there are, products not even that."""

    def test_unsorted_pages_are_read_until_all_rows_have_come(self, open_shop, conn):
        shop = open_shop(**FEW | {"invoices": 166}, sort="unstable")
        sync_entities(shop.context)
        assert lacking(shop, conn, "invoices") == set()

    def test_unsorted_pages_take_nothing_from_the_copy(self, open_shop, conn):
        shop = open_shop(**FEW | {"invoices": 166})
        sync_entities(shop.context)
        shop.control.set(sort="unstable")
        summary = scanned(shop, "invoices")
        assert (summary.plan.rows, summary.metrics["unproven"]) == (0, 0)
        assert summary.accounts["invoices"].unseen == 0

    def test_a_row_that_moves_to_the_end_hides_another(self, open_shop, conn):
        """It has changed while a list that shows the latest changes last is read; the next row goes back one page."""
        shop = open_shop(**FEW | {"invoices": 60})
        rows = shop.control.rows("invoices")
        moved = [*rows[1:], {**rows[0], "note": "changed"}]
        shop.control.script_pages("invoices", [rows[:25], moved[25:50], moved[50:]])
        with pytest.raises(SyncFailed, match="whose pages overlap has room for 60 rows, and 1 of them were"):
            sync_entities(shop.context)

    def test_a_row_that_no_page_of_a_scan_shows_is_unseen(self, open_shop, conn):
        shop = open_shop(**FEW | {"invoices": 60})
        sync_entities(shop.context)
        rows = shop.control.rows("invoices")
        shop.control.script_pages("invoices", [rows[:25], [*rows[26:50], rows[0]], rows[50:]])
        conn.execute("DELETE FROM repairshopr.invoices WHERE id = %s", [rows[25]["id"]])
        summary = scanned(shop, "invoices")
        assert (summary.plan.rows, summary.accounts["invoices"].unseen, summary.incomplete) == (0, 1, "")

    def test_a_row_that_changes_while_a_scan_reads_its_list_is_young_and_not_unseen(self, open_shop, conn):
        """It moves to a page that was read already. The total counts it, and its own address shows the change."""
        shop = open_shop(**FEW)
        sync_entities(shop.context)
        moved = shop.control.ids("tickets")[0]
        later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        shop.control.mutate(Mutation("update", "tickets", moved, {"subject": "changed", "updated_at": later}))

        def move(request, data):
            if request.path != "/tickets":
                return data
            kept = [row for row in data["tickets"] if row["id"] != moved]
            return {**data, "tickets": kept, "meta": data["meta"] | {"total_entries": 5, "total_pages": 1}}

        with twisted(shop.context, move) as context:
            summary = scanned(replace_context(shop, context), "tickets")
        assert (summary.metrics["rows_young"], summary.accounts["tickets"].unseen) == (1, 0)

    def test_rows_that_are_inserted_ahead_hide_none(self, open_shop, conn):
        shop = open_shop(**FEW | {"invoices": 60})
        rows = shop.control.rows("invoices")
        shop.control.script_pages("invoices", [rows[:25], rows[23:48], rows[48:]])
        shop.control.reset_counters()
        sync_entities(shop.context)
        assert lacking(shop, conn, "invoices") == set()
        assert shop.control.counters().total("GET invoices") == 3

    def test_a_page_that_is_not_full_is_not_the_last(self, open_shop, conn):
        """The vendor leaves a row out after it has cut the page."""
        shop = open_shop(**FEW | {"products": 70})

        def short(request, data):
            return {**data, "products": data["products"][1:]} if request.params.get("page") == 2 else data

        with twisted(shop.context, always(short, "/products")) as context:
            sync_entities(context)
        assert len(lacking(shop, conn, "products")) == 1


@pytest.mark.parametrize(("resource", "pages"), [("products", 2), ("invoices", 2), ("customers", 1)])
def test_a_404_past_the_end_of_a_list_is_its_end(open_shop, conn, resource, pages):
    shop = open_shop(**FEW | {"products": 40, "invoices": 50, "customers": 100})

    def past_end(request, data):
        if request.path == f"/{resource}" and request.params.get("page", 1) > pages:
            raise NotFound("404")
        return data

    with twisted(shop.context, past_end) as context:
        sync_entities(context)
        assert lacking(shop, conn, resource) == set()
        summary = scanned(replace_context(shop, context), resource)
    assert (summary.plan.rows, summary.metrics["unproven"]) == (0, 0)


class TestListsFromBothEnds:
    """They have no filter for changes, and nobody knows how they are sorted."""

    def test_are_read_as_a_whole_if_they_are_unsorted(self, open_shop, conn):
        shop = open_shop(**FEW | {"payments": 400})
        sync_entities(shop.context)
        rows = shop.control.rows("payments")
        Random(1).shuffle(rows)
        now = datetime.now(UTC).isoformat()
        new = {**rows[0], "id": 999_999_999, "updated_at": now, "created_at": now}
        shop.control.load("payments", [*rows, new])
        # Neither on the first pages nor on the last ones.
        rows.insert(190, new)
        shop.control.script_pages("payments", [rows[place : place + 25] for place in range(0, len(rows), 25)])
        sync_entities(shop.context)
        assert new["id"] in live(conn, "payments")

    def test_show_nothing_if_all_their_rows_are_deleted(self, open_shop, conn):
        """Syncs go on before the night deletes the rows."""
        shop = open_shop(**FEW)
        sync_entities(shop.context)
        shop.control.mutate(*(Mutation("delete", "estimates", id_) for id_ in shop.control.ids("estimates")))
        sync_entities(shop.context)
        assert scanned(shop, "estimates").plan.delete == 5

    @pytest.mark.parametrize("first", ["2025-01-01", "2025-01-02"])
    def test_are_not_sorted_by_change_because_all_have_changed_at_once(self, open_shop, conn, first):
        """The vendor ignores `sort`; an import has made all products, and perhaps the first has changed since."""
        shop = open_shop(**FEW | {"products": 100})
        rows = [row | {"updated_at": "2025-01-01T00:00:00.000Z"} for row in shop.control.rows("products")]
        rows[0]["updated_at"] = f"{first}T00:00:00.000Z"
        shop.control.load("products", rows)
        with unsorted(shop.context, "/products") as context:
            sync_entities(context)
            [new] = shop.control.mutate(Mutation("insert", "products", row={"name": "new"}))
            sync_entities(context)
        assert new in live(conn, "products")


class TestTotals:
    def test_that_are_always_too_large_stop_no_sync_for_good(self, open_shop, conn):
        """Two syncs fail and tell how many rows may be missing. Then the scans count those as unseen."""
        shop = open_shop(**FEW | {"customers": 250, "line_items": 250})

        def inflated(request, data):
            total = data.get("meta", {}).get("total_entries")
            return {**data, "meta": {**data["meta"], "total_entries": total + 7}} if total else data

        with twisted(shop.context, inflated) as context:
            for _ in range(2):
                with pytest.raises(SyncFailed, match="7 of them were not shown"):
                    sync_entities(context)
            sync_entities(context)
            summary = scanned(replace_context(shop, context), "line_items")
        assert (summary.incomplete, summary.accounts["line_items"].unseen) == ("", 7)

    def test_of_a_narrow_list_count_no_repeats(self, open_shop, conn):
        """The vendor shows the first page of an invoice's lines, whichever page it is asked for."""
        shop = open_shop(**FEW, page_sizes={"line_items": 5})
        sync_entities(shop.context)
        [invoice] = shop.control.mutate(Mutation("insert", "invoices", row={}))
        shop.control.mutate(*(Mutation("insert", "line_items", row={"invoice_id": invoice}) for _ in range(8)))
        first = []

        def same(request, data):
            first.append(data["line_items"])
            return {**data, "line_items": first[0]}

        with (
            twisted(shop.context, always(same, "/line_items", invoice_id=invoice)) as context,
            pytest.raises(SyncFailed, match="shows 5 rows, but says that it has 8"),
        ):
            sync_entities(context)


class TestAListThatBecomesShorterWhileItIsRead:
    """The rows behind the deleted one move up, and the first of the next page moves to one that was read already."""

    @pytest.fixture
    def shrinking(self, open_shop):
        """The shop, and the ids of its lines without the one that is deleted after the second page.

        The row that moves from the third page to the second is not on the first, which is asked for again.
        """
        shop = open_shop(**FEW | {"line_items": 350}, page_sizes={"line_items": 30})
        shop = replace(shop, context=replace(shop.context, workers=1))
        ids = [row["id"] for row in shop.control.rows("line_items") if row["invoice_id"]]
        shop.control.on_page("line_items", 2, Mutation("delete", "line_items", ids[3], silent=True))
        return shop, {*ids} - {ids[3]}

    def test_loses_no_row(self, shrinking, conn):
        shop, ids = shrinking
        sync_entities(shop.context)
        assert ids <= live(conn, "line_items")

    def test_loses_no_row_if_the_sync_ends_before_it_reads_again(self, shrinking, conn, monkeypatch):
        shop, ids = shrinking
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "reopen", lambda stage, position: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                sync_entities(shop.context)
        sync_entities(shop.context)
        assert ids <= live(conn, "line_items")


@contextmanager
def dated(context: MirrorContext, date: Callable[[Request], datetime | None]) -> Iterator[MirrorContext]:
    """The vendor's answers tell this time."""
    with twisted(context, lambda request, data: data) as telling:
        exchange = telling.client._exchange

        def exchange_dated(request):
            answer = exchange(request)
            return replace(answer, date=date(request)) if isinstance(answer, Answer) else answer

        telling.client._exchange = exchange_dated
        yield telling


class TestTimesOfAnswers:
    def watermark(self, conn):
        return sync_log.state(conn, "repairshopr", "invoices").watermark

    def test_page_out_of_a_cache_shows_no_later_state(self, open_shop, conn):
        shop = open_shop(**FEW | {"invoices": 60})
        old = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
        with dated(shop.context, lambda asked: old if asked.params.get("page") == 2 else datetime.now(UTC)) as context:
            sync_entities(context)
        assert self.watermark(conn) == old

    def test_nothing_was_read_after_the_beginning(self, open_shop, conn):
        """Only later pages tell the time."""
        shop = open_shop(**FEW | {"invoices": 60})
        answered = []

        def date(asked):
            answered.append(datetime.now(UTC))
            return answered[-1] if asked.params.get("page") == 2 else None

        with dated(shop.context, date) as context:
            sync_entities(context, only="invoices")
        assert self.watermark(conn) < answered[0]


class TestYoungRows:
    @pytest.mark.parametrize(
        ("resource", "column"), [("customers", "notes"), ("invoices", "note"), ("line_items", "name")]
    )
    def test_are_not_so_by_the_word_of_their_list_alone(self, open_shop, conn, resource, column):
        shop = open_shop(**FEW | {resource: 30})
        sync_entities(shop.context)
        drifted = min(live(conn, resource))
        conn.execute(f"UPDATE repairshopr.{resource} SET {column} = 'by hand' WHERE id = %s", [drifted])
        now = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()

        def redated(request, data):
            if request.path != f"/{resource}" or "invoice_id" in request.params:
                return data
            return {**data, resource: [r | ({"updated_at": now} if r["id"] == drifted else {}) for r in data[resource]]}

        with twisted(shop.context, redated) as context:
            summary = scanned(replace_context(shop, context), resource)
        assert (summary.metrics["rows_young"], doubts(conn, resource).keys()) == (0, {drifted})

    def test_are_no_lines_whose_invoice_has_not_changed(self, open_shop, conn):
        """A sync reads lines with their invoice, and a line's change need not change the invoice."""
        shop = open_shop(**FEW | {"invoices": 20, "line_items": 60})
        old = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
        shop.control.load("invoices", [row | {"updated_at": old} for row in shop.control.rows("invoices")])
        sync_entities(shop.context)
        conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '1 minute'")
        alone, bumped = shop.control.ids("invoices")[:2]
        shop.control.mutate(Mutation("update", "invoices", bumped, {"note": "changed"}))
        silently, _ = shop.control.mutate(
            *(Mutation("insert", "line_items", row={"invoice_id": each}) for each in (alone, bumped))
        )
        rows = [row | ({"updated_at": old} if row["id"] == alone else {}) for row in shop.control.rows("invoices")]
        shop.control.load("invoices", rows)
        summary = scanned(shop)
        assert (summary.plan.insert, summary.metrics["rows_young"]) == (1, 1)
        repair_entities(shop.context, [summary])
        assert silently in live(conn, "line_items")


class TestAReplicaThatLagsBehind:
    """All its addresses show the same old state."""

    @pytest.fixture
    def lagging(self, open_shop, conn):
        """The invoice, the line that it has got since, and what the replica answers."""
        shop = open_shop(**FEW | {"invoices": 20, "line_items": 60})
        sync_entities(shop.context)
        invoice = shop.control.ids("invoices")[3]
        shop.control.mutate(Mutation("update", "invoices", invoice, {"note": "first"}))
        before = shop.context.client.send(Request(f"/invoices/{invoice}")).data
        [line] = shop.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice}))
        sync_entities(shop.context)

        def lag(request, data):
            if request.path == f"/invoices/{invoice}":
                return before
            if request.path == "/invoices":
                outdated = {name: v for name, v in before["invoice"].items() if name != "line_items"}
                return {**data, "invoices": [outdated if r["id"] == invoice else r for r in data["invoices"]]}
            if request.path == "/line_items":
                rows = [row for row in data["line_items"] if row["id"] != line]
                left_out = len(data["line_items"]) - len(rows)
                meta = data["meta"] | {"total_entries": data["meta"]["total_entries"] - left_out}
                return {**data, "line_items": rows, "meta": meta}
            return data

        return shop, line, lag

    def test_takes_no_children_in_a_sync(self, lagging, conn):
        shop, line, lag = lagging
        with twisted(shop.context, lag) as context:
            sync_entities(context)
        assert line in live(conn, "line_items")

    def test_proves_no_children_to_be_gone(self, lagging, conn):
        shop, line, lag = lagging
        with twisted(shop.context, lag) as context:
            summary = scanned(replace_context(shop, context))
        assert (summary.plan.rows, doubts(conn, "line_items").keys()) == (0, {line})
        assert "an older version of invoices than the copy has" in doubts(conn, "line_items")[line].why

    def test_overwrites_and_deletes_nothing_that_is_newer(self, open_shop, conn):
        """What has gone since long before is proven to be gone all the same."""
        shop = open_shop(**FEW | {"customers": 30})
        sync_entities(shop.context)
        gone, *_, changed = shop.control.ids("customers")
        conn.execute(
            "UPDATE repairshopr.customers SET updated_at = now() - interval '1 hour', notes = 'new' WHERE id = %s",
            [changed],
        )
        new = 999_999_999
        columns = "firstname, lastname, created_at, sync_id"
        conn.execute(
            f"INSERT INTO repairshopr.customers (id, updated_at, {columns})"
            f" SELECT %s, now() - interval '30 minutes', {columns} FROM repairshopr.customers WHERE id = %s",
            [new, changed],
        )
        shop.control.mutate(Mutation("delete", "customers", gone, silent=True))
        summary = scanned(shop, "customers")
        assert (summary.plan.update, summary.plan.delete) == (0, 1)
        assert doubts(conn, "customers").keys() == {changed, new}

    def test_is_not_believed_earlier_if_its_clock_is_ahead(self, open_shop, conn):
        shop = open_shop(**FEW | {"customers": 30})
        sync_entities(shop.context)
        changed = shop.control.ids("customers")[-1]
        conn.execute(
            "UPDATE repairshopr.customers SET updated_at = now() - interval '1 hour', notes = 'new' WHERE id = %s",
            [changed],
        )
        with dated(shop.context, lambda asked: datetime.now(UTC) + timedelta(days=40)) as context:
            summary = scanned(replace_context(shop, context), "customers")
        assert (summary.plan.update, doubts(conn, "customers").keys()) == (0, {changed})

    def test_is_believed_a_day_later(self, open_shop, conn):
        shop = open_shop(**FEW | {"customers": 30})
        rows = [row | {"updated_at": "2025-01-01T00:00:00.000Z"} for row in shop.control.rows("customers")]
        shop.control.load("customers", rows)
        sync_entities(shop.context)
        conn.execute(
            "UPDATE repairshopr.customers SET updated_at = now() - interval '25 hours' WHERE id = %s", [rows[3]["id"]]
        )
        summary = scanned(shop, "customers")
        assert (summary.plan.update, summary.metrics["unproven"]) == (1, 0)


def test_what_a_late_sync_missed_gets_a_second_chance(open_shop, conn):
    """The first sync after a stop of five hours got an empty answer."""
    shop = open_shop(**FEW | {"invoices": 30})
    sync_entities(shop.context)
    at = (datetime.now(UTC) - timedelta(hours=3)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    changed = shop.control.ids("invoices")[7]
    news = {"updated_at": at, "note": "changed"}
    rows = [row | news if row["id"] == changed else row for row in shop.control.rows("invoices")]
    shop.control.load("invoices", rows)
    conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '5 hours' WHERE entity = 'invoices'")
    nothing = always(lambda request, data: {"invoices": [], "meta": {"total_pages": 0, "page": 1}}, "/invoices")
    with twisted(shop.context, nothing) as context:
        sync_entities(context)
    sync_entities(shop.context)
    assert conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [changed]).fetchone() == ("changed",)


def test_addresses_may_write_the_same_in_other_ways(open_shop, conn):
    """The record's own address leaves out milliseconds, and writes a blank for null."""
    shop = open_shop(**FEW | {"customers": 12})
    shop.control.load(
        "customers",
        [row | {"address_2": None, "updated_at": "2026-01-05T10:11:12.345Z"} for row in shop.control.rows("customers")],
    )
    sync_entities(shop.context)
    conn.execute("UPDATE repairshopr.customers SET notes = 'by hand'")

    def other(request, data):
        at = data["customer"]["updated_at"].replace(".345Z", "Z")
        return {"customer": {**data["customer"], "address_2": "", "updated_at": at}}

    with twisted(shop.context, always(other, "/customers/")) as context:
        summary = scanned(replace_context(shop, context), "customers")
    assert (summary.plan.update, summary.metrics["unproven"]) == (12, 0)


def test_a_field_that_differs_at_each_request_is_named(open_shop, conn):
    shop = open_shop(**FEW)
    sync_entities(shop.context)
    conn.execute("UPDATE repairshopr.invoices SET note = 'by hand'")
    asked = []

    def signed(request, data):
        asked.append(request)
        rows = [data["invoice"]] if "invoice" in data else data["invoices"]
        for row in rows:
            row["pdf_url"] = f"https://example.com/{len(asked)}"
        return data

    with twisted(shop.context, always(signed, "/invoices")) as context:
        scanned(replace_context(shop, context), "invoices")
    assert {doubt.why for doubt in doubts(conn, "invoices").values()} == {
        "its list and the look at it alone show different content or versions: pdf_url"
    }


@pytest.mark.parametrize(
    ("kept", "shown"),
    [([1, 1], [1]), ([1, 2], [2, 1]), ([{"a": 1}, {"b": 1}], [{"a": 1, "b": 1}]), ([{"a": [1, 1]}], [{"a": [1]}])],
)
def test_a_list_in_another_form_is_no_gain(open_shop, conn, monkeypatch, kept, shown):
    """A field is new at the vendor. All but two tickets are looked at; one of the two has more that is new."""
    monkeypatch.setattr(second_look, "SECOND_LOOKS", 12)
    shop = open_shop(**FEW | {"tickets": 14})
    sync_entities(shop.context)
    other = max(shop.control.ids("tickets"))
    conn.execute("UPDATE repairshopr.tickets SET properties = %s WHERE id = %s", [Jsonb({"all": kept}), other])

    def gaining(request, data):
        def more(row):
            return {**row, "new": 1} | ({"properties": {"all": shown, "more": 1}} if row["id"] == other else {})

        if "ticket" in data:
            return {"ticket": more(data["ticket"])}
        return {**data, "tickets": [more(row) for row in data["tickets"]]}

    with twisted(shop.context, always(gaining, "/tickets")) as context:
        summary = scanned(replace_context(shop, context), "tickets")
    assert (summary.plan.update, doubts(conn, "tickets").keys()) == (13, {other})


def test_lines_are_not_gone_because_the_token_is_another_accounts(open_shop, conn):
    """Neither their list nor their invoices are there, and nothing else of the account either."""
    shop = open_shop(**dict.fromkeys(RESOURCES, 30))
    sync_entities(shop.context)

    def of_another_account(request, data):
        if request.path.count("/") > 1:
            raise NotFound("404")
        return {**data, request.path[1:]: [], "meta": {"total_pages": 0, "total_entries": 0}}

    with twisted(shop.context, of_another_account) as context:
        summary = scanned(replace_context(shop, context), "line_items")
    assert summary.plan.rows == 0


def test_the_list_of_a_deleted_invoices_lines_may_answer_404(open_shop, conn):
    shop = open_shop(**dict.fromkeys(RESOURCES, 30))
    sync_entities(shop.context)
    deleted = next(row["invoice_id"] for row in shop.control.rows("line_items") if row["invoice_id"])
    lines = [row["id"] for row in shop.control.rows("line_items") if row["invoice_id"] == deleted]
    shop.control.mutate(Mutation("delete", "invoices", deleted))

    def no_list(request, data):
        if request.params.get("invoice_id") == deleted:
            raise NotFound("404")
        return data

    with twisted(shop.context, no_list) as context:
        summary = scanned(replace_context(shop, context), "line_items")
    assert (summary.plan.delete, summary.metrics["unproven"]) == (len(lines), 0)


def test_a_record_may_be_a_message():
    check = names(7, "message", "id")
    check({"message": {"id": 7}})
    for data in ({"message": "hush"}, {"message": {"id": 7}, "messages": ["hush"]}):
        with pytest.raises(RefuseData):
            check(data)
