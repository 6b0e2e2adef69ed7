"""What the warehouse tells people of its sources: each figure, and lists that come a page at a time."""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from include.confidence import findings, holds, judgements, scan_log
from include.confidence.account import Account
from include.confidence.policy import Gate, Judgement, Limit, Trend, Verdict, judge
from include.confidence.queries.changes import Difference, list_changes
from include.confidence.queries.overview import Status, read_statuses, with_data
from include.confidence.queries.paging import CursorRefused
from include.confidence.queries.runs import read_run
from include.confidence.queries.scans import latest_scans, list_scans
from include.confidence.queries.syncs import list_syncs, read_sync
from include.confidence.queries.trends import list_parts, read_drift, read_series
from include.confidence.summary import Plan
from include.confidence.unproven import count_by_table, oldest
from include.confidence.watch import Code, Finding
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts
from tests.confidence.builders import METRIC, passes, summary

SOURCE = "repairshopr"
RECONCILE = f"{SOURCE}_reconcile/night"
PASSED = Judgement(Verdict.PASS, (), (), ())
HELD = Judgement(Verdict.HOLD, (METRIC,), ("far too many",), ())
START = datetime(2026, 1, 1, tzinfo=UTC)
# The most points of a plot, as docs/pages.md promises.
POINTS = 90


def judged(conn, scan_id, judgement=PASSED, value=0, *, at=None, **figures):
    """A scan with its verdict, a minute after the one before unless told when."""
    scanned = summary(value, scan_id=scan_id, **figures)
    scan_log.record(conn, scanned)
    if judgement is not None:
        judgements.save_judgement(conn, scanned, judgement)
    if at is not None:
        conn.execute(
            "UPDATE confidence.forensic_run SET scanned_at = %s WHERE scan_id = %s",
            [START + timedelta(minutes=at), scan_id],
        )
    return scanned


def aged(conn, scan_id: str, days: int) -> None:
    """Make a scan so many days old."""
    conn.execute(
        "UPDATE confidence.forensic_run SET scanned_at = now() - make_interval(days => %s) WHERE scan_id = %s",
        [days, scan_id],
    )


def a_sync(conn, kind="sync", run=f"{SOURCE}_sync/1", error=None, source=SOURCE, entities=None, **more) -> int:
    sync_id = sync_log.begin(conn, source, kind, run, **more)
    sync_log.finish(conn, sync_id, entities or {"customers": Counts(read=3, updated=1)}, error, requests=4)
    return sync_id


def status(conn, source=SOURCE) -> Status:
    (found,) = read_statuses(conn, [source])
    return found


def test_run_over_a_part_says_of_what(conn):
    """Rows of a part are not taken for all of the entity's."""
    judged(conn, "whole", entity="customers", run="r/1")
    judged(conn, "part", entity="tickets", scope="pages 1-2", run="r/1")
    assert status(conn).parts == {"tickets": "pages 1-2"}
    judged(conn, "later", entity="tickets", run="r/2")
    assert status(conn).parts == {}


def pages(fetch, **asked):
    """All pages of a list, of which there are not many."""
    for _ in range(10):
        page = fetch(**asked)
        yield page
        if page.next_cursor is None:
            return
        asked["cursor"] = page.next_cursor
    raise AssertionError("the list has no end")


class TestOverview:
    def test_before_anything_happened(self, conn):
        found = status(conn, "square")
        assert found.writer == fence.read(conn, "square")
        known = {name: value for name, value in vars(found).items() if value is not None}
        assert {night.kind for night in known.pop("nights")} == {"no scan"}
        assert known == {"writer": found.writer, "parts": {}, "unproven": 0, "findings": ()}

    def test_nights_say_the_worst_of_each_day(self, conn):
        warned = Judgement(Verdict.WARN, (METRIC,), ("too many",), ())
        days = [("held", HELD, 1), ("passed", PASSED, 1), ("warned", warned, 3), ("passed too", PASSED, 4)]
        for name, verdict, ago in days:
            judged(conn, name, verdict, run=f"run of {name}")
            conn.execute(
                "UPDATE confidence.forensic_run SET scanned_at = now() - make_interval(days => %s) WHERE scan_id = %s",
                [ago, name],
            )
        nights = status(conn, "repairshopr").nights
        assert len(nights) == 30
        assert [night.kind for night in nights[-5:]] == ["pass", "warn", "no scan", "hold", "no scan"]
        assert nights[-2].run == "run of held"
        assert nights[-1].day == datetime.now(UTC).date()

    def test_sources_come_as_asked_and_unknown_ones_not(self, conn):
        found = read_statuses(conn, ["storage", "nothing", "repairshopr"])
        assert [each.writer.source for each in found] == ["storage", "repairshopr"]

    def test_verdict_is_the_worst_of_the_last_judged_run(self, conn):
        judged(conn, "before", HELD, run="old", at=0)
        judged(conn, "a", run="last", at=1)
        judged(conn, "b", Judgement(Verdict.WARN, (), (), ()), run="last", entity="invoices", at=2)
        judged(conn, "c", None, run="under way", at=3)
        judged(conn, "other", HELD, run="x", source="square", at=9)
        found = status(conn)
        assert (found.verdict, found.judged_run) == (Verdict.WARN, "last")
        assert found.scanned_at == START + timedelta(minutes=2)

    def test_scan_that_was_made_again_counts_once(self, conn):
        judged(conn, "first", HELD, run="last", at=1)
        judged(conn, "again", run="last", at=2)
        assert status(conn).verdict is Verdict.PASS

    def test_evidence_is_that_of_the_last_judged_run(self, conn):
        judged(conn, "before", run="old", at=0, accounts={"a": Account(live=90, equal=90)})
        first = {
            "a": Account(live=10, equal=9, unproven=1, out_of_scope=0),
            "b": Account(missing=4, missing_unproven=1),
        }
        judged(conn, "first", run="last", at=1, accounts={"a": Account(live=70, equal=70)})
        judged(conn, "again", run="last", at=2, accounts=first)
        judged(conn, "other", run="last", at=3, entity="invoices", accounts={"c": Account(live=6, surplus=6)})
        found = status(conn)
        assert (found.rows, found.proven) == (20, 18)

    def test_unproven_rows_are_counted_since_the_oldest(self, conn):
        doubtful(conn, "customers", [1], hours=3)
        doubtful(conn, "invoices", [2, "x"], hours=5)
        doubtful(conn, "orders", [3], hours=9, source="square")
        found = status(conn)
        assert found.unproven == 2
        assert (datetime.now(UTC) - found.unproven_since).total_seconds() == pytest.approx(5 * 3600, abs=60)
        assert [row.key for row in oldest(conn, SOURCE)] == [[2, "x"], [1]]
        assert len(oldest(conn, SOURCE, limit=1)) == 1
        tables = count_by_table(conn, [SOURCE, "square"])
        assert [table[:3] for table in tables] == [
            (SOURCE, "customers", 1),
            (SOURCE, "invoices", 1),
            ("square", "orders", 1),
        ]

    def test_findings_of_the_watch_are_the_sources_own(self, conn):
        finding = Finding(Code.POOL_CLOSED, SOURCE, "1", None, "closed", "no sync can start", "open it")
        findings.keep(conn, SOURCE, [finding])
        findings.keep(conn, "square", [])
        found = status(conn)
        assert [(each.code, each.what, each.settled) for each in found.findings] == [("pool_closed", "closed", False)]
        assert found.watched_at
        assert (status(conn, "square").findings, status(conn, "storage").watched_at) == ((), None)

    def test_freshness_is_that_of_the_stalest_table(self, conn):
        sync_id = a_sync(conn)
        for entity, minutes in (("customers", 5), ("invoices", 9), ("tickets", 7)):
            watermark = datetime.now(UTC) - timedelta(minutes=minutes)
            sync_log.advance(conn, sync_id, SOURCE, entity, watermark=watermark)
        found = status(conn)
        assert found.stalest == "invoices"
        assert found.freshness_seconds == pytest.approx(540, abs=30)

    def test_last_sync_is_no_repair(self, conn):
        a_sync(conn)
        failed = a_sync(conn, error="the vendor is down")
        a_sync(conn, "repair", run="r/1")
        a_sync(conn, source="square")
        found = status(conn).last_sync
        assert (found.sync_id, found.state, found.error) == (failed, "failed", "the vendor is down")
        assert found.finished_at >= found.started_at
        assert found.duration_seconds >= 0

    def test_progress_is_of_the_run_that_holds_the_fence(self, conn):
        writer = fence.stop(conn, SOURCE, RECONCILE, 1)
        judged(conn, "done", None, run=RECONCILE, epoch=writer.epoch)
        judged(conn, "from before", None, run=RECONCILE, epoch=writer.epoch - 1, entity="products")
        pull(conn, "invoices", f"{RECONCILE}/invoices/{writer.epoch}/all", pages=3, rows_read=70, total_pages=9)
        pull(conn, "tickets", f"{RECONCILE}/tickets/{writer.epoch - 1}/all")
        pull(conn, "payments", f"{RECONCILE}0/payments/{writer.epoch}/all")
        # The parts of an entity are staged under its ticket.
        pull(conn, "parts", f"{RECONCILE}/invoices/{writer.epoch}/all")
        pull(conn, "customers", f"{RECONCILE}/customers/{writer.epoch}/all", purpose="sync")
        found = status(conn).progress
        assert (found.run, found.scanned) == (RECONCILE, ("line_items",))
        [reading] = found.reading
        assert (reading.entity, reading.pages, reading.total_pages, reading.rows_read) == ("invoices", 3, 9, 70)
        assert reading.started_at.tzinfo
        fence.resume(conn, SOURCE, RECONCILE)
        assert status(conn).progress is None


def pull(conn, entity, ticket, *, purpose="scan", pages=0, rows_read=0, total_pages=None):
    conn.execute(
        "INSERT INTO staging.pull (pull, source, entity, purpose, ticket, attempt, pages, rows_read, total_pages)"
        " VALUES (%s, %s, %s, %s, %s, gen_random_uuid(), %s, %s, %s)",
        [f"{entity} {purpose}", SOURCE, entity, purpose, ticket, pages, rows_read, total_pages],
    )


def doubtful(conn, entity, key, *, hours=0, source=SOURCE, run="night", why="HTTP 500"):
    """A row that no scan could prove, first seen so many hours ago."""
    conn.execute(
        "INSERT INTO confidence.unproven (source, entity, key, why, run, first_seen)"
        " VALUES (%s, %s, %s, %s, %s, now() - make_interval(hours => %s))",
        [source, entity, Jsonb(key), why, run, hours],
    )


class TestScans:
    def test_tell_how_many_rows_they_have_proven(self, conn):
        accounts = {"a": Account(live=10, equal=8, unproven=2), "b": Account(live=5, equal=5, missing=1)}
        judged(conn, "counted", at=1, accounts=accounts, incomplete="3 pages stayed unread")
        judged(conn, "not counted", at=0)
        counted, bare = list_scans(conn, SOURCE).items
        assert (counted.rows, counted.proven, counted.accounts) == (16, 14, accounts)
        assert counted.incomplete == "3 pages stayed unread"
        assert (bare.rows, bare.proven, bare.accounts, bare.incomplete) == (None, None, {}, "")

    def test_gates_are_kept_as_they_were_judged(self, conn):
        judged(conn, "before", value=100, run="1", at=0)
        scanned = summary(500, scan_id="now", run="2", plan=(3, 2, 1))
        scan_log.record(conn, scanned)
        judgement = judge(scanned, judgements.past_runs(conn, scanned), [Trend(METRIC), Trend("not_measured")])
        judgements.save_judgement(conn, scanned, judgement)
        scan = list_scans(conn, SOURCE).items[0]
        assert scan.gates == judgement.gates
        assert scan.gates[0] == Gate(METRIC, 100.0, 125.0, 500, Verdict.WARN, judgement.reasons[0])
        assert scan.gates[1].verdict is None
        assert (scan.verdict, scan.reasons, scan.plan) == (Verdict.WARN, judgement.reasons, Plan(3, 2, 1))
        assert (scan.metrics, scan.live_rows) == ({METRIC: 500}, 1000)
        assert (scan.examples, scan.telemetry) == (scanned.examples, scanned.telemetry)

    def test_figure_of_several_gates_is_shown_once(self, conn):
        limit = Limit(METRIC, of="checked", share=0.05, message="the whole shop is gone")
        scanned = summary(60, scan_id="now", metrics={METRIC: 60, "checked": 1000})
        scan_log.record(conn, scanned)
        judgements.save_judgement(conn, scanned, judge(scanned, passes(10), [Trend(METRIC), limit]))
        (gate,) = list_scans(conn, SOURCE).items[0].gates
        assert (gate.baseline, gate.limit, gate.verdict) == (10.0, 35.0, Verdict.HOLD)
        assert gate.reason.endswith("the whole shop is gone")

    def test_gate_that_judged_outweighs_one_that_could_not(self, conn):
        unknown = Limit(METRIC, of="not_measured", share=0.05, message="")
        scanned = summary(5)
        judged(conn, "scan", judge(scanned, [], [unknown, Trend(METRIC)]), value=5)
        assert [gate.verdict for gate in list_scans(conn, SOURCE).items[0].gates] == [Verdict.PASS]

    def test_same_scan_once_more_has_no_gates_yet(self, conn):
        judged(conn, "scan", judge(summary(5), [], [Trend(METRIC)]))
        assert list_scans(conn, SOURCE).items[0].gates
        scan_log.record(conn, summary(6, scan_id="scan"))
        assert list_scans(conn, SOURCE).items[0].gates == ()

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 200])
    def test_every_page_size_shows_each_scan_once(self, conn, limit):
        # Three share an instant.
        for number, minute in enumerate([0, 1, 1, 1, 2, 3, 4]):
            judged(conn, f"scan {number}", at=minute)
        found = list(pages(lambda **asked: list_scans(conn, SOURCE, **asked), limit=limit))
        assert [len(page.items) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert [scan.scan_id for page in found for scan in page.items] == [f"scan {n}" for n in range(6, -1, -1)]

    def test_what_comes_meanwhile_moves_nothing(self, conn):
        for number in range(4):
            judged(conn, f"scan {number}", at=number)
        first = list_scans(conn, SOURCE, limit=2)
        judged(conn, "new", at=9)
        second = list_scans(conn, SOURCE, limit=2, cursor=first.next_cursor)
        assert [scan.scan_id for scan in second.items] == ["scan 1", "scan 0"]
        assert second.next_cursor is None

    def test_filters(self, conn):
        judged(conn, "a", at=0)
        judged(conn, "b", HELD, at=1)
        judged(conn, "c", HELD, at=2, entity="invoices")
        judged(conn, "d", HELD, at=3, source="square")

        def found(**asked):
            return [scan.scan_id for scan in list_scans(conn, SOURCE, **asked).items]

        assert found() == ["c", "b", "a"]
        assert found(verdict="hold") == ["c", "b"]
        assert found(entity="line_items") == ["b", "a"]
        assert found(since=START + timedelta(minutes=1)) == ["c", "b"]
        assert found(verdict="hold", entity="line_items", since=START) == ["b"]

    def test_latest_has_one_of_each_entity_and_scope(self, conn):
        for entity in ("customers", "invoices"):
            for scope in ("all", "pages 1-2"):
                for age in range(3):
                    judged(conn, f"{entity} {scope} {age}", at=10 - age, entity=entity, scope=scope)
        judged(conn, "other", at=99, source="square", entity="orders")
        found = [scan.scan_id for scan in latest_scans(conn, SOURCE)]
        assert found == ["customers all 0", "customers pages 1-2 0", "invoices all 0", "invoices pages 1-2 0"]
        assert latest_scans(conn, "storage") == []

    def test_parts_are_counted(self, conn):
        judged(conn, "a", at=0)
        judged(conn, "b", at=3)
        judged(conn, "c", at=2, scope="pages 1-2")
        judged(conn, "d", at=0, entity="customers")
        found = [(part.entity, part.scope, part.scans, part.scanned_at) for part in list_parts(conn, SOURCE)]
        assert found == [
            ("customers", "all", 1, START),
            ("line_items", "all", 2, START + timedelta(minutes=3)),
            ("line_items", "pages 1-2", 1, START + timedelta(minutes=2)),
        ]


class TestSeries:
    def test_figures_with_their_gates_oldest_first(self, conn):
        gates = (
            Gate(METRIC, 10.0, 35.0, 40, Verdict.WARN),
            Gate(METRIC, None, 30.0, 40, Verdict.HOLD),
            Gate("rows_differing", None, None, 2, Verdict.PASS),
            Gate("plan.delete", None, 20.0, 3, Verdict.PASS),
        )
        metrics = {METRIC: 40, "rows_differing": 2, "feed_noise": 1}
        judged(conn, "a", value=10, at=0)
        judged(conn, "b", Judgement(Verdict.HOLD, (METRIC,), ("x",), gates), at=1, metrics=metrics)
        holds.decide(conn, SOURCE, "resume", "Ada")
        judged(conn, "part", at=2, scope="pages 1-2")
        found = {each.metric: each.points for each in read_series(conn, SOURCE, "line_items")}
        assert set(found) == {*metrics, "plan.delete"}
        first, second = found[METRIC]
        assert (first.value, first.limit, first.verdict, first.accepted) == (10, None, None, False)
        assert (second.value, second.baseline, second.limit) == (40, 10.0, 30.0)
        assert (second.verdict, second.accepted, second.run) == (Verdict.HOLD, True, "run of b")
        assert [point.value for point in found["rows_differing"]] == [None, 2]
        assert found["feed_noise"][1].verdict is None
        assert [(point.value, point.limit) for point in found["plan.delete"]] == [(None, None), (3, 20.0)]

    @pytest.mark.parametrize(
        ("decision", "left_out", "accepted"),
        [("resume", [], True), ("keep", [], False), ("repair", [], False), ("repair", ["line_items"], True)],
    )
    def test_what_a_person_has_accepted_is_marked(self, conn, decision, left_out, accepted):
        judged(conn, "held", HELD, at=0)
        holds.decide(conn, SOURCE, decision, "Ada", left_out=left_out)
        [point] = read_series(conn, SOURCE, "line_items")[0].points
        assert point.accepted == accepted

    def test_newest_ones_unless_a_period_is_asked_for(self, conn):
        for number in range(POINTS + 2):
            judged(conn, f"{number}", value=number, at=number)
        [series] = read_series(conn, SOURCE, "line_items")
        assert [point.value for point in series.points] == list(range(2, POINTS + 2))
        assert series.scans == POINTS

    def test_period_ends_before_older_scans(self, conn):
        for days in (40, 20, 2):
            judged(conn, f"{days}", value=days)
            aged(conn, f"{days}", days)
        [series] = read_series(conn, SOURCE, "line_items", days=30)
        assert [point.value for point in series.points] == [20, 2]
        assert read_series(conn, SOURCE, "line_items", days=1) == []

    def test_year_of_points_keeps_the_worst_and_the_last(self, conn):
        held = Judgement(Verdict.HOLD, (METRIC,), ("x",), (Gate(METRIC, 0.0, 25.0, 40, Verdict.HOLD),))
        for number in range(4 * POINTS):
            special = {100: (held, 40), 200: (PASSED, 500)}.get(number, (PASSED, 1))
            judged(conn, f"{number}", special[0], value=special[1])
            aged(conn, f"{number}", 4 * POINTS - number)
        [series] = read_series(conn, SOURCE, "line_items", days=365)
        assert len(series.points) <= POINTS
        assert series.scans == 4 * POINTS
        assert [point.value for point in series.points if point.value != 1] == [40, 500]
        assert [point.run for point in series.points if point.verdict] == ["run of 100"]
        assert series.points[-1].run == f"run of {4 * POINTS - 1}"

    def test_of_several_points_what_is_not_judged_hides_behind_no_pass(self, conn):
        passed = Judgement(Verdict.PASS, (), (), (Gate(METRIC, 0.0, 25.0, 1, Verdict.PASS),))
        for number in range(2 * POINTS):
            judged(conn, f"{number}", None if number == 50 else passed, value=1)
            aged(conn, f"{number}", 2 * POINTS - number)
        [series] = read_series(conn, SOURCE, "line_items", days=365)
        assert [point.run for point in series.points if not point.verdict] == ["run of 50"]

    @pytest.mark.parametrize(("value", "shown"), [(0, ["run of 50"]), (1, [])])
    def test_of_several_points_a_value_that_is_not_known_hides_behind_no_zero(self, conn, value, shown):
        for number in range(2 * POINTS):
            judged(conn, f"{number}", metrics={"rows_differing": 2} if number == 50 else {METRIC: value})
            aged(conn, f"{number}", 2 * POINTS - number)
        found = {each.metric: each.points for each in read_series(conn, SOURCE, "line_items", days=365)}
        assert [point.run for point in found[METRIC] if point.value is None] == shown


class TestDrift:
    """The total drift of each run."""

    def run(self, conn, name: str, at: int = 0, entities=("customers", "line_items"), **changes) -> None:
        for entity in entities:
            figures = {"plan": (1, 2, 3), "accounts": {entity: Account(live=10, equal=8, unproven=2)}, **changes}
            judged(conn, f"{name} {entity}", at=at, run=name, entity=entity, **figures)

    def figures(self, conn, **asked) -> list[tuple]:
        points = read_drift(conn, SOURCE, **asked).points
        return [(point.run, point.insert, point.update, point.delete, point.unproven) for point in points]

    def test_is_the_sum_over_all_entities_oldest_first(self, conn):
        self.run(conn, "second", at=1)
        self.run(conn, "first")
        judged(conn, "other", at=2, run="third", source="square", entity="orders", plan=(9, 9, 9))
        assert self.figures(conn) == [("first", 2, 4, 6, 4), ("second", 2, 4, 6, 4)]
        assert [point.total for point in read_drift(conn, SOURCE).points] == [16, 16]

    def test_newest_scan_of_each_entity_counts(self, conn):
        self.run(conn, "first")
        judged(conn, "again", at=1, run="first", entity="customers", plan=(5, 0, 0), accounts={"customers": Account()})
        assert self.figures(conn) == [("first", 6, 2, 3, 2)]

    def test_sum_without_an_entity_or_of_no_evidence_is_not_known(self, conn):
        self.run(conn, "whole")
        self.run(conn, "half", at=1, entities=("customers",))
        self.run(conn, "spoilt", at=2, incomplete="no page answered")
        nothing = (None, None, None, None)
        assert self.figures(conn) == [("whole", 2, 4, 6, 4), ("half", *nothing), ("spoilt", *nothing)]

    def test_without_an_account_the_unproven_rows_are_not_known(self, conn):
        self.run(conn, "old", accounts={})
        assert self.figures(conn) == [("old", 2, 4, 6, None)]
        assert [point.total for point in read_drift(conn, SOURCE).points] == [12]

    def test_runs_over_another_part_are_left_out(self, conn):
        self.run(conn, "a/scheduled__1")
        self.run(conn, "a/scheduled__2", at=1)
        for minute in range(2, 5):
            self.run(conn, f"some pages {minute}", at=minute, scope="pages 1-2")
        assert [run for run, *_ in self.figures(conn)] == ["a/scheduled__1", "a/scheduled__2"]
        assert read_drift(conn, SOURCE).left_out == 3

    def test_once_the_scope_has_changed_runs_before_are_left_out(self, conn):
        for night in range(5):
            self.run(conn, f"a/scheduled__{night}", at=night, scope="30 days back")
        self.run(conn, "a/scheduled__new", at=5, scope="60 days back")
        assert self.figures(conn) == [("a/scheduled__new", 2, 4, 6, 4)]
        assert read_drift(conn, SOURCE).left_out == 5

    def test_once_an_entity_is_gone_for_some_runs_they_have_a_total(self, conn):
        for night in range(14):
            self.run(conn, f"a/scheduled__{night}", at=night)
        for night in range(7):
            self.run(conn, f"b/scheduled__{night}", at=100 + night, entities=("customers",))
            # Until then it looks as if they had left it out.
            assert self.figures(conn)[-1][1] == (1 if night == 6 else None)

    @pytest.mark.parametrize(("planned", "shown"), [(0, ["50"]), (1, [])])
    def test_of_several_runs_one_that_is_not_known_hides_behind_no_zero(self, conn, planned, shown):
        for number in range(2 * POINTS):
            incomplete = "no page" if number == 50 else ""
            self.run(conn, f"{number}", 0, ("customers",), plan=(planned, 0, 0), accounts={}, incomplete=incomplete)
            aged(conn, f"{number} customers", 2 * POINTS - number)
        found = read_drift(conn, SOURCE, days=365)
        assert [point.run for point in found.points if point.total is None] == shown

    def test_entity_that_was_added_counts(self, conn):
        self.run(conn, "night")
        self.run(conn, "next night", at=1)
        self.run(conn, "with tickets", at=2, entities=("customers", "line_items", "tickets"))
        assert self.figures(conn)[1:] == [("next night", None, None, None, None), ("with tickets", 3, 6, 9, 6)]

    def test_period_and_thinning_are_those_of_the_series(self, conn):
        for number in range(POINTS + 10):
            self.run(conn, f"{number}", plan=(9, 0, 0) if number == 3 else (0, 1, 0))
            for entity in ("customers", "line_items"):
                aged(conn, f"{number} {entity}", POINTS + 10 - number)
        whole = read_drift(conn, SOURCE, days=365)
        assert whole.runs == POINTS + 10
        assert len(whole.points) <= POINTS
        assert [point.run for point in whole.points if point.insert] == ["3"]
        assert whole.points[-1].run == f"{POINTS + 9}"
        assert read_drift(conn, SOURCE, days=30).runs == 30
        assert read_drift(conn, SOURCE).runs == POINTS


class TestSyncLog:
    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
    def test_every_page_size_shows_each_row_once(self, conn, limit):
        ids = [a_sync(conn) for _ in range(4)]
        found = list(pages(lambda **asked: list_syncs(conn, SOURCE, **asked), limit=limit))
        assert [row.sync_id for page in found for row in page.items] == ids[::-1]
        assert [bool(page.next_cursor) for page in found] == [True] * (len(found) - 1) + [False]

    def test_filters(self, conn):
        one = a_sync(conn)
        two = a_sync(conn, error="the vendor is down")
        three = a_sync(conn, "repair", run="r/1")
        a_sync(conn, source="square")
        conn.execute("UPDATE confidence.sync_log SET started_at = %s WHERE sync_id = %s", [START, one])

        def found(**asked):
            return [row.sync_id for row in list_syncs(conn, SOURCE, **asked).items]

        assert found() == [three, two, one]
        assert found(kind="sync") == [two, one]
        assert found(state="failed") == [two]
        assert found(since=START + timedelta(seconds=1)) == [three, two]

    def test_counts_and_what_undid_it(self, conn):
        sync_id = a_sync(conn, entities={"customers": Counts(read=5, inserted=2), "invoices": Counts(updated=1)})
        rollback = a_sync(conn, "rollback", run="w/1", undoes=sync_id, reason="a mistake")
        row = read_sync(conn, SOURCE, sync_id)
        assert row.counts == Counts(read=5, inserted=2, updated=1)
        assert row.entities == {"customers": Counts(read=5, inserted=2), "invoices": Counts(updated=1)}
        assert (row.requests, row.undone_by) == (4, rollback)
        undoing = read_sync(conn, SOURCE, rollback)
        assert (undoing.undoes, undoing.reason, undoing.undone_by) == (sync_id, "a mistake", None)
        assert read_sync(conn, "square", sync_id) is None

    def test_rollback_that_failed_undid_nothing(self, conn):
        sync_id = a_sync(conn)
        a_sync(conn, "rollback", run="w/1", undoes=sync_id, error="conflicts")
        assert read_sync(conn, SOURCE, sync_id).undone_by is None


def change(conn, sync_id, operation, before, after, **key):
    conn.execute(
        "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)"
        " VALUES (%s, 'repairshopr.customers', %s, %s, %s, %s)",
        [sync_id, Jsonb(key), operation, before and Jsonb(before), after and Jsonb(after)],
    )


class TestChanges:
    def test_only_the_columns_that_differ(self, conn):
        change(conn, 1, "insert", None, None, id=7)
        change(conn, 1, "update", {"id": 8, "city": "Ulm", "zip": None}, {"id": 8, "city": "Bonn", "zip": None}, id=8)
        change(conn, 1, "delete", {"id": 9, "city": "Ulm"}, None, id=9)
        change(conn, 2, "insert", None, None, id=1)
        deleted, updated, inserted = list_changes(conn, 1).items
        assert (inserted.key, inserted.operation, inserted.differences) == ({"id": 7}, "insert", ())
        assert updated.differences == (Difference("city", "Ulm", "Bonn"),)
        assert updated.table == "repairshopr.customers"
        assert deleted.differences == (Difference("id", 9, None), Difference("city", "Ulm", None))

    @pytest.mark.parametrize("limit", [1, 2, 3, 4])
    def test_every_page_size_shows_each_change_once(self, conn, limit):
        for number in range(3):
            change(conn, 1, "insert", None, None, id=number)
        found = list(pages(lambda **asked: list_changes(conn, 1, **asked), limit=limit))
        assert [each.key["id"] for page in found for each in page.items] == [2, 1, 0]


class TestRun:
    def test_of_a_run_that_left_nothing(self, conn):
        assert read_run(conn, "repairshopr_reconcile/none") is None

    def test_scans_and_what_followed(self, conn):
        judged(conn, "first", HELD, run=RECONCILE, at=0, plan=(9, 9, 9))
        judged(conn, "again", run=RECONCILE, at=1, plan=(1, 2, 3))
        judged(conn, "b", Judgement(Verdict.WARN, (), (), ()), run=RECONCILE, at=2, entity="invoices", plan=(4, 0, 0))
        judged(conn, "other", HELD, run="other", at=3)
        repair = a_sync(conn, "repair", run=RECONCILE, entities={"line_items": Counts(inserted=1, superseded=1)})
        watermark = a_sync(conn, "watermark", run=RECONCILE)
        found = read_run(conn, RECONCILE)
        assert (found.run, found.source, found.verdict) == (RECONCILE, SOURCE, Verdict.WARN)
        assert [scan.scan_id for scan in found.scans] == ["b", "again", "first"]
        assert found.planned == Plan(5, 2, 3)
        assert found.applied == Counts(inserted=1, superseded=1)
        assert [row.sync_id for row in found.syncs] == [watermark, repair]
        assert (found.rows, found.proven, found.unproven) == (None, None, ())

    def test_says_what_it_has_proven_and_what_nobody_has_since(self, conn):
        counted = {"a": Account(live=10, equal=8, unproven=2)}
        judged(conn, "first", run=RECONCILE, at=0, accounts={"a": Account(live=90)})
        judged(conn, "again", run=RECONCILE, at=1, accounts=counted)
        judged(conn, "b", run=RECONCILE, at=2, entity="invoices", accounts={"b": Account(live=5, equal=5)})
        doubtful(conn, "a", [1], hours=1, run=RECONCILE)
        doubtful(conn, "a", [2], hours=2, run=RECONCILE)
        doubtful(conn, "a", [3], run="a later one")
        found = read_run(conn, RECONCILE)
        assert (found.rows, found.proven) == (15, 13)
        assert [row.key for row in found.unproven] == [[2], [1]]

    def test_of_a_sync(self, conn):
        sync_id = a_sync(conn)
        found = read_run(conn, f"{SOURCE}_sync/1")
        assert (found.source, found.verdict, found.scans, found.planned) == (SOURCE, None, (), Plan(0, 0, 0))
        assert (found.applied, found.syncs[0].sync_id) == (Counts(), sync_id)


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "é", "bnVsbA", "WzFd", "WyJhIiwgImIiXQ", "W1tdLCAxXQ"])
def test_cursor_that_no_page_gave_is_refused(conn, cursor):
    if cursor:
        with pytest.raises(CursorRefused, match="take next_cursor of the page before"):
            list_scans(conn, SOURCE, cursor=cursor)
    else:
        assert list_scans(conn, SOURCE, cursor=cursor).items == ()


def test_source_has_data_once_it_was_synced_or_scanned(conn):
    """A migration's rows are no data."""
    asked = ["square", "flex", SOURCE]
    assert with_data(conn, asked) == ()
    a_sync(conn, source="flex", error="down")
    assert with_data(conn, asked) == ("flex",)
    judged(conn, "first", source="square")
    assert with_data(conn, asked) == ("square", "flex")
    assert with_data(conn, [SOURCE]) == with_data(conn, []) == ()


def test_cursor_of_another_list_is_refused(conn):
    for number in range(2):
        judged(conn, f"{number}", at=number)
    with pytest.raises(CursorRefused):
        list_syncs(conn, SOURCE, cursor=list_scans(conn, SOURCE, limit=1).next_cursor)


def test_limits_are_bounded(conn):
    for number in range(205):
        judged(conn, f"{number:03}", at=number)
    assert len(list_scans(conn, SOURCE, limit=100_000).items) == 200
    assert len(list_scans(conn, SOURCE, limit=0).items) == 1
    assert len(list_scans(conn, SOURCE).items) == 50
    assert len(list(pages(lambda **asked: list_scans(conn, SOURCE, **asked), limit=1000))) == 2
