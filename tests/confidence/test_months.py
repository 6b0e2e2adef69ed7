"""Months of a source with known figures: nights, rows, stops, questions, freshness, and what is not known."""

from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from include.confidence import holds, judgements, outcome, questions, run_evidence, scan_log
from include.confidence.account import Account
from include.confidence.policy import Verdict
from include.confidence.queries import months as queries
from include.confidence.queries.months import Declared, NightCounts, SourceMonth, read_months
from include.confidence.queries.overview import read_statuses
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts
from tests.confidence.builders import HELD, PASSED, WARNED, summary

SOURCE = "square"
DECLARED = Declared(SOURCE, ("orders", "payments"), freshness=2.0)
PROVEN = Account(live=10, equal=10)
JUDGED = {"pass": PASSED, "warn": WARNED, "hold": HELD}
HOUR = 3600.0


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
def stops_are_known(conn: Connection) -> None:
    """All stops since 2020 are kept, and none is open."""
    conn.execute("UPDATE confidence.writer SET stops_kept_since = '2020-01-01', state = 'running', hold_reason = NULL")
    conn.execute("DELETE FROM confidence.writer_stop")


@pytest.fixture(autouse=True)
def old_months_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the last 12, so that the tests may take place in 2024."""
    monkeypatch.setattr(queries, "MOST", 1000)


def log_reaches_back_to(conn: Connection, moment: str) -> None:
    conn.execute(
        "INSERT INTO confidence.dropped_changes VALUES (%s, %s)"
        " ON CONFLICT (source) DO UPDATE SET until = excluded.until",
        [SOURCE, at(moment)],
    )


def scan(
    conn: Connection,
    moment: str,
    verdict: str | None = "pass",
    *,
    run: str = "",
    entities: tuple[str, ...] = DECLARED.entities,
    account: Account | None = PROVEN,
    source: str = SOURCE,
    rescanned: bool = False,
    **figures,
) -> str:
    """A run that has scanned these entities at that moment, with one verdict on all of them; returns its name."""
    run = run or f"{source}_reconcile/scheduled__{moment}"
    for entity in entities:
        scanned = summary(
            source=source,
            entity=entity,
            scan_id=f"{run}/{entity}/{moment}",
            run=run,
            accounts={entity: account} if account else {},
            **figures,
        )
        scan_log.record(conn, scanned)
        if verdict:
            judgements.save_judgement(conn, scanned, JUDGED[verdict])
        conn.execute(
            "UPDATE confidence.forensic_run SET scanned_at = %s, rescanned = %s WHERE scan_id = %s",
            [at(moment), rescanned, scanned.scan_id],
        )
    return run


def sync(
    conn: Connection, kind: str, began: str, ended: str | None = None, *, run: str = "", error=None, **more
) -> int:
    """A row of the sync log; `more`: its counts, `undoes`, `checks`."""
    run = run or f"{SOURCE}_sync/scheduled__{began}"
    undoes, checks = more.pop("undoes", None), more.pop("checks", None)
    sync_id = sync_log.begin(conn, SOURCE, kind, run, undoes=undoes)
    sync_log.finish(conn, sync_id, {"orders": Counts(**more)}, error)
    if checks is not None:
        sync_log.save_checks(conn, sync_id, checks)
    conn.execute(
        "UPDATE confidence.sync_log SET started_at = %s, finished_at = %s WHERE sync_id = %s",
        [at(began), at(ended or began), sync_id],
    )
    return sync_id


def stop(conn: Connection, began: str, ended: str | None, reason: str | None = None, run: str = "a run") -> None:
    conn.execute(
        "INSERT INTO confidence.writer_stop (source, began_at, ended_at, run, hold_reason) VALUES (%s, %s, %s, %s, %s)",
        [SOURCE, at(began), ended and at(ended), run, reason],
    )


def answer(conn: Connection, run: str, asked: str, answered: str | None = None, decision="resume", who="Ada") -> None:
    conn.execute(
        "UPDATE confidence.forensic_run SET asked_at = %s, decided_at = %s, decision = %s, decided_by = %s"
        " WHERE run = %s",
        [at(asked), answered and at(answered), answered and decision, answered and who, run],
    )
    conn.execute(
        "INSERT INTO confidence.question (source, asked_at, run, text, decided_at, decision, decided_by)"
        " VALUES (%s, %s, %s, '', %s, %s, %s) ON CONFLICT DO NOTHING",
        [SOURCE, at(asked), run, answered and at(answered), answered and decision, answered and who],
    )


def ask_and_answer(conn: Connection, run: str, decision: str) -> None:
    found = holds.open_holds(conn, SOURCE)
    holds.note_asked(conn, found)
    questions.keep(conn, SOURCE, run, [hold.scan_id for hold in found], "What now?")
    holds.decide(conn, SOURCE, decision, "Ada")


def open_changes(after: int, entities=DECLARED.entities) -> list[dict]:
    return [
        {"entity": entity, "figure": outcome.OPEN_CHANGES, "before": 0, "after": after, "margin": 0}
        for entity in entities
    ]


def months(conn: Connection, declared: Declared = DECLARED, failed: Collection[str] = ()) -> dict[str, SourceMonth]:
    """The months by their name. `failed`: runs that began at 2024-03-02 03:00 and have failed."""
    found = read_months(conn, [declared], {SOURCE: dict.fromkeys(failed, at("2024-03-02 03:00"))})
    assert [month.month for month in found] == sorted((month.month for month in found), reverse=True)
    return {f"{month.month:%Y-%m}": month for month in found}


def test_without_a_run_there_is_no_month(conn):
    sync(conn, "sync", "2024-03-05 01:00")
    assert read_months(conn, [DECLARED], {}) == []
    assert read_months(conn, [], {}) == []


class TestNights:
    def test_are_counted_by_the_worst_verdict_of_the_day(self, conn):
        for day, verdict in (("03-02", "pass"), ("03-03", "warn"), ("03-04", "hold"), ("03-06", None)):
            scan(conn, f"2024-{day} 03:00", verdict)
        scan(conn, "2024-03-02 15:00", "warn", run="by hand")
        # March 1 is before the first run.
        assert months(conn)["2024-03"].nights == NightCounts(
            passed=0, warned=2, held=1, failed=0, not_judged=1, no_scan=26, proven=2
        )

    def test_whose_run_failed_are_counted_apart(self, conn):
        passed, warned = scan(conn, "2024-03-02 03:00", "pass"), scan(conn, "2024-03-03 03:00", "warn")
        nights = months(conn, failed=[passed])["2024-03"].nights
        assert (nights.passed, nights.warned, nights.failed) == (0, 1, 1)
        assert months(conn, failed=[warned, "of another night"])["2024-03"].nights.failed == 1

    @pytest.mark.drill("leap-day")
    def test_belong_to_the_month_of_their_day_in_utc(self, conn):
        conn.execute("SET LOCAL TimeZone = 'America/Los_Angeles'")
        scan(conn, "2024-02-29 23:59:59")
        scan(conn, "2024-03-01 00:00")
        found = months(conn)
        assert [(month, each.nights.passed) for month, each in found.items()][-2:] == [("2024-03", 1), ("2024-02", 1)]
        assert (found["2024-02"].nights.no_scan, found["2024-03"].nights.no_scan) == (0, 30)
        assert (found["2024-02"].nights.proven, found["2024-03"].nights.proven) == (1, 1)

    def test_are_those_of_the_strip_on_the_overview(self, conn):
        now = datetime.now(UTC)
        for ago, verdict in ((1, "warn"), (2, "hold"), (2, "pass"), (4, None)):
            scan(conn, f"{now - timedelta(days=ago):%Y-%m-%d} 0{ago}:00", verdict, run=f"{ago} {verdict}")
        (status,) = read_statuses(conn, [SOURCE])
        shown = [night.kind for night in status.nights if night.day >= (now - timedelta(days=4)).date()]
        counted = [asdict(month.nights) for month in months(conn).values()]
        names = {"pass": "passed", "warn": "warned", "hold": "held", "not judged": "not_judged", "no scan": "no_scan"}
        # Today may still have its run.
        assert shown.pop() == "no scan"
        assert {kind: sum(each[name] for each in counted) for kind, name in names.items()} == {
            kind: shown.count(kind) for kind in names
        }

    def test_today_counts_once_it_has_a_scan(self, conn):
        now = datetime.now(UTC)
        scan(conn, f"{now:%Y-%m-%d} 00:00")
        assert months(conn)[f"{now:%Y-%m}"].nights == NightCounts(1, 0, 0, 0, 0, 0, 1)

    def test_a_month_without_a_scan_is_told_too(self, conn):
        scan(conn, "2024-01-31 03:00")
        scan(conn, "2024-03-31 03:00")
        found = months(conn)
        assert list(found)[-4:] == ["2024-04", "2024-03", "2024-02", "2024-01"]
        assert next(iter(found)) == f"{datetime.now(UTC):%Y-%m}"
        assert found["2024-02"].nights == NightCounts(0, 0, 0, 0, 0, 29, 0)

    def test_each_source_has_months_from_its_first_scan_on(self, conn):
        scan(conn, "2024-01-31 03:00")
        scan(conn, "2024-02-10 03:00", source="storage", entities=("images",))
        both = read_months(conn, [DECLARED, Declared("storage", ("images",), 2.0)], {})
        assert [(f"{each.month:%m}", each.source) for each in both[-5:]] == [
            ("03", SOURCE),
            ("03", "storage"),
            ("02", SOURCE),
            ("02", "storage"),
            ("01", SOURCE),
        ]

    def test_a_month_that_ends_with_the_first_scan_is_not_the_sources(self, conn):
        scan(conn, "2024-01-31 03:00")
        scan(conn, "2024-02-29 23:59:59", source="tekmetric", entities=("jobs",))
        scan(conn, "2024-03-01 00:00", source="storage", entities=("images",))
        declared = [DECLARED, *(Declared(name, ("a",), 2.0) for name in ("storage", "tekmetric"))]
        of_february = [each.source for each in read_months(conn, declared, {}) if each.month == date(2024, 2, 1)]
        assert of_february == [SOURCE, "tekmetric"]

    def test_only_the_last_twelve_months_are_told(self, conn, monkeypatch):
        monkeypatch.undo()
        scan(conn, "2024-01-31 03:00")
        found, now = list(months(conn)), datetime.now(UTC)
        assert len(found) == 12
        assert found[::11] == [f"{now:%Y-%m}", f"{(now.replace(day=1) - timedelta(days=330)):%Y-%m}"]

    def test_a_run_over_midnight_is_one_night(self, conn):
        run = scan(conn, "2024-03-02 23:50", "warn")
        scan(conn, "2024-03-03 00:10", run=run)
        found = months(conn)["2024-03"].nights
        # Of these nights, the first has the run; the second has no scan of its own.
        assert (found.passed, found.warned, found.proven, found.no_scan) == (0, 1, 1, 29)

    def test_a_run_over_the_end_of_a_month_belongs_to_the_first(self, conn, monkeypatch):
        now = datetime.now(UTC)
        begin = now.replace(day=1, hour=0, minute=0)
        run = scan(conn, f"{begin - timedelta(minutes=10):%Y-%m-%d %H:%M}", entities=("orders",))
        scan(conn, f"{begin:%Y-%m-%d %H:%M}", run=run, entities=("payments",))
        # Also where only the second is told.
        monkeypatch.setattr(queries, "MOST", 1)
        (this,) = months(conn).values()
        assert (this.nights.passed, this.nights.proven, this.nights.no_scan) == (0, 0, now.day - 1)


# What differs from a run that is confirmed: its scans, then what followed. A repair is that of a plan of 3 rows.
PLANNED = {"plan": (1, 1, 1)}
REPAIRED = {"run": "tonight", "inserted": 3, "checks": open_changes(0)}


class TestProven:
    """The SQL says what `outcome` says of the same run."""

    @pytest.mark.parametrize(
        ("figures", "followed", "proven"),
        [
            ({}, None, True),
            ({"verdict": "warn"}, None, True),
            ({"verdict": None}, None, False),
            ({"verdict": "hold"}, None, False),
            ({"entities": ("orders",)}, None, False),
            ({"account": None}, None, False),
            ({"account": Account(live=10, equal=9, unproven=1)}, None, False),
            ({"account": Account(live=10, equal=10, missing=1, missing_unproven=1)}, None, False),
            ({"account": Account(live=10, equal=10, unseen=1)}, None, False),
            ({"account": Account(live=10, equal=9, differing=1)}, None, True),
            ({"incomplete": "a page stayed unread"}, None, False),
            ({"rescanned": True}, None, False),
            (PLANNED, None, False),
            (PLANNED, REPAIRED, True),
            (PLANNED, {**REPAIRED, "run": "another run"}, False),
            (PLANNED, {**REPAIRED, "error": "the vendor is down"}, False),
            (PLANNED, {**REPAIRED, "checks": None}, False),
            (PLANNED, {**REPAIRED, "checks": open_changes(1)}, False),
            (PLANNED, {**REPAIRED, "checks": open_changes(0, ("orders",))}, False),
            (PLANNED, {**REPAIRED, "superseded": 1}, False),
            (PLANNED, {**REPAIRED, "failed": 1}, False),
        ],
    )
    def test_is_a_night_whose_run_was_confirmed(self, conn, figures, followed, proven):
        scan(conn, "2024-03-02 03:00", **{"run": "tonight", "verdict": "pass"} | figures)
        if followed:
            sync(conn, "repair", "2024-03-02 03:10", **followed)
        assert self.proven(conn) == proven
        assert self.confirmed(conn) == proven

    @pytest.mark.parametrize("decision", ["resume", "keep", "repair"])
    def test_of_a_held_night_it_is_for_the_answer_to_say(self, conn, decision):
        run = scan(conn, "2024-03-31 03:00", "hold", run="tonight", **PLANNED)
        answer(conn, run, "2024-03-31 03:10", "2024-04-01 09:00", decision)
        sync(conn, "repair", "2024-04-01 09:01", **REPAIRED)
        found = months(conn)["2024-03"]
        assert (found.nights.held, found.nights.proven) == (1, int(decision == "repair"))
        # What outcome says of a writer that is kept stopped is tested by the fence, below.
        assert decision == "keep" or self.confirmed(conn) == (decision == "repair")

    def test_is_not_a_run_whose_repair_was_rolled_back(self, conn):
        scan(conn, "2024-03-02 03:00", run="tonight", **PLANNED)
        repair = sync(conn, "repair", "2024-03-02 03:10", **REPAIRED)
        assert self.proven(conn)
        sync(conn, "rollback", "2024-03-05 03:10", undoes=repair)
        assert not self.proven(conn)
        assert not self.confirmed(conn)

    @pytest.mark.parametrize("error", [None, "the vendor is down"])
    def test_of_a_run_that_planned_nothing_it_is_for_its_repair_to_say_even_if_it_was_rolled_back(self, conn, error):
        scan(conn, "2024-03-02 03:00", run="tonight")
        repair = sync(conn, "repair", "2024-03-02 03:10", run="tonight", error=error)
        sync(conn, "rollback", "2024-03-05 03:10", undoes=repair)
        assert self.proven(conn) == (not error)
        assert self.confirmed(conn) == (not error)

    @pytest.mark.parametrize("entity", DECLARED.entities)
    def test_is_not_a_run_whose_repair_came_before_its_first_scan(self, conn, entity):
        sync(conn, "repair", "2024-03-02 03:10", **REPAIRED)
        for each in DECLARED.entities:
            scan(conn, f"2024-03-02 03:{20 if each == entity else 30}", run="tonight", entities=(each,), **PLANNED)
        assert not self.proven(conn)
        assert not self.confirmed(conn)

    @pytest.mark.parametrize(("answered", "proven"), [("03:25", False), ("03:35", True)])
    def test_is_a_run_whose_answer_came_after_its_last_scan(self, conn, answered, proven):
        for minute, entity in zip((20, 30), DECLARED.entities, strict=True):
            scan(conn, f"2024-03-02 03:{minute}", "hold", run="tonight", entities=(entity,))
        answer(conn, "tonight", "2024-03-02 03:21", f"2024-03-02 {answered}", "repair")
        assert self.proven(conn) == proven

    def test_is_not_a_run_that_has_left_out_a_plan(self, conn):
        scan(conn, "2024-03-02 03:00", run="tonight", **PLANNED)
        sync(conn, "repair", "2024-03-02 03:10", **REPAIRED)
        conn.execute("UPDATE confidence.forensic_run SET left_out = true WHERE entity = 'orders'")
        assert not self.proven(conn)
        assert not self.confirmed(conn)

    def test_is_not_a_run_of_two_stops(self, conn):
        scan(conn, "2024-03-02 03:00", run="tonight", epoch=1)
        scan(conn, "2024-03-02 04:00", run="tonight", entities=("orders",), epoch=2)
        assert not self.proven(conn)
        assert not self.confirmed(conn)

    def test_is_not_a_run_after_which_rows_stayed_unproven(self, conn):
        scan(conn, "2024-03-02 03:00", metrics={"unproven": 1})
        assert not self.proven(conn)

    def test_is_not_a_part_unless_scheduled_runs_scan_it_too(self, conn):
        scan(conn, "2024-03-02 03:00", run="by hand", scope="pages 1-2")
        assert not self.proven(conn)
        scan(conn, "2024-03-03 03:00", "warn", scope="pages 1-2")
        assert months(conn)["2024-03"].nights.proven == 2

    @pytest.mark.parametrize(
        ("ended", "later", "proven"), [(None, "", False), ("04:00", "next", False), ("04:00", "", True)]
    )
    def test_is_not_a_run_that_has_left_the_writer_stopped(self, conn, ended, later, proven):
        scan(conn, "2024-03-02 03:00", run="tonight")
        stop(conn, "2024-03-02 02:50", ended and f"2024-03-02 {ended}", run="tonight")
        if later:
            stop(conn, f"2024-03-02 {ended}", "2024-03-02 05:00", run=later)
        assert self.proven(conn) == proven

    def test_is_a_run_that_has_scanned_again_after_its_repair(self, conn):
        sync(conn, "repair", "2024-03-02 03:10", **REPAIRED | {"superseded": 1})
        scan(conn, "2024-03-02 03:20", run="tonight")
        assert self.proven(conn)
        assert self.confirmed(conn)

    def test_is_not_changed_by_the_answer_to_a_later_run(self, conn):
        scan(conn, "2024-03-02 03:00", run="tonight")
        answer(conn, scan(conn, "2024-03-03 03:00", "hold"), "2024-03-03 04:00", "2024-03-03 05:00")
        assert self.proven(conn)
        assert self.confirmed(conn)

    def test_one_of_two_runs_of_a_night_is_enough(self, conn):
        scan(conn, "2024-03-02 03:00", run="dry", **PLANNED)
        scan(conn, "2024-03-02 09:00", run="after it")
        assert months(conn)["2024-03"].nights.proven == 1

    def test_is_not_known_where_the_log_may_have_lost_the_repair(self, conn):
        scan(conn, "2024-03-02 03:00")
        scan(conn, "2024-03-03 03:00", **PLANNED)
        assert months(conn)["2024-03"].nights.proven == 1
        log_reaches_back_to(conn, "2024-03-02 12:00")
        assert months(conn)["2024-03"].nights.proven == 1
        log_reaches_back_to(conn, "2024-04-01")
        assert months(conn)["2024-03"].nights.proven is None

    def proven(self, conn: Connection) -> bool:
        return months(conn)["2024-03"].nights.proven == 1

    def confirmed(self, conn: Connection) -> bool:
        """What `outcome` says of the run `tonight`, with the writer as that run had it."""
        evidence = run_evidence.read(conn, SOURCE, "tonight", DECLARED.entities)
        epoch = max(scan.epoch for scan in evidence.scans)
        held = evidence.verdict == Verdict.HOLD and not evidence.decision
        writer = fence.Writer(SOURCE, "stopped" if held else "running", epoch, "tonight", at("2024-03-02"), None)
        evidence = replace(evidence, writer=writer)
        return not outcome.gap(evidence, dry_run=False) and not outcome.not_confirmed(evidence)


class TestRows:
    def test_are_those_that_repairs_and_rollbacks_have_changed(self, conn):
        scan(conn, "2024-02-01 03:00"), scan(conn, "2024-03-01 03:00")
        sync(conn, "sync", "2024-03-02 03:00", inserted=1000)
        repair = sync(
            conn, "repair", "2024-02-29 23:59:59", "2024-03-01 00:01", inserted=1, updated=2, deleted=4, failed=8
        )
        sync(conn, "repair", "2024-03-01 00:00", updated=16)
        sync(conn, "rollback", "2024-03-04 10:00", undoes=repair, deleted=1, updated=2, inserted=4)
        found = months(conn)
        assert (found["2024-02"].rows_repaired, found["2024-02"].rows_rolled_back) == (7, 0)
        assert (found["2024-03"].rows_repaired, found["2024-03"].rows_rolled_back) == (16, 7)

    def test_of_a_lost_process_are_in_the_change_log(self, conn):
        scan(conn, "2024-03-01 03:00")
        lost = sync_log.begin(conn, SOURCE, "repair", "a run")
        conn.execute("UPDATE confidence.sync_log SET started_at = %s WHERE sync_id = %s", [at("2024-03-01"), lost])
        conn.execute(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation) SELECT %s, 't', %s, 'insert'"
            " FROM generate_series(1, 5)",
            [lost, Jsonb({"id": 1})],
        )
        sync_log.begin(conn, SOURCE, "repair", "the next")
        assert months(conn)["2024-03"].rows_repaired == 5

    def test_are_not_known_of_a_log_that_has_expired(self, conn):
        scan(conn, "2024-03-01 03:00")
        sync(conn, "repair", "2024-03-01 03:10", inserted=1)
        log_reaches_back_to(conn, "2024-03-02")
        found = months(conn)["2024-03"]
        assert (found.rows_repaired, found.rows_rolled_back, found.fresh_share) == (None, None, None)

    def test_are_known_of_a_log_that_reaches_back_to_the_first_run(self, conn):
        scan(conn, "2024-03-01 03:00")
        log_reaches_back_to(conn, "2024-03-01 02:00")
        assert months(conn)["2024-03"].rows_repaired == 0


class TestStoodStill:
    def test_is_not_known_where_stops_were_dropped(self, conn):
        scan(conn, "2024-03-01 03:00"), scan(conn, "2024-04-01 03:00")
        conn.execute(
            "UPDATE confidence.retention SET dropped_until = '2024-04-01Z' WHERE table_name = 'confidence.writer_stop'"
        )
        found = months(conn)
        assert found["2024-03"].stood_still is None
        assert found["2024-04"].stood_still is not None

    def test_months_before_dropped_scans_are_not_told(self, conn):
        scan(conn, "2024-03-01 03:00"), scan(conn, "2024-04-10 03:00")
        conn.execute(
            "UPDATE confidence.retention SET dropped_until = '2024-04-05Z' WHERE table_name = 'confidence.forensic_run'"
        )
        assert "2024-03" not in months(conn)
        assert months(conn)["2024-04"].nights.no_scan == 20

    def test_is_measured_by_what_it_was_for(self, conn):
        run = scan(conn, "2024-03-02 03:20")
        stop(conn, "2024-03-02 03:00", "2024-03-02 03:30", None, run)
        stop(conn, "2024-03-02 03:30", "2024-03-02 05:00", "too much", run)
        stop(conn, "2024-03-02 05:00", "2024-03-02 05:15", None, run)
        found = months(conn)["2024-03"].stood_still
        minutes = [found.scans / 60, found.held / 60, found.other / 60]
        assert (minutes, found.seconds, found.open, found.measured_since) == ([20, 90, 25], 135 * 60, False, None)

    def test_is_cut_at_the_end_of_the_month(self, conn):
        run = scan(conn, "2024-03-01 01:00")
        scan(conn, "2024-02-05 01:00")
        stop(conn, "2024-02-29 22:00", "2024-03-01 02:00", None, run)
        stop(conn, "2024-03-01 02:00", "2024-04-01 01:00", "too much", run)
        found = {month: each.stood_still for month, each in months(conn).items()}
        assert [found["2024-02"].scans, found["2024-02"].held, found["2024-02"].other] == [2 * HOUR, 0, 0]
        assert [found["2024-03"].scans, found["2024-03"].held, found["2024-03"].other] == [
            HOUR,
            31 * 24 * HOUR - 2 * HOUR,
            HOUR,
        ]

    def test_that_is_still_open_counts_until_now(self, conn):
        now = conn.execute("SELECT now()").fetchone()[0].astimezone(UTC)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        scan(conn, f"{month - timedelta(days=1):%Y-%m-%d} 00:00"), scan(conn, f"{month:%Y-%m-%d} 00:00")
        stop(conn, f"{month - timedelta(hours=2):%Y-%m-%d %H:%M}", None, "too much")
        this, last = (each.stood_still for each in months(conn).values())
        assert (this.open, this.held) == (True, (now - month).total_seconds())
        assert (last.open, last.held) == (False, 2 * HOUR)

    def test_is_not_known_from_before_it_was_kept(self, conn):
        scan(conn, "2024-02-05 03:00"), scan(conn, "2024-03-05 03:00")
        kept = at("2024-03-10 12:00")
        conn.execute("UPDATE confidence.writer SET stops_kept_since = %s", [kept])
        found = months(conn)
        assert found["2024-02"].stood_still is None
        assert found["2024-03"].stood_still.measured_since == kept
        conn.execute("UPDATE confidence.writer SET stops_kept_since = '2024-03-01 00:00Z'")
        found = months(conn)
        assert (found["2024-02"].stood_still, found["2024-03"].stood_still.measured_since) == (None, None)
        conn.execute("UPDATE confidence.writer SET stops_kept_since = '2024-02-05'")
        assert {each.stood_still.measured_since for each in months(conn).values()} == {None}

    def test_follows_the_fence(self, conn):
        scan(conn, "2024-03-01 03:00", "hold", run="tonight")
        fence.stop(conn, SOURCE, "tonight", 1)
        holds.refresh_hold(conn, SOURCE)
        fence.stop(conn, SOURCE, "tomorrow", 1)
        holds.decide(conn, SOURCE, "repair", "Ada")
        fence.resume(conn, SOURCE, "tomorrow")
        rows = conn.execute(
            "SELECT run, hold_reason IS NOT NULL FROM confidence.writer_stop ORDER BY began_at"
        ).fetchall()
        assert rows == [("tonight", False), ("tonight", True), ("tomorrow", True), ("tomorrow", False)]


class TestAnswers:
    def test_are_counted_in_the_month_of_the_question(self, conn):
        for day, asked, answered in (
            ("02-27", "2024-02-27 03:00", "2024-02-27 04:00"),
            ("02-28", "2024-02-28 03:00", "2024-02-28 06:00"),
            ("02-29", "2024-02-29 23:30", "2024-03-01 05:30"),
            ("03-02", "2024-03-02 03:00", None),
        ):
            answer(conn, scan(conn, f"2024-{day} 02:00", "hold"), asked, answered)
        found = {month: asdict(each.answers) for month, each in months(conn).items()}
        assert found["2024-02"] == {
            "asked": 3,
            "unanswered": 0,
            "median_seconds": 3 * HOUR,
            "longest_seconds": 6 * HOUR,
        }
        assert found["2024-03"] == {"asked": 1, "unanswered": 1, "median_seconds": None, "longest_seconds": None}

    def test_nobody_is_no_answer(self, conn):
        run = scan(conn, "2024-03-02 03:00", "hold")
        answer(conn, run, "2024-03-02 03:00", "2024-03-02 23:00", "keep", holds.NOBODY)
        found = months(conn)["2024-03"].answers
        assert (found.asked, found.unanswered, found.longest_seconds) == (1, 1, None)

    def test_a_question_that_is_asked_again_waits_since_it_was_first_asked(self, conn):
        scan(conn, "2024-03-02 03:00", "hold")
        holds.note_asked(conn, holds.open_holds(conn, SOURCE))
        conn.execute("UPDATE confidence.forensic_run SET asked_at = '2024-03-02 03:00Z'")
        holds.note_asked(conn, holds.open_holds(conn, SOURCE))
        assert conn.execute("SELECT DISTINCT asked_at FROM confidence.forensic_run").fetchall() == [
            (at("2024-03-02 03:00"),)
        ]

    def test_a_question_about_several_holds_is_asked_at_one_moment(self, conn):
        scan(conn, "2024-03-02 03:00", "hold")
        holds.note_asked(conn, holds.open_holds(conn, SOURCE))
        moments = conn.execute("SELECT count(asked_at), count(DISTINCT asked_at) FROM confidence.forensic_run")
        assert moments.fetchone() == (2, 1)

    def test_a_hold_that_was_reopened_is_a_question_more(self, conn):
        """After a failed repair the same hold is asked about again, and a new scan replaces the held one."""
        run = scan(conn, "2024-03-02 03:00", "hold")
        fence.stop(conn, SOURCE, run, 1)
        ask_and_answer(conn, run, "repair")
        (scan_id,) = conn.execute("SELECT scan_id FROM confidence.forensic_run LIMIT 1").fetchone()
        holds.mark_hold(conn, scan_id, "verify found more")
        ask_and_answer(conn, run, "keep")
        found = months(conn)[f"{datetime.now(UTC):%Y-%m}"].answers
        assert (found.asked, found.unanswered) == (2, 0)

    def test_a_month_without_questions_has_none(self, conn):
        scan(conn, "2024-03-02 03:00")
        assert asdict(months(conn)["2024-03"].answers) == {
            "asked": 0,
            "unanswered": 0,
            "median_seconds": None,
            "longest_seconds": None,
        }


class TestFresh:
    """Syncs every hour, so the limit is two hours after a sync has begun."""

    def hourly(self, conn: Connection, first: str, last: str) -> None:
        conn.execute(
            "INSERT INTO confidence.sync_log (source, kind, run, state, started_at, finished_at, state_before)"
            " SELECT %s, 'sync', 'square_sync/scheduled__' || d, 'success', d, d + interval '10 min', %s"
            " FROM generate_series(%s, %s, interval '1 hour') d",
            [SOURCE, Jsonb({"orders/": None}), at(first), at(last)],
        )

    def test_is_the_share_of_the_time_within_the_limit(self, conn):
        scan(conn, "2024-02-05 03:00"), scan(conn, "2024-03-05 03:00")
        self.hourly(conn, "2024-02-01 00:00", "2024-02-29 22:00")
        # Nothing from 22:00 on; stale from midnight until a sync has ended at 06:10 on the first, and on the 31st.
        self.hourly(conn, "2024-03-01 06:00", "2024-03-31 20:00")
        self.hourly(conn, "2024-04-01 05:00", "2024-04-02 00:00")
        found = months(conn)
        assert found["2024-02"].fresh_share == pytest.approx(1)
        stale = (6 * 60 + 10) + 2 * 60
        assert found["2024-03"].fresh_share == pytest.approx(1 - stale / (31 * 24 * 60))
        assert found["2024-03"].freshness_limit_seconds == 2 * HOUR

    def test_failed_syncs_make_nothing_fresh(self, conn):
        scan(conn, "2024-03-05 03:00")
        self.hourly(conn, "2024-03-01 00:00", "2024-03-31 23:00")
        conn.execute("UPDATE confidence.sync_log SET state = 'failed' WHERE started_at >= '2024-03-16 00:00Z'")
        # The last good one began at 23:00, so it is stale from 01:00 on.
        fresh = (15 * 24 + 1) * 60 - 10
        assert months(conn)["2024-03"].fresh_share == pytest.approx(fresh / (31 * 24 * 60 - 10))

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("run", "square_sync/manual__of_one_job"),
            ("reason", "shops of the connection"),
            ("reason", "snapshot"),
            ("state_before", Jsonb({})),
            ("state_before", Jsonb({f"parts/{sync_log.DRY}": None})),
        ],
        ids=["by hand", "shops", "snapshot", "no watermark moved", "dry"],
    )
    def test_syncs_that_are_not_of_the_whole_make_nothing_fresh(self, conn, column, value):
        scan(conn, "2024-03-05 03:00")
        self.hourly(conn, "2024-03-01 00:00", "2024-03-31 23:00")
        query = sql.SQL("UPDATE confidence.sync_log SET {} = %s WHERE started_at >= %s").format(sql.Identifier(column))
        conn.execute(query, [value, at("2024-03-16 00:00")])
        fresh = (15 * 24 + 1) * 60 - 10
        assert months(conn)["2024-03"].fresh_share == pytest.approx(fresh / (31 * 24 * 60 - 10))
        # As if there were no others: then it is not known when the whole was in step.
        conn.execute(query, [value, at("2024-03-01 00:00")])
        assert months(conn)["2024-03"].fresh_share is None

    def test_a_month_without_any_sync_is_stale(self, conn):
        scan(conn, "2024-03-05 03:00")
        self.hourly(conn, "2024-02-01 00:00", "2024-02-20 00:00")
        assert months(conn)["2024-03"].fresh_share == pytest.approx(0)

    def test_is_not_known_without_a_schedule_or_a_sync(self, conn):
        scan(conn, "2024-03-05 03:00")
        assert months(conn)["2024-03"].fresh_share is None
        sync(conn, "sync", "2024-03-05 03:00", run="square_sync/manual__1")
        found = months(conn)["2024-03"]
        assert (found.fresh_share, found.freshness_limit_seconds) == (None, None)


def test_months_are_dates(conn):
    scan(conn, "2024-03-05 03:00")
    *_, found = read_months(conn, [DECLARED], {})
    assert (found.source, found.month) == (SOURCE, date(2024, 3, 1))
