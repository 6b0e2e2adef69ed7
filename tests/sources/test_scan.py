"""The forensic scan and the repair against a simulated account that drifts, lies and fails."""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from include.api.errors import FixConfiguration, TryLater
from include.confidence import judgements
from include.simulators.repairshopr import Fault, Mutation
from include.sources.base import ScanRefused, entity_of
from include.sources.mirror import second_look
from include.sources.mirror.repair import repair_entities, verify_repair
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence, sync_log
from tests.contract.account import PASSED

from .conftest import RUN, SOURCE

LINES = entity_of(SOURCE, "line_items")
DRIFT = ("api_unique_not_in_db", "db_not_in_api_unique", "rows_differing", "confirmed_missing", "confirmed_deleted")


def scanned(shop, name="line_items", scope=None, epoch=None):
    """Stop the writer for the test's run and scan one entity."""
    writer = fence.stop(shop.context.conn, SOURCE.name, RUN, timeout=1)
    return scan_entity(
        shop.context, entity_of(SOURCE, name), writer.epoch if epoch is None else epoch, scope or Scope()
    )


def figures(summary):
    return {name: summary.metrics[name] for name in DRIFT}


def line(id_, invoice):
    at = "2026-01-01T00:00:00.000Z"
    return {"id": id_, "invoice_id": invoice, "name": "x", "price": "1.0", "created_at": at, "updated_at": at}


def test_known_case(shop, conn):
    sync_id = conn.execute(
        "INSERT INTO confidence.sync_log (source, kind, run) VALUES ('repairshopr', 'sync', 't') RETURNING sync_id"
    ).fetchone()[0]
    for id_, invoice in [(1, 10), (2, 20), (4, 40)]:
        conn.execute(
            "INSERT INTO repairshopr.line_items (id, invoice_id, name, price, updated_at, sync_id)"
            " VALUES (%s, %s, 'x', 1, '2026-01-01Z', %s)",
            [id_, invoice, sync_id],
        )
    conn.execute("INSERT INTO repairshopr.invoices (id, sync_id) VALUES (30, %s)", [sync_id])
    # By it the token is known to be the account's.
    known = [shop.control.ids("customers")[0], sync_id]
    conn.execute("INSERT INTO repairshopr.customers (id, sync_id) VALUES (%s, %s)", known)
    sync_log.advance(conn, sync_id, "repairshopr", "line_items", watermark=datetime(2026, 6, 1, tzinfo=UTC))
    shop.control.load("line_items", [line(1, 10), line(2, 20), line(3, 30)])
    shop.control.script_pages("line_items", [[line(1, 10), line(2, 20)], [line(2, 20), line(3, 30)]])
    metrics = scanned(shop).metrics
    assert metrics["api_rows_scanned"] == 4
    assert metrics["api_unique_ids"] == 3
    assert metrics["api_duplicate_rows"] == 1
    assert metrics["api_unique_not_in_db"] == 1
    assert metrics["missing_invoice_ids_count"] == 1
    assert metrics["missing_invoice_ids_without_parent_invoice_row"] == 0
    assert metrics["db_not_in_api_unique"] == 1
    assert metrics["confirmed_missing"] == 1
    assert metrics["confirmed_deleted"] == 1


def test_nothing_drifted(shop, conn):
    sync_entities(shop.context)
    for entity in SOURCE.entities:
        assert set(figures(scanned(shop, entity.name)).values()) == {0}


def drift(shop, conn):
    """Three kinds of drift behind the sync's back; returns the ids (missing, deleted, changed)."""
    ids = [row[0] for row in conn.execute("SELECT id FROM repairshopr.line_items ORDER BY id")]
    missing, deleted, changed = ids[5], ids[50], ids[120]
    conn.execute("DELETE FROM repairshopr.line_items WHERE id = %s", [missing])
    conn.execute("UPDATE repairshopr.line_items SET price = price + 1 WHERE id = %s", [changed])
    shop.control.mutate(Mutation("delete", "line_items", deleted, silent=True))
    return missing, deleted, changed


def test_drift_is_found_repaired_and_verified(shop, conn):
    sync_entities(shop.context)
    missing, deleted, changed = drift(shop, conn)
    summary = scanned(shop)
    assert figures(summary) == dict.fromkeys(DRIFT, 1)
    assert summary.examples == {
        "missing_examples": [missing],
        "delete_examples": [deleted],
        "update_examples": [changed],
        "unproven_examples": [],
    }
    sync_id, counts = repair_entities(shop.context, [summary])
    done = counts["line_items"]
    assert (done.inserted, done.updated, done.deleted, done.superseded) == (1, 1, 1, 0)
    assert not [check for check in verify_repair(shop.context, [summary], sync_id) if check.worse]
    assert set(figures(scanned(shop)).values()) == {0}


def test_rows_changed_after_the_scan_are_superseded(shop, conn):
    sync_entities(shop.context)
    _, deleted, changed = drift(shop, conn)
    summary = scanned(shop)
    conn.execute("UPDATE repairshopr.line_items SET name = 'by hand' WHERE id IN (%s, %s)", [deleted, changed])
    _, counts = repair_entities(shop.context, [summary])
    done = counts["line_items"]
    assert (done.inserted, done.updated, done.deleted, done.superseded) == (1, 0, 0, 2)


def test_page_drift_is_noise_and_confirmed_figures_are_the_truth(shop, conn):
    """Rows deleted behind the reader pull others over the page's edge, rows inserted there push some over it."""
    # One page at a time: what is fetched ahead would miss the drift that it is to see.
    shop = replace(shop, context=replace(shop.context, workers=1))
    sync_entities(shop.context)
    drift(shop, conn)
    shop.control.on_page("line_items", 1, *insert_lines(4, where="behind", page=1))
    shop.control.on_page("line_items", 2, *delete_lines(7, where="behind", page=2))
    copied = {row[0] for row in conn.execute("SELECT id FROM repairshopr.line_items")}
    summary = scanned(shop)
    assert summary.metrics["db_not_in_api_unique"] > 1
    assert summary.metrics["feed_noise"] == summary.metrics["db_not_in_api_unique"] - 1
    assert summary.metrics["api_duplicate_rows"] > 0
    assert (summary.plan.insert, summary.plan.delete) == (1, 1)
    again = scanned(shop)
    gone = copied - set(shop.control.ids("line_items"))
    assert len(gone) > 1
    assert (again.plan.insert, again.plan.delete) == (1, len(gone))


def insert_lines(count, **where):
    return [Mutation("insert", "line_items", **where)] * count


def delete_lines(count, **where):
    return [Mutation("delete", "line_items", silent=True, **where)] * count


@pytest.mark.parametrize("page", range(1, 5))
def test_scan_cut_off_at_any_page_counts_no_row_twice(shop, conn, page):
    sync_entities(shop.context)
    whole = scanned(shop)
    fence.resume(conn, SOURCE.name, RUN)
    shop.control.fault(Fault("status", resource="line_items", page=page, status=401))
    writer = fence.stop(conn, SOURCE.name, RUN, timeout=1)
    with pytest.raises(FixConfiguration):
        scan_entity(shop.context, LINES, writer.epoch, Scope())
    shop.control.reset_counters()
    again = scan_entity(shop.context, LINES, writer.epoch, Scope())
    assert again.metrics == whole.metrics
    # The page that failed may have cost the ones that were fetched ahead of it, never those before it.
    assert shop.control.counters().total("GET line_items") == len(range(page, 5))


def test_unknown_is_never_absent(shop, conn):
    sync_entities(shop.context)
    _, deleted, _ = drift(shop, conn)
    invoice = conn.execute("SELECT invoice_id FROM repairshopr.line_items WHERE id = %s", [deleted]).fetchone()[0]
    shop.control.fault(
        Fault("status", resource="line_items", params={"invoice_id": str(invoice)}, status=503, times=None)
    )
    summary = scanned(shop)
    assert summary.metrics["db_not_in_api_unique"] == 1
    assert summary.metrics["confirmed_deleted"] == 0
    assert summary.metrics["unproven"] == 1
    assert summary.plan.delete == 0


def test_young_rows_are_no_drift(shop, conn):
    sync_entities(shop.context)
    invoice = shop.control.ids("invoices")[0]
    conn.execute("UPDATE confidence.sync_state SET watermark = watermark - interval '1 minute'")
    shop.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice, "name": "new"}))
    metrics = scanned(shop).metrics
    assert metrics["api_unique_not_in_db"] == 0
    assert metrics["rows_young"] == 1


def test_what_no_sync_has_brought_for_days_is_missing(shop, conn):
    sync_entities(shop.context)
    conn.execute("UPDATE confidence.sync_state SET watermark = watermark - interval '7 days'")
    before, now = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC)
    old, older, new = shop.control.ids("customers")[:3]
    changes = [(old, before), (older, before - timedelta(days=1)), (new, now)]
    shop.control.mutate(
        *[
            Mutation("update", "customers", id_, row={"firstname": "changed", "updated_at": moment.isoformat()})
            for id_, moment in changes
        ]
    )
    summary = scanned(shop, "customers")
    assert (summary.metrics["rows_differing"], summary.metrics["rows_young"], summary.plan.update) == (2, 1, 2)
    judgements.save_judgement(conn, summary, PASSED)
    sync_id, _ = repair_entities(shop.context, [summary])
    assert all(check.after == 0 for check in verify_repair(shop.context, [summary], sync_id))
    conn.execute("UPDATE repairshopr.customers SET firstname = 'not written' WHERE id = %s", [old])
    (unlike,) = [
        check for check in verify_repair(shop.context, [summary], sync_id) if check.figure.startswith("repaired")
    ]
    assert unlike.after == 1


def test_partial_range_refuses_the_other_side():
    with pytest.raises(ScanRefused, match="untick it"):
        Scope(page_start=2, not_in_api=True)


def test_partial_range_scans_its_pages_only(shop, conn):
    sync_entities(shop.context)
    summary = scanned(shop, scope=Scope(page_start=2, page_end=3, not_in_api=False))
    assert summary.scope == "pages 2-3"
    assert summary.metrics["api_rows_scanned"] == 200
    assert summary.metrics["db_not_in_api_unique"] is None


def test_range_beyond_the_end_ends_with_the_list(shop, conn):
    sync_entities(shop.context)
    last = scanned(shop).telemetry["page_end"]
    ranges = [(1, 999, last), (1, last - 1, last - 1), (last, 999, last)]
    for first, asked, reached in ranges:
        summary = scanned(shop, scope=Scope(page_start=first, page_end=asked, not_in_api=False))
        assert summary.scope == f"pages {first}-{asked}"
        assert (summary.telemetry["page_start"], summary.telemetry["page_end"]) == (first, reached)


@pytest.mark.parametrize(
    ("total_pages", "page_end", "final_page"), [(10, 0, 10), (10, 7, 7), (10, 12, 10), (None, 0, 3), (2, 0, 3)]
)
def test_the_final_page_is_that_of_the_list_or_the_range(total_pages, page_end, final_page):
    """While the list is read: three pages are staged."""
    stage = SimpleNamespace(pull=SimpleNamespace(pages=3, complete=False, total_pages=total_pages))
    assert Scope(page_end=page_end, not_in_api=not page_end).final_page(stage) == final_page


def test_missing_examples_are_the_first_that_the_list_shows(shop, conn):
    sync_entities(shop.context)
    newest = [id_ for (id_,) in conn.execute("SELECT id FROM repairshopr.customers ORDER BY updated_at DESC, id")]
    conn.execute("DELETE FROM repairshopr.customers")
    summary = scanned(shop, "customers")
    assert newest != sorted(newest)
    assert summary.examples["missing_examples"] == newest[:25]


def test_progress_lines_have_the_originals_keys(shop, conn, caplog):
    sync_entities(shop.context)
    with caplog.at_level(logging.INFO):
        scanned(shop, scope=Scope(progress_every=1))
    lines = [json.loads(r.message) for r in caplog.records if '"scan_progress"' in r.message]
    assert [entry["page"] for entry in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["api_unique_ids"] == lines[-1]["api_rows_scanned"]
    assert lines[-1]["missing_unique_ids_so_far"] == 0
    assert set(lines[0]) == {
        "event",
        "entity",
        "page",
        "final_page",
        "api_rows_scanned",
        "api_unique_ids",
        "duplicate_rows",
        "missing_unique_ids_so_far",
    }


def test_duplicates_with_other_content_are_told_apart(shop, conn):
    sync_entities(shop.context)
    shop.control.fault(Fault("duplicate_rows", resource="line_items", page=1, value=2))
    shop.control.fault(Fault("duplicate_rows", resource="line_items", page=2, value=1, changes={"name": "other"}))
    metrics = scanned(shop).metrics
    assert metrics["api_duplicate_rows"] == 3
    assert metrics["api_duplicate_rows_differing"] == 1


@pytest.mark.parametrize("form", ["blank", "null", "zero"])
def test_rows_with_unusable_ids_are_quarantined(shop, conn, form):
    sync_entities(shop.context)
    shop.control.fault(Fault("ids", resource="line_items", page=1, id_form=form, rows=[0]))
    summary = scanned(shop)
    assert summary.metrics["rows_refused"] == 1
    assert summary.metrics["confirmed_deleted"] == 0
    assert conn.execute("SELECT reason FROM confidence.quarantine").fetchall() == [("id is no usable id",)]


def test_hopeless_source_fails_with_what_to_do(shop, conn):
    sync_entities(shop.context)
    shop.control.fault(Fault("status", resource="line_items", status=503, times=None))
    with pytest.raises(TryLater, match="Run the task again later"):
        scanned(shop)


class TestRecordThatIsGoneAfterTheScan:
    """The scan plans to insert it, and it is deleted at the source before the repair is verified."""

    def unlike(self, shop, conn):
        [new] = shop.control.mutate(
            Mutation("insert", "customers", row={"updated_at": "2025-01-01T00:00:00.000Z"}),
        )
        summary = scanned(shop, "customers")
        assert summary.plan.insert == 1
        sync_id, _ = repair_entities(shop.context, [summary])
        shop.control.mutate(Mutation("delete", "customers", new))
        [check] = [
            each for each in verify_repair(shop.context, [summary], sync_id) if each.figure.startswith("repaired")
        ]
        unproven = conn.execute("SELECT key FROM confidence.unproven WHERE entity = 'customers'").fetchall()
        return check.after, unproven == [([new],)]

    def test_holds_no_writer_if_two_looks_have_shown_it(self, filled, conn):
        assert self.unlike(filled, conn) == (0, True)

    def test_is_unlike_the_source_if_only_its_list_has_shown_it(self, filled, conn, monkeypatch):
        monkeypatch.setattr(second_look, "SECOND_READINGS", 0)
        assert self.unlike(filled, conn) == (1, False)
