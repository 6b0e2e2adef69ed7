"""What the watch makes of a source's standing: every combination of writer, run, pool and what was left."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.confidence.watch import STUCK, Code, Facts, Finding, Pool, Run, UnfinishedWork, findings
from include.warehouse.fence import Writer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SINCE = NOW - timedelta(hours=2)
NAME = "shop_reconcile/night"
RUNNING = Writer("shop", "running", 7, NAME, SINCE, None)
STOPPED = replace(RUNNING, state="stopped")
HELD = replace(STOPPED, hold_reason="lines (all): too many")
DECLARED = Pool(1, True)
CLOSED = Pool(0, True)
MOVING = Run(NAME, "running", working=True, moved_at=NOW)


def facts(
    writer: Writer = RUNNING,
    stopper: Run | None = None,
    pool: Pool | None = DECLARED,
    *,
    stop_known: bool = False,
    **left: tuple[UnfinishedWork, ...],
) -> Facts:
    return Facts(NOW, writer, stopper, stop_known, pool, DECLARED, **left)


def stopped(run: Run, writer: Writer = STOPPED, **more: Any) -> Facts:
    return facts(writer, run, CLOSED, **more)


def only(found: list[Finding]) -> Finding:
    [finding] = found
    return finding


class TestHealthy:
    @pytest.mark.parametrize(
        "standing",
        [
            facts(),
            # On the way from the pool to the fence, and back.
            facts(pool=replace(CLOSED, closer=MOVING)),
            facts(pool=replace(CLOSED, closer=replace(MOVING, working=False))),
            facts(pool=replace(CLOSED, closer=replace(MOVING, paused=True))),
            # At work on scans, between two tasks, queued after a clear, asking, trying again.
            stopped(MOVING),
            stopped(replace(MOVING, moved_at=NOW - timedelta(hours=9))),
            stopped(replace(MOVING, working=False)),
            stopped(replace(MOVING, working=False, moved_at=NOW - STUCK)),
            stopped(replace(MOVING, state="queued", working=False)),
            stopped(replace(MOVING, working=False, asking=True, moved_at=SINCE), HELD),
            # What a run is just doing, or has failed at and said so.
            stopped(
                MOVING, unjudged=(UnfinishedWork(MOVING, "lines"),), unfinished=(UnfinishedWork(MOVING, "repair 5"),)
            ),
            stopped(MOVING, unverified=(UnfinishedWork(MOVING, "sync_id 5"),)),
            facts(unjudged=(UnfinishedWork(Run(NAME, "failed"), "lines"),)),
        ],
    )
    def test_run_that_does_what_it_has_to_is_nothing_to_tell(self, standing):
        assert findings(standing) == []


class TestNotConfigured:
    def test_names_each_connection_and_what_to_do(self):
        finding = only(findings(replace(facts(), missing_connections=("shop", "shop_db"))))
        assert finding.code is Code.NOT_CONFIGURED
        assert finding.what == "shop is not configured: Airflow has no connection shop and no connection shop_db"
        assert "AIRFLOW_CONN_SHOP and AIRFLOW_CONN_SHOP_DB" in finding.next_step
        assert not finding.known


class TestStopped:
    @pytest.mark.parametrize(
        ("run", "writer", "what", "next_step"),
        [
            (Run(NAME, "success"), STOPPED, "has ended (success)", "clear resume_writer of that run"),
            (Run(NAME, "failed"), STOPPED, "has ended (failed)", "clear resume_writer of that run"),
            (
                Run(NAME, "success"),
                HELD,
                "has ended (success)",
                "press Ask me again on the page of shop",
            ),
            (Run(NAME, None), STOPPED, "is not in Airflow", "trigger shop_reconcile: it takes the stopped writer over"),
            (Run(NAME, None), HELD, "is not in Airflow", "trigger shop_reconcile"),
            (
                Run(NAME, "success", paused=True),
                HELD,
                "has ended",
                "switch shop_reconcile on again, then press Ask",
            ),
        ],
    )
    def test_with_nobody_at_work_on_it(self, run, writer, what, next_step):
        finding = only(findings(stopped(run, writer)))
        assert (finding.code, finding.run, finding.known) == (Code.UNATTENDED, NAME, False)
        assert finding.what.startswith(f"the {writer}, and nobody is at work on it: that run ")
        assert what in finding.what
        assert finding.next_step.startswith(next_step)

    def test_is_known_where_the_run_itself_or_a_person_said_so(self):
        assert only(findings(stopped(Run(NAME, "failed"), HELD, stop_known=True))).known
        # That is not how the run had ended when it was told.
        for state in ("success", None):
            assert not only(findings(stopped(Run(NAME, state), HELD, stop_known=True))).known

    def test_by_a_paused_dag(self):
        run = Run(NAME, "running", paused=True, asking=True)
        finding = only(findings(stopped(run, HELD)))
        assert (finding.code, finding.next_step) == (Code.PAUSED, "switch shop_reconcile on again")

    def test_by_a_paused_dag_that_makes_a_kept_hold_last(self):
        finding = only(findings(stopped(Run(NAME, "failed", paused=True), HELD, stop_known=True)))
        assert (finding.code, finding.known) == (Code.PAUSED, False)

    @pytest.mark.parametrize("state", ["running", "queued"])
    def test_by_a_run_that_does_not_move(self, state):
        still = Run(NAME, state, moved_at=NOW - STUCK - timedelta(seconds=1))
        finding = only(findings(stopped(still)))
        assert finding.code is Code.STUCK
        assert finding.what.endswith("no task of that run has begun or ended for 20 minutes")
        assert only(findings(stopped(replace(still, moved_at=None)))).code is Code.STUCK
        assert findings(stopped(replace(still, moved_at=None), replace(STOPPED, since=NOW))) == []

    def test_each_stop_is_another_finding(self):
        later = replace(STOPPED, epoch=8)
        ended = Run(NAME, "failed")
        assert only(findings(stopped(ended))).key != only(findings(stopped(ended, later))).key


class TestPool:
    @pytest.mark.parametrize("standing", [facts(pool=None), replace(stopped(MOVING), pool=None)])
    def test_missing(self, standing):
        finding = only(findings(standing))
        assert (finding.code, finding.consequence) == (Code.POOL_MISSING, "no sync can start")
        assert "1 slot, deferred tasks counted" in finding.next_step

    @pytest.mark.parametrize(
        "closer",
        [
            None,
            Run(NAME, "failed"),
            Run(NAME, None),
            Run(NAME, "running", paused=True),
            Run(NAME, "running", moved_at=SINCE),
        ],
    )
    def test_closed_over_a_running_writer(self, closer):
        finding = only(findings(facts(pool=replace(CLOSED, closer=closer))))
        assert finding.code is Code.POOL_CLOSED
        assert "the writer of shop is running and no run is about to stop it" in finding.what
        assert finding.next_step == "set it to 1 slot, deferred tasks counted under Admin, Pools"

    @pytest.mark.parametrize("slots", [1, 5, -1])
    def test_open_over_a_stopped_writer(self, slots):
        finding = only(findings(replace(stopped(MOVING), pool=Pool(slots, True))))
        assert (finding.code, finding.run) == (Code.POOL_OPEN, NAME)

    @pytest.mark.parametrize("pool", [Pool(2, True), Pool(1, False), Pool(-1, True)])
    def test_other_than_declared(self, pool):
        finding = only(findings(facts(pool=pool)))
        assert finding.code is Code.POOL_CHANGED
        assert f"{pool} instead of 1 slot, deferred tasks counted" in finding.what

    def test_unlimited_says_so(self):
        assert str(Pool(-1, False)) == "unlimited slots, deferred tasks not counted"


class TestLeft:
    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize("state", ["success", "failed", None])
    def test_repair_that_nobody_verified(self, state, told):
        finding = only(findings(facts(unverified=(UnfinishedWork(Run(NAME, state), "sync_id 5", told),))))
        assert (finding.code, finding.subject, finding.known) == (Code.UNVERIFIED, "sync_id 5", told)
        assert finding.next_step.startswith("trigger shop_reconcile, a dry run is enough")

    @pytest.mark.parametrize("told", [True, False])
    def test_row_that_was_never_closed(self, told):
        finding = only(findings(facts(unfinished=(UnfinishedWork(Run("shop_sync/1", "failed"), "sync 6", told),))))
        assert (finding.code, finding.known) == (Code.UNFINISHED, told)
        assert finding.what.startswith(
            "sync 6 of the run shop_sync/1 is still open in confidence.sync_log, but that run"
        )
        assert finding.next_step.startswith("trigger shop_sync: ")

    def test_green_run_that_nobody_judged(self):
        finding = only(findings(facts(unjudged=(UnfinishedWork(Run(NAME, "success"), "lines, customers", told=True),))))
        assert (finding.code, finding.known) == (Code.UNJUDGED, False)
        assert "nobody has judged its last scans of lines, customers" in finding.what


RUNS = [
    Run(NAME, state, paused, asking, working, moved)
    for state in ("queued", "running", "success", "failed", None)
    for paused, asking, working in product([True, False], repeat=3)
    for moved in (None, NOW - timedelta(minutes=1), NOW - timedelta(hours=1))
]
WRITERS = [RUNNING, STOPPED, HELD, replace(STOPPED, since=NOW)]
POOLS = [None, DECLARED, CLOSED, Pool(3, False), Pool(-1, True), *(replace(CLOSED, closer=run) for run in RUNS[::7])]


@pytest.mark.parametrize("writer", WRITERS)
def test_every_combination_has_at_most_one_finding_about_writer_and_pool_each(writer):
    about_pool = {Code.POOL_MISSING, Code.POOL_OPEN, Code.POOL_CLOSED, Code.POOL_CHANGED}
    for run, pool, known in product(RUNS, POOLS, [True, False]):
        standing = facts(writer, run if writer.stopped else None, pool, stop_known=known)
        found = findings(standing)
        pools = [finding for finding in found if finding.code in about_pool]
        rest = [finding for finding in found if finding.code not in about_pool]
        assert len(pools) <= 1
        assert len(rest) <= 1
        # No writer stands with nobody at work on it that is not shown.
        quiet = run.at_work and not run.paused and (run.asking or run.working or not run.stuck(NOW, writer.since))
        assert bool(rest) == (writer.stopped and not quiet)
        # The fence and the pool say the same, or it is shown, or a run is about to make it so.
        agree = pool is not None and (pool.slots == 0) == writer.stopped
        assert agree or pools or (pool.closer and pool.closer.at_work)


@given(st.sampled_from(RUNS), st.sampled_from(WRITERS), st.sampled_from(POOLS), st.booleans(), st.sampled_from(RUNS))
def test_every_finding_says_what_it_means_and_one_next_step(run, writer, pool, known, other):
    left = (UnfinishedWork(other, "sync_id 5", known),)
    standing = facts(
        writer, run if writer.stopped else None, pool, stop_known=known, unjudged=left, unverified=left, unfinished=left
    )
    found = findings(standing)
    assert len({finding.key for finding in found}) == len(found)
    for finding in found:
        assert finding.key.startswith(f"shop/{finding.code}/")
        assert finding.code.title
        assert all((finding.what, finding.consequence, finding.next_step))
        assert "None" not in finding.what + finding.next_step
        # What is shown again a pass later is the same finding.
        assert finding in findings(replace(standing, now=NOW + timedelta(minutes=5)))
