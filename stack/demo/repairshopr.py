"""RepairShopr's scenario: a shop mirrored in the warehouse. Drift is found, repaired, held and undone.

At its end the shop begins to send a new field, which is noticed, kept, and made a column on trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import requests
from psycopg import sql
from rich.markdown import Markdown
from rich.panel import Panel
from rich.syntax import Syntax

from include.confidence.queries.field_census import list_field_changes
from include.simulators.repairshopr import Control, Fault, Mutation
from stack.control import Stack
from stack.demo.column import column_on_trial
from stack.demo.steps import NAMED, REPAIR, ROLLBACK, Demo, expect, some
from stack.settings import SIMULATOR_TOKEN

SCHEMA = "repairshopr"
TABLES = ("customers", "invoices", "line_items", "payments", "products", "tickets", "estimates")
# Small enough to pass the gate: its margin is 25 rows.
LOST_LINES, EDITED_LINES, RENAMED_LINES, GONE_LINES, REPEATED_ROWS = 12, 7, 5, 9, 6
# Large enough for a hold at once: the gate allows a repair to delete 5 % of a table, and always 20 rows.
HOLD_SHARE, HOLD_FLOOR = 0.07, 25
# Customers that have the vendor's new field.
NEW_FIELD = "campaign_"
WITH_NEW_FIELD = 12

FIGURES = {
    "api_rows_scanned": "rows that the list showed",
    "api_duplicate_rows": "of them shown before",
    "db_total_rows": "live rows of the copy",
    "api_unique_not_in_db": "missing in the copy",
    "confirmed_missing": "of them proven",
    "db_not_in_api_unique": "not in the list any more",
    "confirmed_deleted": "of them confirmed by a second look",
    "rows_differing": "differ from the source",
    "missing_invoice_ids_count": "invoices with missing lines",
    "missing_invoice_ids_without_parent_invoice_row": "of them unknown to the copy",
    "db_null_parent_invoice_id_count": "lines of the copy without their invoice",
    "feed_noise": "suspects that the second look cleared",
    "unproven": "rows that it could not prove",
}
WRITTEN = ("inserted", "updated", "deleted")
DRIFT = ("api_unique_not_in_db", "db_not_in_api_unique", "rows_differing")


@dataclass(frozen=True)
class Shop(Demo):
    """The stack with the shop; the copy is the warehouse."""

    shop: Control
    shop_url: str

    def line_items_at_source(self) -> int:
        """The lines of invoices, as the API counts them; the lines of estimates are not mirrored."""
        answer = requests.get(
            f"{self.shop_url}/api/v1/line_items",
            params={"invoice_id_not_null": "true"},
            headers={"Authorization": f"Bearer {SIMULATOR_TOKEN}"},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json()["meta"]["total_entries"]

    def rows_at_source(self) -> Mapping[str, int]:
        totals = self.shop.totals() | {"line_items": self.line_items_at_source()}
        return {table: totals[table] for table in TABLES}

    def rows_in_copy(self) -> Mapping[str, int]:
        return {table: count_live(self.warehouse, table) for table in TABLES}


@dataclass(frozen=True)
class Drift:
    """What was broken on purpose, unseen by any sync; ids of line items but for `invoice`.

    `lost` (line -> its invoice) and `invoice` with its lines were deleted from the copy, `edited` changed in it by
    hand. `renamed` were changed at the source without a new `updated_at`, `gone` deleted there without a trace.
    """

    invoice: int
    lost: Mapping[int, int]
    edited: Sequence[int]
    renamed: Sequence[int]
    gone: Sequence[int]

    @property
    def figures(self) -> Mapping[str, int]:
        """The metrics that the scan of the line items should find."""
        return {
            "api_unique_not_in_db": len(self.lost),
            "confirmed_missing": len(self.lost),
            "db_not_in_api_unique": len(self.gone),
            "confirmed_deleted": len(self.gone),
            "rows_differing": len(self.edited) + len(self.renamed),
            "missing_invoice_ids_count": len(set(self.lost.values())),
            "missing_invoice_ids_without_parent_invoice_row": 1,
            "db_null_parent_invoice_id_count": 0,
            "unproven": 0,
        }


def play(demo: Demo, stack: Stack) -> None:
    """Play the scenario, step by step. Raises Unexpected at the first outcome that is not as it should be."""
    url = stack.simulator_urls[demo.source]
    shop = Shop(**vars(demo), shop=Control(url), shop_url=url)
    clear_leftovers(shop)
    bootstrap(shop)
    drift = break_silently(shop)
    scan(shop, drift)
    repair(shop, drift)
    scan_again(shop)
    sync_id = hold(shop)
    preview_undo(shop, sync_id)
    gain_field(shop, stack.warehouse_url)


def clear_leftovers(demo: Shop) -> None:
    """Let scheduled runs end and answer what an earlier demo left open, so that nothing else is running."""
    demo.screen.rule("RepairShopr 1  Start with nothing running")
    demo.shop.clear()
    demo.shop.set(rate_limit=None)
    demo.end_questions()
    if demo.writer()[0] == "stopped":
        demo.say("An earlier run left the writer stopped: looking again, and repairing.")
        demo.repair_whatever_is_found()
    demo.end_syncs()


def bootstrap(demo: Shop) -> None:
    """Fill the copy, count it against the source, and set the gate's baseline."""
    demo.screen.rule("RepairShopr 2  Bootstrap: every row into the warehouse")
    # An earlier demo gave these rows a newer version than a restarted simulator has, so no sync would replace them.
    demo.warehouse.execute("DELETE FROM repairshopr.customers WHERE extra::text LIKE %s", [f"%{NEW_FIELD}%"])
    run_id = demo.run(demo.sync, mode="full")
    if demo.rows_in_copy() != demo.rows_at_source():
        demo.say("The copy holds rows that the source has lost since an earlier demo: repairing.")
        demo.repair_whatever_is_found()
    synced = demo.airflow.xcom(demo.sync, run_id, "sync")
    source, copy = demo.rows_at_source(), demo.rows_in_copy()
    rows = [(table, source[table], copy[table], _writers(demo.warehouse, table)) for table in TABLES]
    demo.show(("table", "at the source", "in the copy", "last written under sync_id"), rows)
    total = {name: sum(counts[name] for counts in synced["counts"].values()) for name in ("read", *WRITTEN)}
    figures = ", ".join(f"{number} {name}" for name, number in total.items())
    demo.say(f"This sync, sync_id {synced['sync_id']}: {figures}. The schedule's own may have come before it.")
    expect("rows per table", copy, source)
    demo.say("A forensic run of the fresh copy, the first to compare later ones with:")
    _run_clean(demo)


def break_silently(demo: Shop) -> Drift:
    """Drift of every kind, on both sides, that no sync can see; and a list that repeats rows."""
    demo.screen.rule("RepairShopr 3  Drift: what no sync can see")
    drift = drift_silently(demo.shop, demo.warehouse)
    rows = [
        ("the copy", "lines deleted", len(drift.lost), f"those of invoice {drift.invoice} and some others"),
        ("the copy", "invoices deleted", 1, str(drift.invoice)),
        ("the copy", "lines edited by hand", len(drift.edited), some(drift.edited)),
        ("the source", "lines changed, updated_at kept", len(drift.renamed), some(drift.renamed)),
        ("the source", "lines deleted without a trace", len(drift.gone), some(drift.gone)),
        ("the list", "rows shown twice", REPEATED_ROWS, "on page 2 of line_items"),
    ]
    demo.show(("where", "what", "rows", "which"), rows)
    return drift


def scan(demo: Shop, drift: Drift) -> None:
    """A forensic run: every kind of drift is found, to the row, and nothing is written."""
    demo.screen.rule("RepairShopr 4  A forensic run: find it, judge it, write nothing")
    before = demo.rows_in_copy()
    run_id = demo.run(demo.reconcile, dry_run=True)
    found = demo.summaries(run_id)
    summary, verdict, reasons = found["line_items"]
    _show_figures(demo, summary)
    _show_plan(demo, found)
    demo.say(f"verdict of line_items: [bold]{'; '.join([verdict, *reasons])}[/]")
    expected = drift.figures | {"api_duplicate_rows": REPEATED_ROWS}
    expect("forensic_summary of line_items", {name: summary["metrics"][name] for name in expected}, expected)
    expect("missing invoices", found["invoices"][0]["metrics"]["confirmed_missing"], 1)
    expect("verdict", verdict, "pass")
    expect("the copy's rows after a dry run", demo.rows_in_copy(), before)
    demo.expect_skipped(run_id, "decide", "verify")


def repair(demo: Shop, drift: Drift) -> None:
    """The same run with dry_run off: the plan is applied under a sync_id and verified."""
    demo.screen.rule("RepairShopr 5  Repair: the same run with dry_run off")
    run_id = demo.run(demo.reconcile, dry_run=False)
    repaired = demo.airflow.xcom(demo.reconcile, run_id, "reconcile")
    _show_repair(demo, repaired)
    checks = demo.airflow.xcom(demo.reconcile, run_id, "verify")
    rows = [
        (c["entity"], c["figure"], c["before"], c["after"]) for c in checks if c["entity"] in ("invoices", "line_items")
    ]
    demo.show(("verify", "figure", "before", "after"), rows)
    counts = repaired["counts"]["line_items"]
    expect(
        "the repair of line_items",
        {name: counts[name] for name in WRITTEN},
        {
            "inserted": len(drift.lost),
            "updated": len(drift.edited) + len(drift.renamed),
            "deleted": len(drift.gone),
        },
    )
    expect("changes of the plan that are still open", sum(c["after"] for c in checks if "open" in c["figure"]), 0)
    expect("rows per table", demo.rows_in_copy(), demo.rows_at_source())


def scan_again(demo: Shop) -> None:
    """A second run finds nothing, and skips what it has no need of."""
    demo.screen.rule("RepairShopr 6  A clean second run")
    _run_clean(demo)


def hold(demo: Shop) -> int:
    """Too large a repair: the gate holds, the writer stands, a person decides. Returns the repair's sync_id."""
    demo.screen.rule("RepairShopr 7  A bad night: the gate holds, the writer stands, a person decides")
    lines = _pick(demo.warehouse, max(HOLD_FLOOR, int(HOLD_SHARE * count_live(demo.warehouse, "line_items"))))
    demo.shop.mutate(*(Mutation("delete", "line_items", line, silent=True) for line in lines))
    demo.say(f"{len(lines)} line items vanish at the source without a trace.")
    run_id = demo.start_run(demo.reconcile, dry_run=True)
    expect("a question", demo.wait_for_question(run_id), True)
    sync = demo.start_run(demo.sync)
    _show_standstill(demo)
    link = demo.question_link(demo.reconcile, run_id)
    _show_question(demo, run_id, link)
    demo.let_it_stand()
    _show_waiting(demo, sync)
    demo.answer(run_id, REPAIR)
    demo.end_run(demo.reconcile, run_id)
    repaired = demo.airflow.xcom(demo.reconcile, run_id, "reconcile")
    _show_repair(demo, repaired)
    expect("deleted by the repair", repaired["counts"]["line_items"]["deleted"], len(lines))
    decided = demo.warehouse.execute(
        "SELECT decision, decided_by FROM confidence.forensic_run WHERE run = %s AND verdict = 'hold'",
        [f"{demo.reconcile}/{run_id}"],
    ).fetchall()
    demo.say(f"kept in confidence.forensic_run: {', '.join(f'{what} by {who}' for what, who in decided)}")
    expect("the decision", [what for what, _ in decided], ["repair"])
    demo.expect_writer_runs()
    demo.end_run(demo.sync, sync)
    demo.say("The writer runs again, and the sync that had waited is done.")
    expect("rows per table", demo.rows_in_copy(), demo.rows_at_source())
    return repaired["sync_id"]


def preview_undo(demo: Shop, sync_id: int) -> None:
    """What a rollback of that repair would do; it is not done."""
    demo.screen.rule("RepairShopr 8  Undo, as a preview")
    before = demo.rows_in_copy()
    run_id = demo.run(ROLLBACK, sync_id=sync_id, dry_run=True, reason="a preview")
    undone = demo.airflow.xcom(ROLLBACK, run_id, "rollback")
    rows = [(table, n["updated"], n["inserted"], n["deleted"]) for table, n in undone["tables"].items()]
    demo.show((f"sync_id {sync_id}", "would be put back", "brought back", "removed"), rows)
    written = demo.warehouse.execute(
        "SELECT count(*) FROM confidence.change_log WHERE sync_id = %s", [sync_id]
    ).fetchone()
    expect("rows that the rollback would restore", sum(sum(row[1:]) for row in rows), written[0])
    expect("the copy's rows after a preview", demo.rows_in_copy(), before)
    demo.say("Nothing was written: source and copy stay in step.")


def gain_field(demo: Shop, warehouse_url: str) -> None:
    """The vendor sends a field that nobody declared: a sync notices and keeps it, `make column` makes it a column."""
    demo.screen.rule("RepairShopr 9  A new field: noticed, kept, made a column")
    name, sent = send_new_field(demo)
    demo.say(f"{len(sent)} customers change, and have a field now that no column reads: {name}")
    demo.run(demo.sync)
    demo.end_syncs()
    told = changes_of(demo, name)
    expect("what is told of the new field", told, [f"{name} is new (text); it is kept in extra"])
    demo.say(f"told once, on the source's page: [bold]{told[0]}[/]")
    page = f"/sync-confidence/sources/{demo.source}/fields"
    demo.show_link(f"{demo.airflow.url}{page}")
    expect("whether the page says so", told[0] in demo.airflow.page(page), True)
    make_column(demo, warehouse_url, name, sent)


def send_new_field(demo: Shop) -> tuple[str, Mapping[int, str]]:
    """Let some customers have a field that none had before; return its name, and its values by customer."""
    # Another one in each demo, so that it is always new.
    name = f"{NEW_FIELD}{datetime.now(UTC):%Y%m%d_%H%M%S}"
    rows = demo.warehouse.execute(
        "SELECT id FROM repairshopr.customers WHERE deleted_at IS NULL ORDER BY random() LIMIT %s", [WITH_NEW_FIELD]
    ).fetchall()
    expect("customers to choose from", len(rows), WITH_NEW_FIELD)
    sent = {id_: f"spring offer {number}" for number, (id_,) in enumerate(rows, 1)}
    demo.shop.mutate(*(Mutation("update", "customers", id_, {name: value}) for id_, value in sent.items()))
    return name, sent


def changes_of(demo: Shop, field: str) -> list[str]:
    """What the copy's census has told of a field of the customers."""
    changes = list_field_changes(demo.warehouse, demo.source, entity="customers").items
    return [change.text for change in changes if change.path == field]


def make_column(demo: Shop, warehouse_url: str, name: str, sent: Mapping[int, str]) -> None:
    """Show the field in `extra`, then as a column, in a copy of the project and a transaction that is rolled back."""
    kept = _values(demo.warehouse, sql.SQL("extra ->> {}").format(name))
    expect("the field in extra", kept, sent)
    with column_on_trial(warehouse_url, demo.source, "customers", name) as trial:
        demo.say(f"[bold]make column SOURCE={demo.source} TABLE=customers FIELD={name}[/], in a copy of the project:")
        demo.screen.print(trial.told, markup=False, soft_wrap=True)
        demo.screen.print(Syntax(trial.migration, "python"))
        filled = _values(trial.warehouse, sql.Identifier(name))
        left = _values(trial.warehouse, sql.SQL("extra ->> {}").format(name))
    demo.show(("customer", f"extra ->> '{name}', before", "column after the migration"), _beside(kept, filled))
    expect("the column", filled, sent)
    expect("what is left in extra", left, {})
    expect("the field in extra after the trial", _values(demo.warehouse, sql.SQL("extra ->> {}").format(name)), sent)
    demo.say("The migration is rolled back and the copy of the project deleted: nothing is left of the trial.")


def drift_silently(shop: Control, copy: psycopg.Connection) -> Drift:
    """Break some rows at the source and in the copy, others each time, and let the list repeat some rows."""
    invoice, lines_of_it = copy.execute(
        "SELECT invoice_id, array_agg(l.id) FROM repairshopr.line_items l JOIN repairshopr.invoices i"
        " ON i.id = l.invoice_id WHERE l.deleted_at IS NULL AND i.deleted_at IS NULL"
        " GROUP BY 1 HAVING count(*) <= 5 ORDER BY random() LIMIT 1"
    ).fetchone()
    wanted = (LOST_LINES, EDITED_LINES, RENAMED_LINES, GONE_LINES)
    chosen = iter(_pick(copy, sum(wanted), not_of=invoice).items())
    lost, edited, renamed, gone = (dict(next(chosen) for _ in range(number)) for number in wanted)
    lost |= dict.fromkeys(lines_of_it, invoice)
    with copy.transaction():
        copy.execute("DELETE FROM repairshopr.line_items WHERE id = ANY (%s)", [list(lost)])
        copy.execute("DELETE FROM repairshopr.invoices WHERE id = %s", [invoice])
        copy.execute(
            "UPDATE repairshopr.line_items SET quantity = coalesce(quantity, 0) + 1 WHERE id = ANY (%s)", [list(edited)]
        )
    name = f"renamed at {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
    shop.mutate(
        *(Mutation("update", "line_items", line, {"name": name}, silent=True) for line in renamed),
        *(Mutation("delete", "line_items", line, silent=True) for line in gone),
    )
    shop.fault(Fault("duplicate_rows", resource="line_items", page=2, times=None, value=REPEATED_ROWS))
    return Drift(invoice, lost, list(edited), list(renamed), list(gone))


def count_live(copy: psycopg.Connection, table: str) -> int:
    """The rows of a mirrored table that are no tombstones."""
    query = sql.SQL("SELECT count(*) FROM {} WHERE deleted_at IS NULL").format(sql.Identifier(SCHEMA, table))
    return copy.execute(query).fetchone()[0]


def _values(copy: psycopg.Connection, expression: sql.Composable) -> dict[int, str]:
    """The values of an expression of customers, where it is not null, by customer."""
    query = sql.SQL("SELECT id, {0} FROM repairshopr.customers WHERE {0} IS NOT NULL ORDER BY id")
    return dict(copy.execute(query.format(expression)).fetchall())


def _beside(before: Mapping[int, str], after: Mapping[int, str]) -> list[tuple[int, str, str]]:
    return [(id_, value, after.get(id_, "-")) for id_, value in list(before.items())[:NAMED]]


def _writers(copy: psycopg.Connection, table: str) -> str:
    query = sql.SQL("SELECT DISTINCT sync_id FROM {} WHERE deleted_at IS NULL ORDER BY 1")
    return ", ".join(str(sync_id) for (sync_id,) in copy.execute(query.format(sql.Identifier(SCHEMA, table))))


def _pick(copy: psycopg.Connection, number: int, not_of: int = 0) -> dict[int, int]:
    """Live lines of the copy by chance, with their invoices; none of the invoice `not_of`."""
    rows = copy.execute(
        "SELECT id, invoice_id FROM repairshopr.line_items WHERE deleted_at IS NULL AND invoice_id <> %s"
        " ORDER BY random() LIMIT %s",
        [not_of, number],
    ).fetchall()
    expect("line items to choose from", len(rows), number)
    return dict(rows)


def _run_clean(demo: Shop) -> None:
    """A forensic run that finds no drift in any entity and ends after the gate."""
    run_id = demo.run(demo.reconcile, dry_run=True)
    found = demo.summaries(run_id)
    expect("entities scanned", sorted(found), sorted(TABLES))
    rows = [(table, *(found[table][0]["metrics"][name] for name in DRIFT), found[table][1]) for table in TABLES]
    demo.show(("entity", *DRIFT, "verdict"), rows)
    expect("drift", {figure for row in rows for figure in row[1:-1]}, {0})
    expect("verdicts", {row[-1] for row in rows}, {"pass"})
    demo.expect_skipped(run_id, "decide", "reconcile", "verify")


def _show_figures(demo: Shop, summary: Mapping[str, Any]) -> None:
    metrics = summary["metrics"]
    rows = [(name, metrics[name], meaning) for name, meaning in FIGURES.items()]
    demo.show(("forensic_summary of line_items", "rows", "meaning"), rows)


def _show_plan(demo: Shop, found: Mapping[str, tuple[Mapping[str, Any], str, list[str]]]) -> None:
    plans = {entity: summary["plan"] for entity, (summary, _, _) in found.items()}
    rows = [(entity, p["insert"], p["update"], p["delete"]) for entity, p in plans.items() if any(p.values())]
    demo.show(("a repair would", "insert", "update", "delete"), rows)


def _show_repair(demo: Shop, repaired: Mapping[str, Any]) -> None:
    rows = [(entity, *(n[name] for name in WRITTEN)) for entity, n in repaired["counts"].items() if any(n.values())]
    demo.show((f"repaired as sync_id {repaired['sync_id']}", *WRITTEN), rows)


def _show_standstill(demo: Shop) -> None:
    pool = demo.airflow.call("GET", f"/pools/{demo.pool}")
    state, reason = demo.writer()
    rows = [
        (f"pool {demo.pool}", f"{pool['slots']} slots", pool["description"]),
        ("fence confidence.writer", state, reason),
    ]
    demo.show(("the writer", "state", "why"), rows)
    expect("slots of the pool, state of the fence", (pool["slots"], state), (0, "stopped"))


def _show_waiting(demo: Shop, sync: str) -> None:
    state = demo.airflow.tasks(demo.sync, sync).get("sync", "none")
    demo.say(f"the sync meanwhile: run {demo.airflow.state(demo.sync, sync)}, task {state}")
    expect("whether the sync waits", state in ("none", "scheduled", "queued"), True)


def _show_question(demo: Shop, run_id: str, link: str) -> None:
    path = f"/dags/{demo.reconcile}/dagRuns/{run_id}/taskInstances/decide/-1/hitlDetails"
    question = demo.airflow.call("GET", path)
    demo.screen.print(Panel(Markdown(question["body"]), title=question["subject"]))
    demo.say("to be answered in the UI, under Required actions:")
    demo.show_link(link)
    expect("an option of the question", REPAIR in question["options"], True)
