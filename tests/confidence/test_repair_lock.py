"""What a repair needs before it may begin, and that scans and repairs exclude each other."""

from contextlib import AbstractContextManager
from dataclasses import replace

import psycopg
import pytest

from include.confidence import holds, judgements, repair_lock, scan_log
from include.confidence.repair_lock import NotJudged, ScanUnderWay
from include.confidence.scan_log import PlanGone
from include.confidence.summary import ForensicSummary
from include.warehouse import fence
from tests.confidence.builders import HELD, PASSED, WARNED, rows, summary

TONIGHT = {"run": "tonight", "epoch": 1}


class TestRepairing:
    """The writer is stopped by the run `tonight` with epoch 1, and both entities were scanned behind that stop."""

    entities = ("line_items", "invoices")

    @pytest.fixture
    def scans(self, conn) -> list[ForensicSummary]:
        scans = [summary(scan_id=f"scan of {entity}", entity=entity, **TONIGHT) for entity in self.entities]
        for scanned in scans:
            scan_log.record(conn, scanned)
        return scans

    def repair(self, conn, scans) -> None:
        with repair_lock.repairing(conn, fence.read(conn, "repairshopr"), self.entities, scans):
            pass

    def refusal(self, conn, scans) -> str:
        with pytest.raises(NotJudged) as refused:
            self.repair(conn, scans)
        message = str(refused.value)
        assert message.startswith("nothing was written: ")
        assert message.endswith("Clear scan (all of its map indexes) with downstream")
        return message

    @pytest.mark.parametrize("verdict", [PASSED, WARNED])
    def test_by_scans_that_passed_the_gate(self, conn, scans, verdict):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, verdict)
        self.repair(conn, scans)

    def test_by_a_persons_decision_to_repair_only(self, conn, scans):
        judgements.save_judgement(conn, scans[0], PASSED)
        judgements.save_judgement(conn, scans[1], HELD)
        assert "invoices is held, and nobody has decided" in self.refusal(conn, scans)
        holds.decide(conn, "repairshopr", "keep", "oncall")
        assert "invoices is held" in self.refusal(conn, scans)
        holds.decide(conn, "repairshopr", "repair", "oncall")
        self.repair(conn, scans)
        holds.mark_hold(conn, scans[1].scan_id, "verify is worse than scan")
        assert "invoices is held" in self.refusal(conn, scans)

    def test_what_a_person_has_left_out_is_not_repaired(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, HELD)
        holds.decide(conn, "repairshopr", "repair", "oncall", left_out=["invoices"])
        with repair_lock.repairing(conn, fence.read(conn, "repairshopr"), self.entities, scans) as left:
            assert [scanned.entity for scanned in left] == ["line_items"]

    def test_a_decision_to_resume_repairs_nothing(self, conn, scans):
        judgements.save_judgement(conn, scans[0], PASSED)
        judgements.save_judgement(conn, scans[1], HELD)
        holds.decide(conn, "repairshopr", "resume", "oncall")
        assert "invoices is held" in self.refusal(conn, scans)

    def test_a_scan_that_nobody_judged_repairs_nothing(self, conn, scans):
        judgements.save_judgement(conn, scans[0], PASSED)
        message = self.refusal(conn, scans)
        assert "invoices was not judged: gate_check did not get to its end" in message
        assert "line_items" not in message

    def test_every_entity_has_to_be_scanned(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        assert "invoices was not scanned" in self.refusal(conn, scans[:1])
        assert "invoices was not scanned; line_items was not scanned" in self.refusal(conn, [])

    @pytest.mark.parametrize("other", [{"run": "last night"}, {"epoch": 2}])
    def test_a_scan_from_before_this_stop_repairs_nothing(self, conn, scans, other):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        elsewhere = replace(scans[0], **other)
        assert "line_items was scanned before this stop" in self.refusal(conn, [elsewhere, scans[1]])

    def test_an_incomplete_scan_repairs_nothing(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        unsure = replace(scans[0], incomplete="3 pages stayed unread")
        assert "line_items has no evidence (3 pages stayed unread)" in self.refusal(conn, [unsure, scans[1]])

    def test_a_verdict_is_of_the_evidence_that_was_judged(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        again = summary(scan_id=scans[0].scan_id, **TONIGHT)
        scan_log.record(conn, again)
        assert "line_items was scanned again" in self.refusal(conn, scans)
        assert "line_items was not judged" in self.refusal(conn, [again, scans[1]])
        judgements.save_judgement(conn, again, PASSED)
        self.repair(conn, [again, scans[1]])

    def test_a_scan_that_has_begun_again_makes_what_it_found_void(self, conn, scans):
        """Its plan may be overwritten by half, whether the attempt comes to its end or not."""
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        with pytest.raises(RuntimeError), repair_lock.scanning(conn, "repairshopr", "tonight", "invoices", 1):
            raise RuntimeError("cut off")
        assert "invoices was scanned again" in self.refusal(conn, scans)
        with pytest.raises(PlanGone, match="invoices was scanned again"):
            judgements.save_judgement(conn, scans[1], PASSED)

    def test_other_scans_are_left_alone_by_one_that_begins(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        for source, run, entity, epoch in [
            ("square", "tonight", "invoices", 1),
            ("repairshopr", "last night", "invoices", 1),
            ("repairshopr", "tonight", "payments", 1),
            ("repairshopr", "tonight", "invoices", 2),
        ]:
            with repair_lock.scanning(conn, source, run, entity, epoch):
                pass
        self.repair(conn, scans)

    def test_excludes_scans_and_repairs_of_its_source(self, migrated_url, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        writer = fence.read(conn, "repairshopr")
        with psycopg.connect(migrated_url) as other:

            def scan(source: str = "repairshopr", of: psycopg.Connection = other) -> AbstractContextManager[None]:
                return repair_lock.scanning(of, source, "tonight", "payments", 1)

            with repair_lock.repairing(conn, writer, self.entities, scans):
                with pytest.raises(ScanUnderWay, match="scan or repair of repairshopr is still at work"), scan():
                    pass
                with scan("square"):
                    pass
            with scan(), scan(of=conn), pytest.raises(ScanUnderWay):
                self.repair(conn, scans)
            self.repair(conn, scans)

    def test_a_judgement_of_figures_that_were_replaced_meanwhile_is_refused(self, conn, scans):
        scan_log.record(conn, summary(scan_id=scans[0].scan_id, **TONIGHT))
        with pytest.raises(PlanGone, match="line_items was scanned again"):
            judgements.save_judgement(conn, scans[0], PASSED)
        assert [row["verdict"] for row in rows(conn)] == [None, None]
