"""The contract every source must pass, tested through its public methods only. A new source needs an adapter."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

import psycopg
import pytest
from opentelemetry.trace import StatusCode

from include.api.errors import ApiError
from include.api.limits import OutOfTime
from include.confidence import proofs
from include.confidence.glossary import explain
from include.confidence.policy import Limit
from include.confidence.queries.paging import MAX_PAGE
from include.confidence.queries.planned import PlanFilter, list_planned
from include.confidence.repair_lock import NotJudged
from include.confidence.summary import ForensicSummary, Plan
from include.sources import REGISTRY, get_source, verbs
from include.sources.base import LeftOut, SyncFailed, entity_of
from include.warehouse import fence
from include.warehouse.fence import FenceError
from include.warehouse.sync_log import Counts
from plugins.hooks.airflow_api import declared_pools
from stack.settings import REPOSITORY, SIMULATORS
from tests.contract.account import Account, Run
from tests.contract.stubbed import Stubbed

NOTHING = {"insert": 0, "update": 0, "delete": 0}
# The errors of a verb if source or copy does not answer.
CUT = (ApiError, SyncFailed, psycopg.OperationalError)

VERBS = ("sync", "scan", "repair", "verify")


def account_of(source: str) -> type[Account]:
    return import_module(f"tests.contract.{source}").Account


# Each source with a whole scan, and those that can scan a part with such a scan.
WHOLE = [(source, False) for source in REGISTRY]
PART = [(source, True) for source in REGISTRY if account_of(source).part is not None]
# Sources whose repair is one transaction.
ATOMIC = [(source, True) for source in REGISTRY if account_of(source).atomic]
# Those of which a night can put off some entities.
SEVERAL = [(source, True) for source in REGISTRY if len(get_source(source).entities) > 1]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test for every source it applies to, as its fixtures tell."""
    if "part" in metafunc.fixturenames:
        metafunc.parametrize(("source", "part"), WHOLE + PART)
    elif "several" in metafunc.fixturenames:
        metafunc.parametrize(("source", "several"), SEVERAL)
    elif "atomic" in metafunc.fixturenames:
        metafunc.parametrize(("source", "atomic"), ATOMIC)
    else:
        metafunc.parametrize("source", REGISTRY)


def scope(run: Run, part: bool) -> Mapping[str, Any]:
    """The params of a scan of everything, or of a part."""
    return run.account.part if part else {}


def found(summary: ForensicSummary) -> Any:
    """What two scans of the same standing have in common."""
    return summary.metrics, summary.plan, summary.live_rows, summary.examples


def planned(summary: ForensicSummary) -> int:
    return sum(vars(summary.plan).values())


def written(counts: Mapping[str, Counts]) -> int:
    return sum(count.inserted + count.updated + count.deleted for count in counts.values())


def mended(run: Run, counts: Mapping[str, Counts]) -> int:
    """What a repair has written of what was scanned: what is computed from it comes on top."""
    return written({name: count for name, count in counts.items() if name not in run.account.computed})


class TestRegistered:
    def test_by_its_own_name(self, source):
        declared = get_source(source)
        assert declared.name == source
        assert len({entity.name for entity in declared.entities}) == len(declared.entities) > 0
        assert [entity.name for entity in declared.entities if not entity.gates] == []

    def test_says_what_its_lists_leave_out(self, source):
        assert [each.name for each in get_source(source).entities if not isinstance(each.leaves_out, LeftOut)] == []

    def test_with_a_writer_that_runs(self, conn, source):
        writer = fence.read(conn, source)
        assert (writer.stopped, writer.epoch) == (False, 0)

    def test_with_pool_and_dags(self, source):
        assert f"{source}_writer" in declared_pools()
        for job in ("sync", "reconcile"):
            assert (REPOSITORY / "dags" / f"{source}_{job}.py").is_file()

    def test_with_a_simulator_and_connections_or_a_stub(self, source):
        """The connection of a source without a simulator needs no line until somebody adds one."""
        compose = (REPOSITORY / "docker-compose.yaml").read_text()
        assert issubclass(account_of(source), Stubbed) == (source not in SIMULATORS)
        for connection in SIMULATORS[source].connections if source in SIMULATORS else ():
            assert f"AIRFLOW_CONN_{connection.upper()}" in compose
        assert (get_source(source).switch or "") in compose


class TestScan:
    def test_of_a_copy_in_step_plans_nothing(self, filled):
        for summary in filled.scan():
            assert (summary.scope, summary.incomplete, vars(summary.plan)) == ("all", "", NOTHING)

    def test_measures_what_the_gates_judge(self, filled):
        for summary in filled.scan():
            gates = entity_of(filled.source, summary.entity).gates
            judged = {gate.metric for gate in gates} | {gate.of for gate in gates if isinstance(gate, Limit)}
            assert judged <= {name for name, figure in summary.metrics.items() if figure is not None}, summary.entity

    def test_says_what_each_metric_means(self, filled):
        texts = filled.source.metric_texts
        names = {name for summary in filled.scan() for name in summary.metrics}
        assert [name for name in sorted(names) if not explain(name, texts)] == []

    def test_finds_drift_and_changes_nothing(self, filled):
        drifted = filled.account.drift()
        before = filled.standing()
        first = filled.scan()
        assert {summary.entity: summary.plan for summary in first} == drifted
        assert [found(summary) for summary in filled.scan()] == [found(summary) for summary in first]
        assert filled.standing() == before

    @pytest.mark.drill("killed-scan")
    def test_cut_off_anywhere_ends_as_a_whole_one(self, filled, part):
        questions, params = filled.account.questions, scope(filled, part)
        filled.account.drift()
        before = filled.standing()
        for entity in filled.source.entities:
            start = questions.asked
            whole = filled.scan_one(entity.name, **params)
            asked = questions.asked - start
            assert asked > 0
            for number in range(1, asked + 1):
                questions.before(number, filled.account.fail)
                place = f"{entity.name}, question {number} of {asked}"
                # A source may get round a question that fails; then it has seen as much.
                ended = scanned(filled, entity.name, params)
                assert ended is None or found(ended) == found(whole), place
                assert found(filled.scan_one(entity.name, **params)) == found(whole), place
        assert filled.standing() == before

    def test_that_runs_out_of_time_ends_there_and_says_nothing(self, filled, several):
        """However late, so that it can be put off: no request that was not sent counts as one without an answer."""
        questions = filled.account.questions
        filled.account.drift()
        for entity in filled.source.entities:
            start = questions.asked
            whole = filled.scan_one(entity.name)
            asked = questions.asked - start
            for number in {1, asked // 2 + 1, asked}:
                questions.before(number, _run_out_of_time)
                with pytest.raises(OutOfTime):
                    filled.scan_one(entity.name)
                assert found(filled.scan_one(entity.name)) == found(whole), f"{entity.name}, question {number}"

    def test_summary_travels_as_a_few_kilobytes_of_json(self, filled, part):
        filled.account.drift()
        for summary in filled.scan(**scope(filled, part)):
            text = json.dumps(summary.to_json())
            assert ForensicSummary.from_json(json.loads(text)) == summary
            assert max(len(text), len(summary.line())) < 5 * 1024

    def test_keeps_its_lines_of_progress(self, filled, conn):
        query = "SELECT progress FROM confidence.forensic_run WHERE scan_id = %s"
        for summary in filled.scan():
            (lines,) = conn.execute(query, [summary.scan_id]).fetchone()
            assert {line["event"] for line in lines} == {"scan_progress"}, summary.entity

    def test_keeps_its_plan_row_by_row(self, filled, conn, part):
        filled.account.drift()
        for summary in filled.scan(**scope(filled, part)):
            page = list_planned(conn, summary.evidence, PlanFilter(status="confirmed"), limit=MAX_PAGE)
            assert page.next_cursor is None
            rows = page.items
            operations = Counter(row.operation for row in rows)
            assert Plan(*(operations[each] for each in ("insert", "update", "delete"))) == summary.plan
            for row in rows:
                # A revived row had a tombstone before.
                assert (row.after is None) == (row.operation == "delete"), row
                assert row.before is not None or row.operation == "insert", row
                assert not row.differs or row.operation == "update", row

    def test_of_a_part_says_so(self, filled, part):
        scopes = {summary.scope for summary in filled.scan(**scope(filled, part))}
        assert scopes.isdisjoint({"all"}) if part else scopes == {"all"}


def _run_out_of_time() -> None:
    raise OutOfTime


def scanned(run: Run, entity: str, params: Mapping[str, Any]) -> ForensicSummary | None:
    """The summary of a scan that came to its end with evidence of all rows, else None."""
    try:
        summary = run.scan_one(entity, **params)
    except CUT:
        return None
    return summary if not summary.incomplete and summary.proven == summary.rows else None


class TestRepair:
    def test_mends_what_the_scan_has_planned(self, filled, part):
        params = scope(filled, part)
        filled.account.drift()
        scans = filled.scan(**params)
        sync_id, counts = filled.repair(scans, **params)
        assert mended(filled, counts) == sum(map(planned, scans)) > 0
        checks = filled.verify(scans, sync_id)
        assert {check.entity for check in checks} == {entity.name for entity in filled.source.entities}
        assert [check for check in checks if check.worse] == []
        json.dumps(filled.source.result(scans, counts, dry_run=False))
        after = filled.standing()
        assert written(filled.repair(scans, **params)[1]) == 0
        again = filled.scan(**params)
        assert [vars(summary.plan) for summary in again] == [NOTHING] * len(again)
        assert written(filled.repair(again, **params)[1]) == 0
        assert filled.standing() == after

    @pytest.mark.drill("killed-repair")
    def test_is_all_or_nothing_wherever_it_is_cut_off(self, filled, atomic):
        filled.account.drift()
        scans, before = filled.scan(), filled.standing()
        number, counts = 0, None
        while counts is None:
            number += 1
            filled.account.questions.before(number, filled.account.fail)
            with suppress(*CUT):
                counts = filled.repair(scans)[1]
            if counts is None:
                assert filled.standing() == before, f"question {number}"
            filled.account.questions.forget()
        assert mended(filled, counts) == sum(map(planned, scans))

    def test_waits_for_a_writer_that_its_own_run_has_stopped(self, filled, conn):
        filled.account.drift()
        scans, before = filled.scan(), filled.standing()
        filled.resume()
        with pytest.raises(FenceError, match="running"):
            filled.repair(scans)
        replace(filled, name="another/run").stop()
        with pytest.raises(FenceError, match="another/run"):
            filled.repair(scans)
        assert filled.standing() == before

    def test_is_refused_once_a_later_scan_has_replaced_the_plan(self, filled):
        filled.account.drift()
        scans, before = filled.scan(), filled.standing()
        replace(filled, name="another/run").scan()
        filled.stop()
        with pytest.raises(NotJudged, match="scanned before this stop"):
            filled.repair(scans)
        assert filled.standing() == before

    def test_is_refused_without_the_judgement_of_exactly_its_scans(self, filled):
        filled.account.drift()
        scans, before = filled.scan(), filled.standing()
        with filled.context() as context, pytest.raises(NotJudged, match="was not judged"):
            verbs.run_repair(context, scans, filled.account.params)
        with pytest.raises(NotJudged, match=f"{scans[-1].entity} was not scanned"):
            filled.repair(scans[:-1])
        filled.scan_one(scans[0].entity)
        with pytest.raises(NotJudged, match=f"{scans[0].entity} was scanned again"):
            filled.repair(scans)
        assert filled.standing() == before

    def test_leaves_alone_what_was_put_off(self, filled, several):
        filled.account.drift()
        scans, before = filled.scan(), filled.account.copy()
        referred = set().union(*(entity.refers_to for entity in filled.source.entities))
        waits = next(scan for scan in reversed(scans) if planned(scan) and scan.entity not in referred)
        proofs.put_off(filled.conn, filled.source.name, filled.name, {waits.entity: "no time"})
        done = [scan for scan in scans if scan is not waits]
        sync_id, counts = filled.repair(done)
        assert written(counts) > 0
        assert not counts.keys() & waits.accounts.keys()
        after = filled.account.copy()
        assert [after[table] for table in waits.accounts] == [before[table] for table in waits.accounts]
        checks = filled.verify(done, sync_id)
        assert {check.entity for check in checks} == {scan.entity for scan in done}
        assert [check for check in checks if check.worse] == []

    def test_rollback_is_exact_and_can_be_undone(self, filled):
        filled.account.drift()
        scans, before = filled.scan(), filled.state()
        sync_id, _ = filled.repair(scans)
        filled.resume()
        assert_undone_and_redone(filled, sync_id, before)


def assert_undone_and_redone(run: Run, sync_id: int, before: Mapping[str, Any]) -> None:
    after = run.state()
    assert after != before
    undone = run.roll_back(sync_id)
    assert run.state() == before
    run.roll_back(undone.sync_id)
    assert run.state() == after


class TestDown:
    @pytest.mark.drill("vendor-unreachable")
    def test_scan_is_no_evidence(self, filled):
        filled.account.drift()
        before = filled.standing()
        with filled.account.down():
            assert [entity.name for entity in filled.source.entities if scanned(filled, entity.name, {})] == []
        assert filled.standing() == before
        assert [summary.entity for summary in filled.scan() if not planned(summary)] == []

    @pytest.mark.drill("vendor-unreachable")
    def test_repair_writes_all_or_nothing(self, filled):
        """Nothing where it asks the source once more, all where the scan's second look was the last."""
        filled.account.drift()
        scans, before = filled.scan(), filled.standing()
        with filled.account.down(), suppress(ApiError):
            assert mended(filled, filled.repair(scans)[1]) == sum(map(planned, scans))
            return
        assert filled.standing() == before
        assert mended(filled, filled.repair(scans)[1]) == sum(map(planned, scans))

    @pytest.mark.drill("vendor-unreachable", "maintenance")
    def test_sync_fails_and_catches_up_later(self, filled):
        filled.account.change()
        before = filled.standing()
        with filled.account.down(), pytest.raises((ApiError, SyncFailed)):
            filled.sync()
        assert filled.standing() == before
        assert written(filled.sync().counts) > 0


class TestSync:
    def test_knows_its_watermarks(self, filled, conn):
        states = conn.execute("SELECT entity, watermark FROM confidence.sync_state").fetchall()
        assert {entity for entity, _ in states} >= {entity.name for entity in filled.source.entities}
        assert [entity for entity, watermark in states if watermark is None] == []

    @pytest.mark.parametrize("mode", ["incremental", "full"])
    def test_twice_is_once(self, filled, mode):
        filled.account.change()
        before = filled.account.copy()
        assert written(filled.sync(mode).counts) > 0
        once = filled.standing()
        assert once["copy"] != before
        again = filled.sync(mode)
        assert written(again.counts) == 0
        assert {**filled.standing(), "states": None} == {**once, "states": None}
        json.dumps(again.result)

    def test_waits_behind_a_writer_that_is_stopped(self, filled):
        filled.account.change()
        before = filled.standing()
        filled.stop()
        with pytest.raises(FenceError, match="stopped"):
            filled.sync()
        assert filled.standing() == before

    def test_is_refused_if_the_writer_was_stopped_on_the_way(self, filled, warehouse):
        """Also if it runs again: what a reconcile run has seen or mended in between is news to the sync."""

        def stop_and_resume() -> None:
            with psycopg.connect(warehouse, autocommit=True) as conn:
                other = replace(filled, conn=conn, name="another/run")
                other.stop()
                other.resume()

        filled.account.change()
        before = filled.standing()
        filled.account.questions.before(1, stop_and_resume)
        with pytest.raises(FenceError, match="nothing was written"):
            filled.sync()
        assert filled.standing() == before
        assert written(filled.sync().counts) > 0

    def test_rollback_is_exact_and_can_be_undone(self, filled):
        filled.account.change()
        before = filled.state()
        assert_undone_and_redone(filled, filled.sync().sync_id, before)

    def test_rollback_of_the_first_one_leaves_nothing_of_it(self, run):
        before = run.state()
        assert before["states"] == []
        assert_undone_and_redone(run, run.sync().sync_id, before)


class TestSpans:
    """What tracing is told of each verb; the same of every source."""

    def test_tell_source_run_and_counts_and_no_texts(self, run, ended_spans, source):
        synced = run.sync()
        run.account.drift()
        scans = run.scan()
        sync_id, counts = run.repair(scans)
        checks = run.verify(scans, sync_id)
        ended = [(span.name.removeprefix("sync_confidence."), span.attributes) for span in ended_spans()]
        for name, attributes in ended:
            texts = {each for each, value in attributes.items() if not isinstance(value, int | float)}
            assert texts <= {"source", "run", "entity", "scope"}, name
        told = [(name, attributes) for name, attributes in ended if name in VERBS]
        assert [name for name, _ in told] == ["sync", *["scan"] * len(scans), "repair", "verify"]
        for _, attributes in told:
            assert (attributes["source"], attributes["run"]) == (source, run.name)
        (_, sync), *scanned, (_, repair), (_, verify) = told
        assert (sync["sync_id"], sync["dry_run"]) == (synced.sync_id, False)
        assert sync["inserted"] == sum(count.inserted for count in synced.counts.values())
        for summary, (_, attributes) in zip(scans, scanned, strict=True):
            assert (attributes["entity"], attributes["scope"], attributes["dry_run"]) == (summary.entity, "all", True)
            assert summary.figures.items() <= attributes.items()
        assert (repair["sync_id"], repair["dry_run"]) == (sync_id, False)
        assert written(counts) == sum(repair[name] for name in ("inserted", "updated", "deleted"))
        assert (verify["sync_id"], verify["checks"], verify["worse"]) == (sync_id, len(checks), 0)

    def test_are_marked_by_what_goes_wrong(self, filled, ended_spans):
        ended_spans()
        filled.account.change()
        with filled.account.down(), pytest.raises((ApiError, SyncFailed)) as failed:
            filled.sync()
        [span] = [span for span in ended_spans() if span.name == "sync_confidence.sync"]
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == span.attributes["error.type"] == type(failed.value).__name__
        assert str(failed.value) not in span.to_json()


def watermarks(state: Mapping[str, Any]) -> Mapping[tuple[str, str], str]:
    """By entity and partition."""
    return {(row["entity"], row["partition"]): row["watermark"] for (row,) in state["states"]}


class TestWatermarks:
    def test_reset_skips_ahead_and_can_be_undone(self, filled, conn):
        before = filled.state()
        filled.stop()
        sync_id = filled.reset_watermarks()
        filled.resume()
        earlier, later = watermarks(before), watermarks(filled.state())
        assert earlier.keys() == later.keys()
        assert [entity for entity, watermark in later.items() if watermark < earlier[entity]] == []
        assert filled.account.copy() == before["copy"]
        assert_undone_and_redone(filled, sync_id, before)

    def test_reset_needs_a_stopped_writer(self, filled):
        before = filled.standing()
        with pytest.raises(FenceError, match="running"):
            filled.reset_watermarks()
        assert filled.standing() == before
