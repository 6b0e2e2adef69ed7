"""What the policy drops, and what it keeps because something still needs it."""

from uuid import uuid4

import psycopg
import pytest

from include.confidence import holds, judgements
from include.confidence.policy import GROWTH_RUNS
from include.confidence.summary import ForensicSummary
from include.sources.storage.repair import audit
from include.warehouse import fence, retention, sync_log
from include.warehouse.retention import RetentionFailed
from include.warehouse.staging import Stage
from tests.confidence.builders import HELD, judged
from tests.warehouse.shop import PARTS, SOURCE, count, day, expire_log, part, synced

# That of the builders' summaries.
SCANNED = "repairshopr"
SCANS = "confidence.forensic_run"


def age(conn: psycopg.Connection, table: str, column: str, days: int, where: str = "true") -> None:
    """Make these rows older."""
    conn.execute(f"UPDATE {table} SET {column} = {column} - make_interval(days => {days}) WHERE {where}")


def expired(conn: psycopg.Connection, table: str) -> int:
    return retention.expire(conn)[table]


def scans(conn: psycopg.Connection) -> set[str]:
    return {scan for (scan,) in conn.execute("SELECT scan_id FROM confidence.forensic_run")}


def history(conn: psycopg.Connection, good: int) -> list[ForensicSummary]:
    """So many good runs, one a day, the newest 500 days ago; oldest first."""
    found = [judged(conn, f"scan {number}") for number in range(good)]
    for number, scan in enumerate(found):
        age(conn, SCANS, "scanned_at", 500 + good - number, f"scan_id = '{scan.scan_id}'")
    return found


def test_every_row_of_the_policy_can_be_carried_out(conn):
    assert set(retention.expire(conn).values()) == {0}
    tables = {policy.table_name for policy in retention.policies(conn)}
    assert tables >= {SCANS, "confidence.sync_log", "flex.owned_line", "storage.breaker", "staging.pull"}


def test_a_row_that_names_what_is_not_there_fails_after_the_others_were_done(conn):
    conn.execute(
        "INSERT INTO confidence.retention (table_name, days, moment) VALUES ('a.missing', 30, 'at'),"
        " ('confidence.finding', 30, 'no_such_column')"
    )
    conn.execute("INSERT INTO storage.breaker (at, run, looked_at) VALUES (now() - interval '31 days', 'a run', 1)")
    with pytest.raises(RetentionFailed) as failure:
        retention.expire(conn)
    message = str(failure.value)
    assert message.startswith("2 rows of confidence.retention could not be applied: a.missing (UndefinedTable: ")
    assert 'confidence.finding (UndefinedColumn: column "no_such_column" does not exist)' in message
    assert count(conn, "storage.breaker") == 0


def test_days_are_those_of_the_source_or_else_of_all(conn):
    assert retention.days_kept(conn, "confidence.sync_log", "tekmetric") == 30
    assert retention.days_kept(conn, "confidence.sync_log", "square") == 400
    assert retention.days_kept(conn, "confidence.writer", "square") is None
    for source in ("tekmetric", "square"):
        sync_log.finish(conn, sync_log.begin(conn, source, "sync", "a run"), {})
    age(conn, "confidence.sync_log", "finished_at", 31)
    assert expired(conn, "confidence.sync_log") == 1
    assert conn.execute("SELECT source FROM confidence.sync_log").fetchall() == [("square",)]
    reached = "SELECT source FROM confidence.retention WHERE dropped_until < now() - interval '29 days'"
    assert conn.execute(reached).fetchall() == [("tekmetric",)]


def test_batches_are_small_and_each_is_committed(conn, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    old = "INSERT INTO storage.breaker (at, run, looked_at) SELECT now() - make_interval(days => n), 'a run', 1"
    conn.execute(f"{old} FROM generate_series(31, 35) n")
    (policy,) = [each for each in retention.policies(conn) if each.table_name == "storage.breaker"]
    batches = retention._drop(conn, policy)
    assert next(batches) == ("storage.breaker", 2)
    assert count(conn, "storage.breaker") == 3
    assert [rows for _, rows in batches] == [2, 1]


def test_rows_that_others_have_locked_are_left_and_not_waited_for(conn, warehouse):
    conn.execute("INSERT INTO storage.breaker (at, run, looked_at) VALUES (now() - interval '31 days', 'a run', 1)")
    with psycopg.connect(warehouse) as other:
        other.execute("SELECT FROM storage.breaker FOR KEY SHARE")
        assert expired(conn, "storage.breaker") == 0
    assert expired(conn, "storage.breaker") == 1


class TestSyncLog:
    def test_changes_go_with_their_sync_in_batches(self, conn, monkeypatch):
        monkeypatch.setattr(retention, "BATCH", 2)
        old = synced(conn, PARTS, [part(n) for n in range(5)], day(1))
        new = synced(conn, PARTS, [part(0, "new")], day(2))
        age(conn, "confidence.sync_log", "finished_at", 40, f"sync_id = {old.sync_id}")
        assert expire_log(conn, 30) == 1
        left = conn.execute("SELECT DISTINCT sync_id FROM confidence.change_log").fetchall()
        assert left == [(new.sync_id,)]

    def test_one_that_runs_or_is_rolled_back_now_stays(self, conn, warehouse):
        running = sync_log.begin(conn, SOURCE, "repair", "a run")
        undone = sync_log.begin(conn, SOURCE, "sync", "a run")
        sync_log.finish(conn, undone, {})
        age(conn, "confidence.sync_log", "finished_at", 40, f"sync_id = {undone}")
        with psycopg.connect(warehouse) as other:
            sync_log.begin(other, SOURCE, "rollback", "another run", undoes=undone)
            assert expire_log(conn, 30) == 0
        assert expire_log(conn, 30) == 0
        assert {running, undone} < {id_ for (id_,) in conn.execute("SELECT sync_id FROM confidence.sync_log")}

    def test_dropped_by_hand_is_remembered_too(self, conn):
        sync_id = sync_log.begin(conn, SOURCE, "sync", "a run")
        sync_log.finish(conn, sync_id, {})
        conn.execute("DELETE FROM confidence.sync_log")
        assert conn.execute("SELECT source FROM confidence.dropped_changes").fetchall() == [(SOURCE,)]


def test_mark_of_an_image_is_kept_until_it_is_healed(conn):
    def run(*statuses: str) -> int:
        sync_id = sync_log.begin(conn, "storage", "repair", "a run")
        before, after = ({"status": status, "updated_at": day(1).isoformat()} for status in statuses)
        audit(conn, sync_id, [("an image", before, after)])
        sync_log.finish(conn, sync_id, {})
        age(conn, "confidence.sync_log", "finished_at", 500, f"sync_id = {sync_id}")
        return sync_id

    marked = run("ready", "error")
    assert expired(conn, "confidence.sync_log") == 0
    healed = run("error", "ready")
    assert expired(conn, "confidence.sync_log") == 2, (marked, healed)


class TestScans:
    def test_baseline_is_kept_and_what_is_older_goes(self, conn):
        found = history(conn, GROWTH_RUNS + 3)
        assert expired(conn, SCANS) == 2
        assert scans(conn) == {scan.scan_id for scan in found[2:]}

    def test_judgement_reads_the_same_before_and_after(self, conn):
        history(conn, GROWTH_RUNS + 3)
        for number in (0, 1):
            conn.execute(
                "UPDATE confidence.forensic_run SET decision = 'resume', verdict = 'hold' WHERE scan_id = %s",
                [f"scan {number}"],
            )
        new = judged(conn, "tonight")
        before = judgements.past_runs(conn, new)
        assert expired(conn, SCANS) == 2
        assert judgements.past_runs(conn, new) == before
        assert "scan 1" in scans(conn)

    def test_open_hold_is_kept(self, conn):
        history(conn, GROWTH_RUNS)
        hold = judged(conn, "held", HELD)
        age(conn, SCANS, "scanned_at", 450, "scan_id = 'held'")
        assert expired(conn, SCANS) == 0
        assert [each.scan_id for each in holds.open_holds(conn, SCANNED)] == [hold.scan_id]

    def test_scans_of_the_run_that_stopped_the_writer_are_kept(self, conn):
        first = history(conn, GROWTH_RUNS + 2)[0]
        fence.stop(conn, SCANNED, first.run, timeout=10)
        assert expired(conn, SCANS) == 0
        conn.execute("UPDATE confidence.writer SET state = 'running'")
        assert expired(conn, SCANS) == 1

    def test_newest_scan_of_each_scope_is_kept(self, conn):
        judged(conn, "all")
        judged(conn, "part", scope="a part")
        age(conn, SCANS, "scanned_at", 500)
        assert expired(conn, SCANS) == 0


class TestPlans:
    @pytest.fixture(autouse=True)
    def plan(self, conn):
        """A plan of 31 days ago, of a scan that holds."""
        scan = judged(conn, "held", HELD, evidence="the evidence")
        conn.execute(
            "INSERT INTO confidence.planned_change (evidence, source, table_name, key, key_values, operation, status,"
            " looked, differs, planned_at) VALUES (%s, %s, 't', '{}', '{}', 'delete', 'confirmed', true, '{}',"
            " now() - interval '31 days')",
            [scan.evidence, SCANNED],
        )

    def test_is_kept_while_a_hold_waits(self, conn):
        fence.stop(conn, SCANNED, "a later run", timeout=10)
        assert expired(conn, "confidence.planned_change") == 0
        conn.execute("UPDATE confidence.forensic_run SET decision = 'resume'")
        assert expired(conn, "confidence.planned_change") == 1

    def test_goes_once_the_writer_runs(self, conn):
        assert expired(conn, "confidence.planned_change") == 1


class TestPulls:
    @pytest.fixture(autouse=True)
    def pull(self, conn):
        Stage.open(conn, PARTS, SOURCE, "scan", "a run")
        age(conn, "staging.pull", "updated_at", 15)

    def there(self, conn) -> bool:
        return conn.execute("SELECT to_regclass('staging.shop_parts_scan_plan') IS NOT NULL").fetchone()[0]

    def test_left_one_goes_with_its_tables_and_can_be_made_again(self, conn):
        assert expired(conn, "staging.pull") == 1
        assert not self.there(conn)
        Stage.open(conn, PARTS, SOURCE, "scan", "another run")
        assert self.there(conn)

    def test_is_kept_while_the_writer_is_stopped(self, conn):
        fence.stop(conn, SOURCE, "a run", timeout=10)
        assert expired(conn, "staging.pull") == 0
        assert self.there(conn)

    def test_is_kept_if_somebody_takes_it_up(self, conn, warehouse):
        with psycopg.connect(warehouse) as other:
            other.execute("SELECT pg_advisory_xact_lock(hashtextextended('staging.shop_parts_scan', 0))")
            assert expired(conn, "staging.pull") == 0
        assert self.there(conn)


def test_stop_that_goes_on_and_news_that_nobody_has_sent_are_kept(conn):
    conn.execute(
        "INSERT INTO confidence.writer_stop (source, began_at, ended_at) VALUES"
        " ('square', now() - interval '500 days', now() - interval '450 days'),"
        " ('square', now() - interval '450 days', NULL)"
    )
    conn.execute(
        "INSERT INTO confidence.notification (key, source, run, kind, title, text, noted_at, sent_at, ended_at) SELECT"
        " key, 'square', 'a run', 'watch', '', '', old, sent, ended FROM (SELECT now() - interval '500 days') o (old),"
        " LATERAL (VALUES ('a', NULL, NULL), ('b', old, NULL), ('c', old, old), ('watch/stands', old, NULL))"
        " n (key, sent, ended)"
    )
    conn.execute(
        "INSERT INTO confidence.finding (key, source, code, what, consequence, next_step)"
        " VALUES ('stands', 'square', 'code', '', '', '')"
    )
    dropped = retention.expire(conn)
    assert (dropped["confidence.writer_stop"], dropped["confidence.notification"]) == (1, 2)
    assert conn.execute("SELECT key FROM confidence.notification ORDER BY key").fetchall() == [
        ("a",),
        ("watch/stands",),
    ]


def test_refusal_of_the_breaker_stays_until_it_has_ended(conn):
    conn.execute(
        "INSERT INTO storage.breaker (at, run, looked_at, refused) VALUES (now() - interval '31 days', 'a', 1, 'mass')"
    )
    assert expired(conn, "storage.breaker") == 0
    conn.execute("UPDATE storage.breaker SET ended_at = now()")
    assert expired(conn, "storage.breaker") == 1


class TestFlex:
    def operation(self, conn, state: str) -> int:
        """A write of a sync of 500 days ago, which has made a line."""
        element, line = uuid4(), uuid4()
        sync_id = sync_log.begin(conn, "flex", "sync", "a run")
        sync_log.finish(conn, sync_id, {})
        conn.execute("INSERT INTO flex.element_gate (flex_element_id) VALUES (%s)", [element])
        settled = "NULL" if state == "sent" else "now() - interval '500 days'"
        conn.execute(
            "INSERT INTO flex.operation (sync_id, flex_element_id, kind, flex_line_item_id, flex_resource_id, state,"
            f" settled_at) VALUES (%s, %s, 'add', %s, %s, %s, {settled})",
            [sync_id, element, None if state == "sent" else line, uuid4(), state],
        )
        conn.execute(
            "INSERT INTO flex.owned_line (flex_line_item_id, flex_element_id, job_id, department, crew_call_id,"
            " technician_id, made_by, gone_at) SELECT %s, %s, u, '', u, u, %s, now() - interval '450 days'"
            " FROM gen_random_uuid() u",
            [line, element, sync_id],
        )
        age(conn, "confidence.sync_log", "finished_at", 500)
        return sync_id

    @pytest.mark.parametrize("state", ["sent", "unknown"])
    def test_write_whose_outcome_is_open_is_kept_with_its_sync(self, conn, state):
        self.operation(conn, state)
        assert expired(conn, "confidence.sync_log") == 0
        assert count(conn, "flex.operation") == 1

    def test_write_at_a_gate_is_kept(self, conn):
        self.operation(conn, "done")
        conn.execute(
            "UPDATE flex.element_gate SET state = 'uncertain', operation_id = (SELECT operation_id FROM flex.operation)"
        )
        assert expired(conn, "confidence.sync_log") == 0

    def test_line_that_is_there_is_kept_with_its_sync(self, conn):
        self.operation(conn, "done")
        conn.execute("UPDATE flex.owned_line SET gone_at = NULL")
        assert expired(conn, "confidence.sync_log") == 0
        assert count(conn, "flex.owned_line") == 1

    def test_line_is_kept_while_its_sync_can_be_rolled_back(self, conn):
        self.operation(conn, "done")
        conn.execute("UPDATE confidence.sync_log SET finished_at = now()")
        assert expired(conn, "flex.owned_line") == 0

    def test_what_is_settled_and_gone_goes(self, conn):
        self.operation(conn, "done")
        dropped = retention.expire(conn)
        assert (dropped["confidence.sync_log"], dropped["flex.owned_line"]) == (1, 1)
        assert count(conn, "flex.operation") == 0
