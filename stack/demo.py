"""The demo: the runbook's nights on invented data, told on screen and checked at every step.

Every figure is read from the running system: the simulator, the warehouse, Airflow's API. The first one that is not as
it should be ends the demo with `Unexpected`.
"""

import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import requests
from psycopg import sql
from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.table import Table

from include.simulators.repairshopr import Control, Fault, Mutation
from stack.airflow import ENDED, Airflow, until
from stack.control import Stack
from stack.guardian import StackError
from stack.settings import SIMULATOR_TOKEN

SOURCE = "repairshopr"
SYNC, RECONCILE, ROLLBACK, POOL = f"{SOURCE}_sync", f"{SOURCE}_reconcile", "warehouse_rollback", f"{SOURCE}_writer"
TABLES = ("customers", "invoices", "line_items", "payments", "products", "tickets", "estimates")
REPAIR, KEEP = "Repair, then resume", "Keep stopped"

# Of the lines in a file or a pipe, which has no width of its own.
PLAIN_WIDTH = 110
# For one run or one task's start, on a slow machine.
PATIENCE_SECONDS = 300.0
# An answer that comes sooner can reach the scheduler before it has noticed the question.
BEFORE_ANSWER_SECONDS = 12.0

# Small enough to pass the gate: its margin is 25 rows.
LOST_LINES, EDITED_LINES, RENAMED_LINES, GONE_LINES, REPEATED_ROWS = 12, 7, 5, 9, 6
# Large enough for a hold at once: the gate allows a repair to delete 5 % of a table, and always 20 rows.
HOLD_SHARE, HOLD_FLOOR = 0.07, 25

FIGURES = {
    "api_rows_scanned": "rows that the feed showed",
    "api_duplicate_rows": "of them shown before",
    "db_total_rows": "live rows of the copy",
    "api_unique_not_in_db": "missing in the copy",
    "confirmed_missing": "of them confirmed by a second look",
    "db_not_in_api_unique": "not in the feed any more",
    "confirmed_deleted": "of them confirmed by a second look",
    "rows_differing": "differ from the source",
    "missing_invoice_ids_count": "invoices with missing lines",
    "missing_invoice_ids_without_parent_invoice_row": "of them unknown to the copy",
    "db_null_parent_invoice_id_count": "lines of the copy without their invoice",
    "feed_noise": "suspects that the second look cleared",
    "unconfirmed": "suspects that it could not decide",
}
WRITTEN = ("inserted", "updated", "deleted")
DRIFT = ("api_unique_not_in_db", "db_not_in_api_unique", "rows_differing")


class Unexpected(StackError):
    """A step's outcome differs from what it should be."""


@dataclass(frozen=True)
class House:
    """All that the demo reads and moves: a person's Airflow, the shop, the copy (autocommit), and the screen."""

    airflow: Airflow
    shop: Control
    shop_url: str
    copy: psycopg.Connection
    screen: Console

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
        return {table: count_live(self.copy, table) for table in TABLES}

    def writer(self) -> tuple[str, str | None]:
        """The fence: state and hold reason."""
        query = "SELECT state, hold_reason FROM confidence.writer WHERE source = %s"
        return self.copy.execute(query, [SOURCE]).fetchone()

    def summaries(self, run_id: str) -> dict[str, tuple[Mapping[str, Any], str, list[str]]]:
        """What a reconcile run found, by entity: forensic summary, verdict, reasons."""
        rows = self.copy.execute(
            "SELECT entity, summary, verdict, reasons FROM confidence.forensic_run WHERE source = %s AND run = %s",
            [SOURCE, f"{RECONCILE}/{run_id}"],
        ).fetchall()
        return {entity: (summary, verdict, reasons) for entity, summary, verdict, reasons in rows}

    def link(self, dag_id: str, run_id: str, rest: str = "") -> str:
        return f"{self.airflow.url}/dags/{dag_id}/runs/{run_id}{rest}"

    def say(self, text: str) -> None:
        self.screen.print(text)

    def show_link(self, link: str) -> None:
        # On one line however long, so that a terminal can open it.
        self.screen.print(link, style="dim", soft_wrap=True)

    def start_run(self, dag_id: str, **conf: Any) -> str:
        """Trigger a run as a person does, and tell where to see it; returns its id."""
        run_id = self.airflow.trigger(dag_id, **conf)
        self.say(" ".join([f"[bold]{dag_id}[/]", *(f"{name}={value}" for name, value in conf.items())]))
        self.show_link(self.link(dag_id, run_id))
        return run_id

    def end_run(self, dag_id: str, run_id: str, expected: str = "success") -> None:
        with self.screen.status(f"{dag_id} is at work"):
            state = self.airflow.wait(dag_id, run_id, PATIENCE_SECONDS)
        expect(f"the state of {self.link(dag_id, run_id)}", state, expected)

    def run(self, dag_id: str, **conf: Any) -> str:
        run_id = self.start_run(dag_id, **conf)
        self.end_run(dag_id, run_id)
        return run_id

    def wait_for_question(self, run_id: str) -> bool:
        """Wait until a reconcile run asks (True) or ends without a question (False)."""

        def asks() -> bool:
            return self.airflow.tasks(RECONCILE, run_id).get("decide") == "awaiting_input"

        with self.screen.status(f"{RECONCILE} is at work"):
            until(
                lambda: asks() or self.airflow.state(RECONCILE, run_id) in ENDED,
                f"{self.link(RECONCILE, run_id)} to ask or to end",
                PATIENCE_SECONDS,
            )
        return asks()

    def let_it_stand(self) -> None:
        with self.screen.status("the question stands"):
            time.sleep(BEFORE_ANSWER_SECONDS)

    def answer(self, run_id: str, option: str) -> None:
        self.airflow.answer(RECONCILE, run_id, option)
        self.say(f'answered: [bold]"{option}"[/]')


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
        """What the forensic summary of the line items has to say of it."""
        return {
            "api_unique_not_in_db": len(self.lost),
            "confirmed_missing": len(self.lost),
            "db_not_in_api_unique": len(self.gone),
            "confirmed_deleted": len(self.gone),
            "rows_differing": len(self.edited) + len(self.renamed),
            "missing_invoice_ids_count": len(set(self.lost.values())),
            "missing_invoice_ids_without_parent_invoice_row": 1,
            "db_null_parent_invoice_id_count": 0,
            "unconfirmed": 0,
        }


def run(stack: Stack, *, once: bool) -> int:
    """Tell the story on the stack, started if it doesn't run; return the exit code.

    Afterwards a stack that was started here stays up until Ctrl-C, or ends at once with `once`. One that ran before
    goes on. Raises StackError, Unexpected among them, after ending what was started.
    """
    _refuse_what_is_real()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = PLAIN_WIDTH
    ran_before, told = stack.runs, False
    try:
        if not ran_before:
            _start(stack, screen)
        os.environ |= {name: stack.env[name] for name in ("NO_PROXY", "no_proxy")}
        with closing(psycopg.connect(stack.warehouse_url, autocommit=True)) as copy:
            url = stack.simulator_urls[SOURCE]
            airflow = Airflow(stack.api_url, "admin", stack.password("admin"))
            _tell_address(stack, screen)
            tell(House(airflow, Control(url), url, copy, screen))
        told = True
        _tell_address(stack, screen)
        if ran_before:
            screen.print("The stack ran before and goes on: `make down` ends it.")
        elif not once:
            screen.print("Ctrl-C ends everything.")
            _wait_for_the_end(stack)
    except KeyboardInterrupt:
        screen.print("Ending.")
        return 0 if told else 130
    except (requests.RequestException, psycopg.OperationalError) as error:
        raise StackError(
            f"a part of the stack doesn't answer ({type(error).__name__}): see {stack.home.logs}"
        ) from error
    finally:
        if not ran_before:
            stack.stop()
    return 0


def tell(house: House) -> None:
    """The whole story, step by step. Raises Unexpected at the first outcome that is not as it should be."""
    started = time.monotonic()
    clear_leftovers(house)
    bootstrap(house)
    drift = break_silently(house)
    look(house, drift)
    mend(house, drift)
    look_again(house)
    sync_id = hold(house)
    preview_undo(house, sync_id)
    house.screen.rule(f"Everything was as it should be, in {time.monotonic() - started:.0f} s")


def clear_leftovers(house: House) -> None:
    """Let scheduled runs end and answer what an earlier demo left open, so that the story begins in peace."""
    house.screen.rule("1  Begin in peace")
    house.shop.clear()
    house.shop.set(rate_limit=None)
    for dag_id in (SYNC, RECONCILE):
        for run_id in _at_work(house, dag_id):
            house.say("at work already, by schedule or since an earlier demo:")
            house.show_link(house.link(dag_id, run_id))
    for run_id in _at_work(house, RECONCILE):
        if house.wait_for_question(run_id):
            house.say("It waits for a decision about what an earlier demo broke.")
            house.let_it_stand()
            house.answer(run_id, KEEP)
            house.end_run(RECONCILE, run_id, expected="failed")
    if house.writer()[0] == "stopped":
        house.say("An earlier run left the writer stopped: looking anew, and repairing.")
        _repair_whatever_is_found(house)
    for run_id in _at_work(house, SYNC):
        house.end_run(SYNC, run_id)


def bootstrap(house: House) -> None:
    """Fill the copy, count it against the source, and set the gate's baseline."""
    house.screen.rule("2  Bootstrap: every row of RepairShopr into the warehouse")
    run_id = house.run(SYNC, mode="full")
    if house.rows_in_copy() != house.rows_at_source():
        house.say("The copy holds rows that the source has lost since an earlier demo: repairing.")
        _repair_whatever_is_found(house)
    synced = house.airflow.xcom(SYNC, run_id, "sync")
    source, copy = house.rows_at_source(), house.rows_in_copy()
    rows = [(table, source[table], copy[table], _writers(house.copy, table)) for table in TABLES]
    _show(house, ("table", "at the source", "in the copy", "last written under sync_id"), rows)
    total = {name: sum(counts[name] for counts in synced["counts"].values()) for name in ("read", *WRITTEN)}
    figures = ", ".join(f"{number} {name}" for name, number in total.items())
    house.say(f"This sync, sync_id {synced['sync_id']}: {figures}. The schedule's own may have come before it.")
    expect("rows per table", copy, source)
    house.say("A forensic run of the fresh copy, the first to compare later ones with:")
    _run_clean(house)


def break_silently(house: House) -> Drift:
    """Drift of every kind, on both sides, that no sync can see; and a feed that repeats rows."""
    house.screen.rule("3  Drift: what no sync can see")
    drift = drift_silently(house.shop, house.copy)
    rows = [
        ("the copy", "lines deleted", len(drift.lost), f"those of invoice {drift.invoice} and some others"),
        ("the copy", "invoices deleted", 1, str(drift.invoice)),
        ("the copy", "lines edited by hand", len(drift.edited), _some(drift.edited)),
        ("the source", "lines changed, updated_at kept", len(drift.renamed), _some(drift.renamed)),
        ("the source", "lines deleted without a trace", len(drift.gone), _some(drift.gone)),
        ("the feed", "rows shown twice", REPEATED_ROWS, "on page 2 of line_items"),
    ]
    _show(house, ("where", "what", "rows", "which"), rows)
    return drift


def look(house: House, drift: Drift) -> None:
    """A forensic run: every kind of drift is found, to the row, and nothing is written."""
    house.screen.rule("4  A forensic run: find it, judge it, write nothing")
    before = house.rows_in_copy()
    run_id = house.run(RECONCILE, dry_run=True)
    found = house.summaries(run_id)
    summary, verdict, reasons = found["line_items"]
    _show_figures(house, summary)
    _show_plan(house, found)
    house.say(f"verdict of line_items: [bold]{'; '.join([verdict, *reasons])}[/]")
    expected = drift.figures | {"api_duplicate_rows": REPEATED_ROWS}
    expect("forensic_summary of line_items", {name: summary["metrics"][name] for name in expected}, expected)
    expect("missing invoices", found["invoices"][0]["metrics"]["confirmed_missing"], 1)
    expect("verdict", verdict, "pass")
    expect("the copy's rows after a dry run", house.rows_in_copy(), before)
    _expect_skipped(house, run_id, "decide", "verify")


def mend(house: House, drift: Drift) -> None:
    """The same run with dry_run off: the plan is applied under a sync_id and verified."""
    house.screen.rule("5  Repair: the same run with dry_run off")
    run_id = house.run(RECONCILE, dry_run=False)
    repaired = house.airflow.xcom(RECONCILE, run_id, "reconcile")
    _show_repair(house, repaired)
    checks = house.airflow.xcom(RECONCILE, run_id, "verify")
    rows = [
        (c["entity"], c["figure"], c["before"], c["after"]) for c in checks if c["entity"] in ("invoices", "line_items")
    ]
    _show(house, ("verify", "figure", "before", "after"), rows)
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
    expect("rows per table", house.rows_in_copy(), house.rows_at_source())


def look_again(house: House) -> None:
    """A second run finds nothing, and skips what it has no need of."""
    house.screen.rule("6  A clean second run")
    _run_clean(house)


def hold(house: House) -> int:
    """Too large a repair: the gate holds, the writer stands, a person decides. Returns the repair's sync_id."""
    house.screen.rule("7  A bad night: the gate holds, the writer stands, a person decides")
    lines = _pick(house.copy, max(HOLD_FLOOR, int(HOLD_SHARE * count_live(house.copy, "line_items"))))
    house.shop.mutate(*(Mutation("delete", "line_items", line, silent=True) for line in lines))
    house.say(f"{len(lines)} line items vanish at the source without a trace.")
    run_id = house.start_run(RECONCILE, dry_run=True)
    expect("a question", house.wait_for_question(run_id), True)
    sync = house.start_run(SYNC)
    _show_standstill(house)
    link = house.link(RECONCILE, run_id, "/tasks/decide/required_actions")
    _show_question(house, run_id, link)
    house.let_it_stand()
    _show_waiting(house, sync)
    house.answer(run_id, REPAIR)
    house.end_run(RECONCILE, run_id)
    repaired = house.airflow.xcom(RECONCILE, run_id, "reconcile")
    _show_repair(house, repaired)
    expect("deleted by the repair", repaired["counts"]["line_items"]["deleted"], len(lines))
    decided = house.copy.execute(
        "SELECT decision, decided_by FROM confidence.forensic_run WHERE run = %s AND verdict = 'hold'",
        [f"{RECONCILE}/{run_id}"],
    ).fetchall()
    house.say(f"kept in confidence.forensic_run: {', '.join(f'{what} by {who}' for what, who in decided)}")
    expect("the decision", [what for what, _ in decided], ["repair"])
    expect("writer, slots of its pool", (*house.writer(), house.airflow.slots(POOL)), ("running", None, 1))
    house.end_run(SYNC, sync)
    house.say("The writer runs again, and the sync that had waited is done.")
    expect("rows per table", house.rows_in_copy(), house.rows_at_source())
    return repaired["sync_id"]


def preview_undo(house: House, sync_id: int) -> None:
    """What a rollback of that repair would do; it is not done."""
    house.screen.rule("8  Undo, as a preview")
    before = house.rows_in_copy()
    run_id = house.run(ROLLBACK, sync_id=sync_id, dry_run=True, reason="a preview")
    undone = house.airflow.xcom(ROLLBACK, run_id, "rollback")
    rows = [(table, n["updated"], n["inserted"], n["deleted"]) for table, n in undone["tables"].items()]
    _show(house, (f"sync_id {sync_id}", "would be put back", "brought back", "removed"), rows)
    written = house.copy.execute("SELECT count(*) FROM confidence.change_log WHERE sync_id = %s", [sync_id]).fetchone()
    expect("rows that the rollback would restore", sum(sum(row[1:]) for row in rows), written[0])
    expect("the copy's rows after a preview", house.rows_in_copy(), before)
    house.say("Nothing was written: source and copy stay in step.")


def drift_silently(shop: Control, copy: psycopg.Connection) -> Drift:
    """Break source and copy in rows that are chosen anew each time, and let the feed repeat some rows."""
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
    query = sql.SQL("SELECT count(*) FROM {} WHERE deleted_at IS NULL").format(sql.Identifier(SOURCE, table))
    return copy.execute(query).fetchone()[0]


def _writers(copy: psycopg.Connection, table: str) -> str:
    query = sql.SQL("SELECT DISTINCT sync_id FROM {} WHERE deleted_at IS NULL ORDER BY 1")
    return ", ".join(str(sync_id) for (sync_id,) in copy.execute(query.format(sql.Identifier(SOURCE, table))))


def expect(what: str, found: Any, expected: Any) -> None:
    """Raise Unexpected, naming only what differs, unless both are equal."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        names = [name for name in expected if found.get(name) != expected[name]]
        found, expected = {n: found.get(n) for n in names}, {n: expected[n] for n in names}
    if found != expected:
        raise Unexpected(f"the demo ended early: {what} should be {expected}, found {found}")


def _pick(copy: psycopg.Connection, number: int, not_of: int = 0) -> dict[int, int]:
    """Live lines of the copy by chance, with their invoices; none of the invoice `not_of`."""
    rows = copy.execute(
        "SELECT id, invoice_id FROM repairshopr.line_items WHERE deleted_at IS NULL AND invoice_id <> %s"
        " ORDER BY random() LIMIT %s",
        [not_of, number],
    ).fetchall()
    expect("line items to choose from", len(rows), number)
    return dict(rows)


def _refuse_what_is_real() -> None:
    """The demo breaks what it works on, so it works on the stack's own parts only."""
    named = [name for name in ("AIRFLOW_CONN_WAREHOUSE", f"AIRFLOW_CONN_{SOURCE.upper()}") if name in os.environ]
    if named:
        raise StackError(f"the demo damages what it works on, and {' and '.join(named)} may be real: unset it first")


def _start(stack: Stack, screen: Console) -> None:
    with screen.status("starting Postgres, the simulator and Airflow"):
        for line in stack.start(owned=True):
            screen.print(f"[dim]{line}[/]")


def _wait_for_the_end(stack: Stack) -> None:
    while stack.runs:
        time.sleep(1)
    raise StackError(f"the stack ended by itself: see {stack.home.logs}")


def _run_clean(house: House) -> None:
    """A forensic run that finds no drift in any entity and ends after the gate."""
    run_id = house.run(RECONCILE, dry_run=True)
    found = house.summaries(run_id)
    expect("entities scanned", sorted(found), sorted(TABLES))
    rows = [(table, *(found[table][0]["metrics"][name] for name in DRIFT), found[table][1]) for table in TABLES]
    _show(house, ("entity", *DRIFT, "verdict"), rows)
    expect("drift", {figure for row in rows for figure in row[1:-1]}, {0})
    expect("verdicts", {row[-1] for row in rows}, {"pass"})
    _expect_skipped(house, run_id, "decide", "reconcile", "verify")


def _at_work(house: House, dag_id: str) -> list[str]:
    path = f"/dags/{dag_id}/dagRuns?state=running&state=queued&order_by=run_after"
    return [found["dag_run_id"] for found in house.airflow.call("GET", path)["dag_runs"]]


def _repair_whatever_is_found(house: House) -> None:
    run_id = house.start_run(RECONCILE, dry_run=False)
    if house.wait_for_question(run_id):
        house.let_it_stand()
        house.answer(run_id, REPAIR)
    house.end_run(RECONCILE, run_id)


def _expect_skipped(house: House, run_id: str, *tasks: str) -> None:
    states = house.airflow.tasks(RECONCILE, run_id)
    house.say(f"skipped, as nothing called for them: {', '.join(tasks)}")
    expect("task states", states, states | dict.fromkeys(tasks, "skipped"))


def _show(house: House, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table()
    rows = list(rows)
    for place, column in enumerate(columns):
        numeric = all(isinstance(row[place], int) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric or place == 0)
    for row in rows:
        table.add_row(*map(str, row))
    house.screen.print(table)


def _show_figures(house: House, summary: Mapping[str, Any]) -> None:
    metrics = summary["metrics"]
    rows = [(name, metrics[name], meaning) for name, meaning in FIGURES.items()]
    _show(house, ("forensic_summary of line_items", "rows", "meaning"), rows)


def _show_plan(house: House, found: Mapping[str, tuple[Mapping[str, Any], str, list[str]]]) -> None:
    plans = {entity: summary["plan"] for entity, (summary, _, _) in found.items()}
    rows = [(entity, p["insert"], p["update"], p["delete"]) for entity, p in plans.items() if any(p.values())]
    _show(house, ("a repair would", "insert", "update", "delete"), rows)


def _show_repair(house: House, repaired: Mapping[str, Any]) -> None:
    rows = [(entity, *(n[name] for name in WRITTEN)) for entity, n in repaired["counts"].items() if any(n.values())]
    _show(house, (f"repaired as sync_id {repaired['sync_id']}", *WRITTEN), rows)


def _show_standstill(house: House) -> None:
    pool = house.airflow.call("GET", f"/pools/{POOL}")
    state, reason = house.writer()
    rows = [
        (f"pool {POOL}", f"{pool['slots']} slots", pool["description"]),
        ("fence confidence.writer", state, reason),
    ]
    _show(house, ("the writer", "state", "why"), rows)
    expect("slots of the pool, state of the fence", (pool["slots"], state), (0, "stopped"))


def _show_waiting(house: House, sync: str) -> None:
    state = house.airflow.tasks(SYNC, sync).get("sync", "none")
    house.say(f"the sync meanwhile: run {house.airflow.state(SYNC, sync)}, task {state}")
    expect("whether the sync waits", state in ("none", "scheduled", "queued"), True)


def _show_question(house: House, run_id: str, link: str) -> None:
    path = f"/dags/{RECONCILE}/dagRuns/{run_id}/taskInstances/decide/-1/hitlDetails"
    question = house.airflow.call("GET", path)
    house.screen.print(Panel(Markdown(question["body"]), title=question["subject"]))
    house.say("to be answered in the UI, under Required actions:")
    house.show_link(link)
    expect("an option of the question", REPAIR in question["options"], True)


def _tell_address(stack: Stack, screen: Console) -> None:
    screen.print(f"Airflow: {stack.api_url}  user admin, password {stack.password('admin')}", markup=False)


def _some(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:4])) + (", ..." if len(ids) > 4 else "")
