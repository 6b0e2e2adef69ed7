"""How a run has really ended, by what the warehouse has of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.confidence import holds, judgements, repair_lock, run_evidence, scan_log
from include.confidence.account import Account
from include.confidence.outcome import Evidence, LatestScan, Repair, gap, not_confirmed
from include.confidence.policy import Judgement, Verdict
from include.warehouse import sync_log
from include.warehouse.fence import Writer
from include.warehouse.sync_log import Counts
from tests.confidence.builders import summary

NIGHT = datetime(2026, 3, 1, 3, tzinfo=UTC)
RUN = "shop_reconcile/night"
RUNNING = Writer("shop", "running", 7, RUN, NIGHT, None)
STOPPED = replace(RUNNING, state="stopped")
HELD = replace(STOPPED, hold_reason="too much")
ENTITIES = ("customers", "lines")


def scanned(entity: str, planned: int = 0, **changes: Any) -> LatestScan:
    found = {"complete": True, "verdict": Verdict.PASS, "rows": 10, "proven": 10, "epoch": 7}
    return LatestScan(entity=entity, scope="all", scanned_at=NIGHT, planned=planned, **found | changes)


def repaired(state: str = "success", *, verified: bool = True, still_open: int = 0, **changes: Any) -> Repair:
    check = {"entity": "lines", "figure": "planned_changes_open", "before": 3, "after": still_open}
    done = {"counts": {"lines": Counts(deleted=3)}, "undone": False, "checks": (check,) if verified else ()}
    at = NIGHT + timedelta(minutes=5)
    return Repair(5, state, at, verified_at=at if verified else None, **done | changes)


def evidence(*repairs: Repair, writer: Writer = RUNNING, decision: str | None = None, **lines: Any) -> Evidence:
    """Of a run that scanned both entities; `lines` says what differs of the second one's scan."""
    scans = (scanned("customers"), scanned("lines", **lines))
    return Evidence(RUN, writer, ENTITIES, scans, repairs, decision, decision and "Ada")


class TestGap:
    def test_none_where_all_was_done(self):
        assert gap(evidence(), dry_run=False) is None
        assert gap(evidence(planned=3), dry_run=True) is None
        assert gap(evidence(repaired(), planned=3), dry_run=False) is None
        assert gap(evidence(planned=3, verdict=Verdict.HOLD, decision="resume"), dry_run=False) is None
        assert gap(evidence(repaired(), planned=3, verdict=Verdict.HOLD, decision="repair"), dry_run=True) is None

    @pytest.mark.parametrize(
        ("found", "dry_run", "step", "what"),
        [
            (evidence(complete=False), True, "scan", "no whole scan of lines"),
            (replace(evidence(), scans=()), True, "scan", "no whole scan of customers, lines"),
            (evidence(verdict=None), True, "gate_check", "no verdict on lines"),
            (evidence(planned=3), False, "reconcile", "3 planned changes were to be applied"),
            (evidence(planned=3, decision="repair"), True, "reconcile", "3 planned changes were to be applied"),
            (evidence(repaired("running"), planned=3), True, "reconcile", "(sync_id 5) has not ended"),
            (evidence(repaired("failed"), planned=3), False, "reconcile", "(sync_id 5) failed"),
            (evidence(repaired(verified=False), planned=3), False, "verify", "(sync_id 5) was applied and never"),
            (evidence(writer=STOPPED), True, "resume_writer", "shop has been stopped by shop_reconcile/night"),
            (evidence(writer=HELD, verdict=Verdict.HOLD), True, "resume_writer", "held: too much"),
        ],
    )
    def test_names_the_first_step_whose_work_is_missing(self, found, dry_run, step, what):
        missing = gap(found, dry_run=dry_run)
        assert missing.step == step
        assert what in missing.what

    def test_repair_of_which_nothing_is_left_needs_no_look(self):
        assert gap(evidence(repaired(verified=False, undone=True), planned=3), dry_run=False) is None

    def test_repair_before_the_scans_was_seen_by_them(self):
        earlier = replace(repaired(verified=False), started_at=NIGHT - timedelta(minutes=1))
        assert gap(evidence(earlier), dry_run=False) is None
        assert gap(evidence(earlier, planned=3), dry_run=False).step == "reconcile"

    def test_last_repair_counts(self):
        assert gap(evidence(repaired(), repaired("failed"), planned=3), dry_run=False) is None

    def test_writer_that_another_run_has_stopped_is_its_business(self):
        assert gap(evidence(writer=replace(HELD, run="shop_reconcile/other")), dry_run=True) is None

    @pytest.mark.parametrize(
        ("writer", "step"), [(HELD, "press Ask me again on the"), (STOPPED, "clear resume_writer with downstream")]
    )
    def test_next_step_is_the_one_that_helps(self, writer, step):
        assert gap(evidence(writer=writer), dry_run=True).next_step.startswith(step)


@given(
    st.booleans(),
    st.sampled_from([None, *Verdict]),
    st.integers(0, 2),
    st.sampled_from([None, "keep", "resume", "repair"]),
    st.sampled_from([RUNNING, STOPPED, HELD]),
    st.lists(
        st.builds(repaired, st.sampled_from(["running", "failed", "success"]), verified=st.booleans()), max_size=2
    ),
    st.booleans(),
)
def test_run_without_a_gap_was_scanned_judged_and_its_repair_verified(
    complete, verdict, planned, decision, writer, repairs, dry_run
):
    found = evidence(*repairs, writer=writer, decision=decision, complete=complete, verdict=verdict, planned=planned)
    if gap(found, dry_run=dry_run) is None:
        assert complete
        assert verdict is not None
        assert not writer.stopped
        assert all(repair.state == "success" and repair.verified_at for repair in repairs[:1])
        wanted = decision == "repair" or (decision is None and not dry_run and verdict is not Verdict.HOLD)
        assert repairs or not (planned and wanted)


class TestNotConfirmed:
    @pytest.mark.parametrize(
        ("found", "why"),
        [
            (evidence(), ""),
            (evidence(verdict=Verdict.WARN), ""),
            (evidence(repaired(), planned=3), ""),
            (evidence(repaired(), planned=3, verdict=Verdict.HOLD, decision="repair"), ""),
            (evidence(proven=8), "2 rows could not be proven"),
            (replace(evidence(), unproven=4), "4 rows could not be proven"),
            (evidence(rows=None, proven=None), "no account of all rows was kept (lines)"),
            (evidence(epoch=6), "the writer was stopped again since the scans"),
            (evidence(planned=3), "3 planned changes were not applied"),
            (evidence(repaired(undone=True), planned=3), "3 planned changes were not applied"),
            (evidence(planned=3, decision="resume", verdict=Verdict.HOLD), "resumed without repair"),
            (
                evidence(repaired(counts={"lines": Counts(updated=1, superseded=2)}), planned=3),
                "2 planned changes were",
            ),
            (evidence(repaired(counts={"lines": Counts(failed=3)}), planned=3), "3 planned changes were left alone"),
            (evidence(repaired(still_open=1), planned=3), "1 planned changes are still open"),
            (evidence(repaired(checks=()), planned=3), "the repair was not verified (lines)"),
        ],
    )
    def test_says_what_is_open(self, found, why):
        assert (not_confirmed(found) == "") if why == "" else (why in not_confirmed(found))


class TestEvidence:
    """As the warehouse has it: the writer of repairshopr is stopped by the run `tonight` with epoch 1."""

    entities = ("invoices", "line_items")

    def scan(self, conn, entity: str = "line_items", verdict: Verdict | None = Verdict.PASS, **changes: Any) -> None:
        reasons = changes.pop("reasons", ())
        found = {"run": "tonight", "scan_id": f"scan of {entity}", "entity": entity} | changes
        scan = summary(**found)
        scan_log.record(conn, scan)
        if verdict:
            judgements.save_judgement(conn, scan, Judgement(verdict, (), reasons, ()))

    def found(self, conn) -> Evidence:
        return run_evidence.read(conn, "repairshopr", "tonight", self.entities)

    def test_of_a_run_that_left_nothing(self, conn):
        found = self.found(conn)
        assert (found.scans, found.repairs, found.repair, found.verdict, found.decision) == ((), (), None, None, None)
        assert (found.rows, found.planned, found.unproven) == (0, 0, 0)
        assert (found.writer.run, found.entities) == ("tonight", self.entities)

    def test_scans_are_the_newest_of_each_entity_by_this_run(self, conn):
        accounts = {"a": Account(live=10, equal=8, unproven=2), "b": Account(live=5, equal=5, missing=1)}
        self.scan(conn, scan_id="first", plan=(9, 9, 9))
        self.scan(conn, verdict=Verdict.WARN, plan=(1, 2, 3), accounts=accounts, scope="a part", epoch=4)
        self.scan(conn, "invoices", None, incomplete="3 unread")
        self.scan(conn, scan_id="other run", run="last night")
        self.scan(conn, scan_id="other source", source="square")
        invoices, lines = self.found(conn).scans
        assert (lines.entity, lines.scope, lines.epoch, lines.complete) == ("line_items", "a part", 4, True)
        assert (lines.verdict, lines.planned, lines.rows, lines.proven) == (Verdict.WARN, 6, 16, 14)
        assert (invoices.complete, invoices.verdict, invoices.rows, invoices.proven) == (False, None, None, None)
        assert self.found(conn).verdict == Verdict.WARN

    def test_scan_that_has_begun_again_is_none(self, conn):
        self.scan(conn)
        with repair_lock.scanning(conn, "repairshopr", "tonight", "line_items", 1):
            [scan] = self.found(conn).scans
        assert not scan.complete

    def test_repairs_are_those_of_this_run_with_what_verify_found(self, conn):
        self.scan(conn)
        first, second = (sync_log.begin(conn, "repairshopr", "repair", "tonight") for _ in range(2))
        sync_log.begin(conn, "repairshopr", "repair", "last night")
        sync_log.begin(conn, "repairshopr", "sync", "tonight")
        sync_log.finish(conn, second, {"line_items": Counts(deleted=2, superseded=1, failed=1)})
        checks = [{"entity": "line_items", "figure": "planned_changes_open", "before": 4, "after": 0, "margin": 0}]
        sync_log.save_checks(conn, second, checks)
        found = self.found(conn)
        assert [repair.sync_id for repair in found.repairs] == [second, first]
        assert (found.repair.state, found.repair.left, found.repair.undone) == ("success", 2, False)
        assert found.repair.verified_at
        assert found.repair.checks == tuple(checks)
        undo = sync_log.begin(conn, "repairshopr", "rollback", "by hand", undoes=second)
        assert not self.found(conn).repair.undone
        sync_log.finish(conn, undo, {})
        assert self.found(conn).repair.undone

    def test_decision_is_that_of_this_night(self, conn):
        self.scan(conn, scan_id="earlier", run="last night", verdict=Verdict.HOLD, scope="pages 3-10")
        self.scan(conn)
        assert self.found(conn).decision is None
        holds.decide(conn, "repairshopr", "repair", "Ada")
        assert (self.found(conn).decision, self.found(conn).decided_by) == ("repair", "Ada")
        self.scan(conn, scan_id="later", run="next night", verdict=Verdict.HOLD)
        holds.decide(conn, "repairshopr", "resume", "Bob")
        assert self.found(conn).decision == "repair"
        assert run_evidence.read(conn, "repairshopr", "next night", self.entities).decision == "resume"
        self.scan(conn, scan_id="much later", run="third night")
        assert self.found(conn).decision == "repair"

    def test_decision_is_the_newest_of_this_night(self, conn):
        self.scan(conn, verdict=Verdict.HOLD)
        self.scan(conn, "invoices", Verdict.HOLD)
        for scan, decision, minutes in (("line_items", "keep", 5), ("invoices", "repair", 6)):
            conn.execute(
                "UPDATE confidence.forensic_run SET decision = %s, decided_by = 'Ada',"
                " decided_at = now() + make_interval(mins => %s) WHERE entity = %s",
                [decision, minutes, scan],
            )
        assert self.found(conn).decision == "repair"

    def test_what_did_not_pass_is_told_with_its_reasons(self, conn):
        for entity, verdict, changes in (
            ("line_items", Verdict.HOLD, {}),
            ("invoices", Verdict.WARN, {"scope": "pages 1-2"}),
            ("payments", Verdict.PASS, {}),
            ("tickets", Verdict.WARN, {"run": "last night"}),
            ("orders", Verdict.WARN, {"source": "square"}),
        ):
            self.scan(conn, entity, verdict, reasons=("too many", f"in {entity}"), **changes)
        assert run_evidence.judged_worse(conn, "repairshopr", "tonight") == [
            "invoices (pages 1-2): too many; in invoices",
            "line_items (all): too many; in line_items",
        ]

    def test_decision_is_about_all_scans_that_were_made_before_it(self, conn):
        self.scan(conn, "invoices")
        self.scan(conn, verdict=Verdict.HOLD)
        holds.decide(conn, "repairshopr", "repair", "Ada")
        assert self.found(conn).decision == "repair"
        self.scan(conn, scan_id="scanned once more")
        assert self.found(conn).decision is None

    def test_unproven_rows_are_those_of_all_tables_of_the_source(self, conn):
        for source, entity in [("repairshopr", "a"), ("repairshopr", "b"), ("square", "a")]:
            conn.execute(
                "INSERT INTO confidence.unproven (source, entity, key, why, run) VALUES (%s, %s, '[1]', 'x', 'y')",
                [source, entity],
            )
        assert self.found(conn).unproven == 2


@pytest.mark.parametrize(
    ("found", "left"),
    [
        # Nobody has decided yet, or the repair comes next.
        (evidence(planned=3, writer=STOPPED), {}),
        (evidence(planned=3, writer=STOPPED, decision="repair"), {}),
        (evidence(planned=3, writer=STOPPED, decision="keep"), {"lines": 3}),
        (evidence(planned=3), {"lines": 3}),
        (evidence(repaired(), planned=3), {}),
        (evidence(repaired("running", verified=False), planned=3), {}),
        (evidence(repaired(undone=True), planned=3), {"lines": 3}),
        (evidence(repaired(), planned=3, left_out=True), {"lines": 3}),
        (evidence(repaired(still_open=2), planned=3), {"lines": 2}),
    ],
)
def test_what_is_left_open(found, left):
    assert found.left_open == left
