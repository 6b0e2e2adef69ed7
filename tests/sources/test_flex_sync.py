"""A sync of Flex: which crew calls it works at, what it settles, and what it says of itself."""

from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from include.api.errors import FixConfiguration
from include.sources.base import IntegrityFailed, SyncFailed
from include.sources.flex import sync as syncs

from .flex import ADD, LEAD, LINE, ROWS, Agency, Booked, assign, own, owned, person, put, without_key

PAST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def synced(agency: Agency) -> Agency:
    """After its first sync, of nothing."""
    agency.sync()
    return agency


def answered(result, name: str) -> list[str]:
    return list(result.result[name])


class TestElements:
    def test_first_sync_is_of_all_jobs_that_are_not_over(self, agency):
        now, over = agency.book(), agency.book(end_time=PAST)
        agency.settle()
        agency.sync()
        assert agency.touched() == {now.element}
        assert over.element not in agency.touched()
        assert agency.watermark()

    def test_then_those_whose_crew_changed_be_they_over_or_not(self, synced):
        quiet, changed, over = synced.book(), synced.book(), synced.book(end_time=PAST)
        synced.settle()
        synced.hire(changed), synced.hire(over)
        synced.sync()
        assert synced.touched() == {changed.element, over.element}
        assert quiet.element not in synced.touched()
        assert synced.control.counters().total("GET") == 8
        synced.sync()
        assert synced.control.counters().total("GET") == 8

    def test_full_is_of_all_jobs_that_are_not_over_and_of_those_that_changed(self, synced):
        quiet, over, changed = synced.book(), synced.book(end_time=PAST), synced.book(end_time=PAST)
        synced.settle()
        synced.hire(changed)
        synced.sync("full")
        assert synced.touched() == {quiet.element, changed.element}
        assert over.element not in synced.touched()

    def test_named_job_is_synced_changed_or_not_over_or_not(self, synced):
        named, changed = synced.book(end_time=PAST), synced.book()
        synced.settle()
        synced.hire(changed)
        synced.sync(job_id=str(named.job))
        assert synced.touched() == {named.element}
        assert synced.waiting() == {changed.job}

    def test_departments(self, synced):
        sound = synced.book()
        lights = synced.book("lights", job=sound.job)
        synced.sync(departments=["lights"])
        assert synced.touched() == {lights.element}
        assert synced.waiting() == {sound.job}
        synced.sync()
        assert (synced.touched(), synced.waiting()) == ({sound.element, lights.element}, set())

    def test_several_calls_on_one_element_are_one_piece_of_work(self, synced):
        one = synced.book()
        other = synced.book(element=one.element)
        (ann, first), (bob, second) = synced.hire(one), synced.hire(other)
        done = synced.sync()
        assert done.result["elements"] == 1
        assert {*synced.crew(one)} == {first, second}
        assert ({*synced.rows(one)}, {*synced.rows(other)}) == ({ann}, {bob})
        assert synced.waiting() == set()
        assert [(row["job_id"], row["added_count"]) for row in sorted(synced.log(), key=lambda row: row["job_id"])] == [
            (job, 1) for job in sorted((one.job, other.job))
        ]

    def test_deleted_job_is_taken_out_of_flex(self, synced):
        booked = synced.book()
        synced.hire(booked)
        synced.sync()
        synced.conn.execute("DELETE FROM flex.jobs")
        done = synced.sync()
        assert (synced.crew(booked), owned(synced.conn, booked.element), synced.waiting()) == ({}, set(), set())
        assert (done.result["removed"], done.result["orphans_pruned"]) == (1, 1)
        last = synced.log()[-1]
        assert (last["job_id"], last["department"], last["removed_count"]) == (booked.job, "sound", 1)

    def test_call_that_points_elsewhere_now_leaves_nothing_behind(self, synced):
        booked = synced.book()
        _, resource = synced.hire(booked)
        synced.sync()
        other = synced.control.create_element()
        synced.conn.execute("UPDATE flex.flex_crew_calls SET flex_element_id = %s", [other])
        synced.sync()
        assert synced.crew(booked) == {}
        assert [line.resource_id for line in synced.control.lines(other) if line.kind == "contact"] == [resource]
        assert synced.waiting() == set()

    def test_element_that_is_gone_from_flex_counts_as_left_once_no_call_names_it(self, synced):
        booked = synced.book()
        _, resource = synced.hire(booked)
        synced.sync()
        (line,) = synced.crew(booked).values()
        for path in (f"line-item/{booked.element}/row-data", f"line-item/{booked.element}", f"line-item/{line.id}"):
            synced.fault("status", path, "GET", status=404, times=None)
        with pytest.raises(SyncFailed, match="could not be read"):
            synced.sync("full")
        # It is not in step, and its line is gone all the same, by each address.
        assert (owned(synced.conn, booked.element), synced.waiting()) == (set(), {booked.job})
        other = synced.control.create_element()
        synced.conn.execute("UPDATE flex.flex_crew_calls SET flex_element_id = %s", [other])
        done = synced.sync()
        assert (done.result["added"], done.result["removed"]) == (1, 0)
        assert [line.resource_id for line in synced.control.lines(other) if line.kind == "contact"] == [resource]
        assert (owned(synced.conn, booked.element), synced.waiting()) == (set(), set())

    def test_job_without_a_crew_call_is_settled_and_told(self, synced):
        job = put(synced.conn, "jobs")
        put(synced.conn, "job_assignments", job_id=job, technician_id=person(synced.conn, None), sound_role="FOH-T")
        assert synced.waiting() == {job}
        done = synced.sync()
        assert (answered(done, "no_crew_call_mapping"), done.result["ok"]) == ([str(job)], True)
        assert (synced.waiting(), synced.touched()) == (set(), set())

    def test_job_without_a_crew_call_is_told_whatever_else_was_asked_for(self, synced):
        booked, job = synced.book(), put(synced.conn, "jobs")
        put(synced.conn, "job_assignments", job_id=job, technician_id=person(synced.conn, None), sound_role="FOH-T")
        done = synced.sync(job_id=str(booked.job))
        assert (answered(done, "no_crew_call_mapping"), synced.waiting()) == ([str(job)], set())

    def test_named_job_without_a_crew_call_is_told(self, synced):
        job = uuid4()
        assert answered(synced.sync(job_id=str(job)), "no_crew_call_mapping") == [str(job)]

    def test_several_at_a_time_but_one_at_each(self, synced):
        synced.workers = 4
        booked = [synced.book() for _ in range(6)]
        for each in booked:
            synced.hire(each), synced.hire(each)
        synced.control.set(latency_ms=20)
        synced.sync()
        asked = synced.control.counters()
        assert 1 < asked.max_concurrent <= 4
        assert {*asked.max_concurrent_by_element.values()} == {1}
        assert {len(synced.crew(each)) for each in booked} == {2}


class TestSettled:
    def test_change_that_commits_meanwhile_stays(self, synced, monkeypatch):
        """Also if it began, and so has its number, before those that the sync has read."""
        booked, later = synced.book(), synced.book()
        synced.settle()
        with psycopg.connect(synced.url) as slow:
            assign(slow, later.call, person(synced.conn, uuid4()))
            synced.hire(booked)
            read = syncs.waiting

            def waiting(conn):
                found = read(conn)
                slow.commit()
                return found

            monkeypatch.setattr(syncs, "waiting", waiting)
            synced.sync()
        monkeypatch.undo()
        assert (synced.waiting(), synced.touched()) == ({later.job}, {booked.element})
        synced.sync()
        assert (synced.waiting(), len(synced.crew(later))) == (set(), 1)

    def test_change_of_the_same_job_while_it_is_synced_stays(self, synced):
        booked = synced.book()
        synced.hire(booked)
        (before,) = synced.conn.execute("SELECT max(change_id) FROM flex.job_change").fetchone()
        log = syncs.record.log

        def meanwhile(*arguments):
            log(*arguments)
            synced.hire(booked)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(syncs.record, "log", meanwhile)
            synced.sync()
        left = synced.conn.execute("SELECT job_id FROM flex.job_change WHERE change_id > %s", [before]).fetchall()
        assert left == synced.conn.execute("SELECT job_id FROM flex.job_change").fetchall() == [(booked.job,)]
        synced.sync()
        assert len(synced.crew(booked)) == 2

    def test_job_stays_that_failed_with_one_of_its_crew_calls(self, synced):
        sound, other = synced.book(), synced.book()
        lights = synced.book("lights", job=sound.job)
        for booked in (sound, lights, other):
            synced.hire(booked)
        before = synced.watermark()
        synced.fault("status", f"line-item/{lights.element}/row-data", status=500)
        with pytest.raises(SyncFailed, match=f"1 of 3 crew calls are not in step: element {lights.element}"):
            synced.sync()
        assert (synced.waiting(), synced.watermark()) == ({sound.job}, before)
        assert (len(synced.crew(sound)), len(synced.crew(other)), synced.crew(lights)) == (1, 1, {})
        synced.sync()
        assert (synced.waiting(), len(synced.crew(lights))) == (set(), 1)
        assert synced.watermark() > before

    def test_crew_call_that_failed_without_a_change_has_its_turn_again(self, synced):
        booked = synced.book()
        _, resource = synced.hire(booked)
        synced.sync()
        synced.by_hand("delete", booked, resource)
        synced.fault("status", ROWS, status=503)
        with pytest.raises(SyncFailed, match="The next sync tries them again"):
            synced.sync("full")
        assert synced.waiting() == {booked.job}
        synced.sync()
        assert ({*synced.crew(booked)}, synced.waiting()) == ({resource}, set())

    def test_watermark_is_when_the_changes_were_read(self, agency):
        agency.book()
        (before,) = agency.conn.execute("SELECT clock_timestamp()").fetchone()
        agency.sync()
        assert before < agency.watermark() < before + timedelta(seconds=30)
        first = agency.watermark()
        agency.sync()
        assert agency.watermark() > first

    def test_first_sync_that_leaves_something_does_not_read_everything_again(self, agency):
        """A stranger with two lines waits for people, maybe for days; the quota is for all."""
        in_step, refused = [agency.book() for _ in range(3)], agency.book()
        stranger = uuid4()
        second = [agency.by_hand("add", refused, stranger) for _ in range(2)][1]
        for _ in range(2):
            agency.control.reset_counters()
            with pytest.raises(SyncFailed, match="1 of"):
                agency.sync()
        assert (agency.control.counters().total("GET"), agency.watermark()) == (1, None)
        agency.hire(in_step[0])
        agency.by_hand("delete", refused, line=second)
        sync_id = agency.sync().sync_id
        assert (len(agency.crew(in_step[0])), agency.watermark() is None) == (1, False)
        agency.roll_back(sync_id)
        # It makes no difference if the rollback was killed before its end.
        agency.conn.execute(
            "UPDATE confidence.sync_log SET state = 'running', finished_at = NULL WHERE kind = 'rollback'"
        )
        agency.control.reset_counters()
        agency.sync()
        assert agency.control.counters().total("GET") >= 4

    @pytest.mark.parametrize("part", ["job_id", "departments", "release_element"])
    def test_first_watermark_is_of_a_sync_of_everything(self, agency, part):
        """Where the application's tables were there before us no change tells of what they held."""
        one, other = agency.book(), agency.book("lights")
        agency.hire(one), agency.hire(other)
        if part == "release_element":
            agency.fault("drop", ADD)
            with pytest.raises(SyncFailed):
                agency.sync(job_id=str(one.job))
        agency.settle()
        named = {"job_id": str(one.job), "departments": ["sound"], "release_element": str(one.element)}
        agency.sync(**{part: named[part]})
        assert (agency.watermark(), len(agency.crew(one)), agency.crew(other)) == (None, 1, {})
        agency.sync()
        assert agency.watermark()
        assert len(agency.crew(other)) == 1


class TestLog:
    def test_counts_what_happened(self, synced):
        booked = synced.book()
        (ann, _), (bob, kept) = synced.hire(booked), synced.hire(booked, "FOH-E")
        synced.sync()
        synced.fire(ann)
        synced.recast(bob, "FOH-R")
        synced.hire(booked), synced.hire(booked)
        synced.by_hand("add", booked)
        done = synced.sync()
        *_, row = synced.log()
        counts = [row[name] for name in ("added_count", "removed_count", "kept_count", "failed_count")]
        assert counts == [2, 1, 1, 0]
        assert (row["job_id"], row["department"], row["triggered_by"]) == (booked.job, "sound", None)
        assert 0 < row["duration_ms"] < 20_000
        summary = row["summary"]
        told = {name: summary[name] for name in ("state", "rolesSet", "failedAdds", "stale", "adopted", "sync_id")}
        assert told == {"state": "done", "rolesSet": 3, "failedAdds": 0, "stale": 0, "adopted": 0} | {
            "sync_id": done.sync_id
        }
        assert (summary["desired_count"], summary["planned_delete_count"], summary["unknown_in_flex"]) == (3, 1, 1)
        assert (summary["orphans"], summary["errors"]) == ({"pruned": 0, "failed": 0}, [])
        assert synced.crew(booked)[kept].role_id == LEAD
        count = done.counts["crew"]
        assert (count.inserted, count.updated, count.deleted, count.unchanged, count.failed) == (2, 1, 1, 1, 0)
        entry = synced.synced()
        assert (entry["state"], entry["rows_inserted"], entry["requests"]) == ("success", 2, 11)
        assert summary["run"] == synced.name

    def test_names_who_asked_for_it(self, synced):
        booked = synced.book()
        who, _ = synced.hire(booked)
        synced.sync(triggered_by=str(who))
        assert [row["triggered_by"] for row in synced.log()] == [who]

    def test_result(self, synced):
        booked = synced.book()
        synced.hire(booked, "FOH")
        result = synced.sync().result
        assert result["diagnostics"] == ["sound: business role skipped, code 'FOH' has none of -R, -E, -T"]
        assert {name: result[name] for name in result.keys() - {"diagnostics"}} == {
            **{"ok": True, "elements": 1, "added": 1, "removed": 0, "kept": 0, "rolesSet": 0, "failedAdds": 0},
            **{"orphans_pruned": 0, "orphans_failed": 0, "errors": [], "no_crew_call_mapping": []},
        }

    def test_refused_add_fails_the_sync_and_is_no_add(self, synced):
        booked = synced.book()
        synced.hire(booked), synced.hire(booked)
        synced.fault("status", ADD, status=422)
        with pytest.raises(SyncFailed, match="answered 422, nothing happened"):
            synced.sync()
        [row] = synced.log()
        assert (row["added_count"], row["failed_count"], row["summary"]["failedAdds"]) == (1, 1, 1)
        assert row["summary"]["state"] == "failed"
        entry = synced.synced()
        assert (entry["state"], entry["rows_inserted"], entry["rows_failed"]) == ("failed", 1, 1)
        assert synced.waiting() == {booked.job}

    def test_failed_prune_does_not_fail_the_sync(self, synced):
        booked = synced.book()
        line_id = synced.by_hand("add", booked, resource := uuid4())
        own(synced.conn, booked.element, line_id, resource)
        synced.fault("status", LINE, "DELETE", status=409)
        result = synced.sync().result
        assert (result["ok"], result["orphans_failed"], result["orphans_pruned"], result["removed"]) == (True, 1, 0, 0)
        [row] = synced.log()
        assert (row["removed_count"], row["failed_count"]) == (0, 0)
        assert row["summary"]["orphans"] == {"pruned": 0, "failed": 1}
        assert (synced.synced()["rows_failed"], synced.synced()["rows_deleted"]) == (0, 0)
        assert synced.waiting() == set()

    @pytest.mark.parametrize(("setting", "left"), [("false", 1), (" FALSE ", 1), ("0", 1), ("true", 0), ("", 0)])
    def test_prune_setting(self, synced, setting, left):
        synced.variables["FLEX_SYNC_PRUNE_ORPHANS"] = setting
        booked = synced.book()
        line_id = synced.by_hand("add", booked, resource := uuid4())
        own(synced.conn, booked.element, line_id, resource)
        synced.sync()
        assert (len(synced.crew(booked)), synced.synced()["rows_deleted"]) == (left, 1 - left)

    def test_gate_that_is_closed_is_a_failure_of_the_job(self, synced):
        booked = synced.book()
        synced.hire(booked)
        synced.fault("drop", ADD)
        for _ in range(2):
            with pytest.raises(SyncFailed):
                synced.sync()
        assert [row["summary"]["state"] for row in synced.log()] == ["uncertain", "uncertain"]
        assert {row["job_id"] for row in synced.log()} == {booked.job}


class TestUnproven:
    def remembered(self, agency: Agency) -> list[tuple]:
        query = "SELECT entity, key, nights, why FROM confidence.unproven WHERE source = 'flex'"
        return agency.conn.execute(query).fetchall()

    def test_crew_call_is_remembered_named_and_tried_again_until_it_is_proven(self, synced):
        booked = synced.book()
        ann, resource = synced.hire(booked)
        synced.sync()
        before = synced.rows(booked)
        synced.recast(ann, "FOH-R")
        synced.fault("empty", ROWS, times=2)
        for _ in range(2):
            with pytest.raises(SyncFailed, match=f"element {booked.element} could not be read: .*disagree"):
                synced.sync()
            [(entity, key, nights, why)] = self.remembered(synced)
            assert (entity, key, nights) == ("flex_crew_calls", [str(booked.element)], 0)
            assert "disagree" in why
            assert (synced.rows(booked), synced.waiting()) == (before, {booked.job})
        synced.sync()
        assert (self.remembered(synced), synced.crew(booked)[resource].role_id) == ([], LEAD)
        assert {*synced.control.counters().adds[booked.element].values()} == {1}

    @pytest.mark.drill("answer-lost")
    def test_crew_call_in_doubt_is_remembered_until_it_is_released(self, synced):
        booked = synced.book()
        synced.hire(booked)
        synced.fault("drop", ADD)
        with pytest.raises(SyncFailed):
            synced.sync()
        assert [key for _, key, _, _ in self.remembered(synced)] == [[str(booked.element)]]
        synced.sync(release_element=str(booked.element))
        assert self.remembered(synced) == []

    def test_rows_that_a_scan_could_not_prove_are_forgotten_once_both_lists_are_read(self, synced):
        """The rows alone, with which a sync is content if there is nothing to do, prove less than the scan asks for."""
        booked = synced.book()
        synced.hire(booked)
        synced.sync()
        synced.fault("empty", ROWS)
        synced.scan()
        assert len(self.remembered(synced)) == 3
        synced.resume()
        synced.sync("full")
        assert len(self.remembered(synced)) == 3
        synced.hire(booked)
        synced.sync()
        assert self.remembered(synced) == []

    def test_lists_that_contradict_each_other_each_night_are_told_though_syncs_are_content(self, synced):
        booked = synced.book()
        _, resource = synced.hire(booked)
        synced.sync()
        overdue = []
        for night in range(2):
            synced.name = f"flex_reconcile/{night}"
            line_id = synced.crew(booked)[resource].id
            synced.fault("short", f"line-item/{booked.element}", "GET", line=line_id, times=None)
            overdue.append(synced.scan().metrics["unproven_overdue"])
            synced.resume()
            synced.sync("full")
        assert overdue == [0, 3]

    def aged(self, agency: Agency, change: str, tried: str) -> None:
        """The crew has changed so long ago, and the last try was so long ago; it was in step days before."""
        agency.conn.execute("UPDATE flex.job_change SET changed_at = now() - %s::interval", [change])
        agency.conn.execute(
            "UPDATE flex.flex_sync_log SET created_at = now() - CASE summary ->> 'state' WHEN 'done' THEN '10 days'"
            " ELSE %s END::interval",
            [tried],
        )

    def requests(self, agency: Agency, **params) -> int:
        agency.control.reset_counters()
        with pytest.raises(SyncFailed, match="not in step"):
            agency.sync(**params)
        return agency.control.counters().total("GET")

    def test_crew_call_without_an_answer_is_asked_for_each_time(self, synced):
        """So that an outage is over with the first sync after it."""
        booked = synced.book()
        synced.hire(booked)
        synced.fault("status", ROWS, times=None, status=503)
        assert self.requests(synced) == 1
        self.aged(synced, "8 hours", "30 minutes")
        assert self.requests(synced) == 1

    @pytest.mark.parametrize("left", ["a line was moved", "a contact is not accepted"])
    def test_crew_call_that_waits_for_people_is_asked_for_once_an_hour(self, synced, left):
        """The quota is for all."""
        booked, other = synced.book(), synced.book()
        synced.hire(booked)
        synced.sync()
        line_id, *_ = synced.rows(booked).values()
        synced.hire(booked), synced.hire(other)
        if left == "a line was moved":
            for path in (f"line-item/{booked.element}/row-data", f"line-item/{booked.element}"):
                synced.fault("short", path, "GET", line=line_id, times=None)
        else:
            synced.fault("status", f"line-item/{booked.element}/add-resource/*", "POST", times=None, status=400)
        assert self.requests(synced) > 3
        assert self.requests(synced) >= 3
        self.aged(synced, "8 hours", "30 minutes")
        assert (self.requests(synced), synced.waiting(), len(synced.crew(other))) == (0, {booked.job}, 1)
        self.aged(synced, "9 days", "61 minutes")
        assert self.requests(synced) >= 3
        self.aged(synced, "8 hours", "30 minutes")
        assert self.requests(synced, mode="full") > 3
        self.aged(synced, "8 hours", "30 minutes")
        synced.hire(booked)
        assert self.requests(synced) >= 3
        synced.control.clear()
        self.aged(synced, "8 hours", "30 minutes")
        synced.sync(job_id=str(booked.job))
        assert (self.remembered(synced), len(synced.crew(booked))) == ([], 3)

    def test_crew_call_is_asked_for_though_the_clock_was_ahead_when_it_was_tried_last(self, synced):
        """Else it would be left alone until the clock comes there again, whatever becomes of its crew."""
        booked = synced.book()
        synced.hire(booked)
        synced.fault("status", ADD, "POST", status=400)
        self.requests(synced)
        self.aged(synced, "8 hours", "-10 hours")
        synced.hire(booked)
        synced.sync()
        assert len(synced.crew(booked)) == 2

    def test_crew_call_that_came_in_step_meanwhile_is_not_told_as_left(self, synced):
        """Its job still has a change that waits, since the other crew call of the job is not in step."""
        lights = synced.book("lights")
        sound = synced.book("sound", job=lights.job)
        synced.hire(lights), synced.hire(sound)
        for crew_call in (lights, sound):
            synced.fault("status", f"line-item/{crew_call.element}/add-resource/*", "POST", times=None, status=400)
        self.requests(synced)
        self.aged(synced, "8 hours", "30 minutes")
        synced.control.clear()
        synced.fault("status", f"line-item/{sound.element}/add-resource/*", "POST", times=None, status=400)
        with pytest.raises(SyncFailed, match="1 of 2"):
            synced.sync(job_id=str(lights.job))
        with pytest.raises(SyncFailed, match="1 of 2") as failed:
            synced.sync()
        assert str(lights.element) not in str(failed.value)

    def test_line_whose_crew_call_is_no_longer_ours_is_asked_for_once_an_hour(self, synced):
        booked = synced.book()
        synced.hire(booked)
        synced.sync()
        synced.conn.execute("DELETE FROM flex.flex_crew_calls WHERE id = %s", [booked.call])
        synced.fault("status", f"line-item/{booked.element}/row-data", times=None, status=404)
        assert self.requests(synced) > 0
        self.aged(synced, "8 hours", "30 minutes")
        assert self.requests(synced) == 0
        self.aged(synced, "8 hours", "61 minutes")
        assert self.requests(synced) > 0

    def test_crew_call_that_was_in_step_lately_is_asked_for_again(self, synced):
        """Its job has waited for long, because of the other crew call of the job."""
        lights = synced.book("lights")
        sound = synced.book("sound", job=lights.job)
        synced.hire(lights)
        refused = ("status", f"line-item/{lights.element}/add-resource/*", "POST")
        synced.fault(*refused, times=None, status=400)
        self.requests(synced)
        self.aged(synced, "8 hours", "61 minutes")
        self.requests(synced)
        synced.fault("status", f"line-item/{sound.element}/row-data", times=None, status=404)
        with pytest.raises(SyncFailed, match=f"{sound.element} could not be read"):
            synced.sync()
        synced.control.clear()
        synced.fault(*refused, times=None, status=400)
        with pytest.raises(SyncFailed, match="1 of 2") as failed:
            synced.sync()
        assert str(sound.element) not in str(failed.value)


class TestTurns:
    def test_who_moves_to_another_crew_call_is_added_before_the_old_line_goes(self, synced):
        """Whichever comes first by its id: the one that people leave waits for the other."""
        for _ in range(3):
            booked = synced.book()
            synced.hire(booked)
            synced.sync()
            new = synced.control.create_element()
            synced.conn.execute(
                "UPDATE flex.flex_crew_calls SET flex_element_id = %s WHERE id = %s", [new, booked.call]
            )
            synced.sync()
            *_, added, deleted = [write for write in synced.control.journal() if write.op != "role"]
            assert (added.op, added.element_id, deleted.op, deleted.element_id) == (
                *("add", new),
                *("delete", booked.element),
            )

    @pytest.mark.parametrize("made_anew", [False, True])
    def test_who_could_not_be_added_elsewhere_stays(self, synced, made_anew):
        """The application may change the crew call, or delete it and make another one for the same job."""
        booked = synced.book()
        _, resource = synced.hire(booked)
        synced.sync()
        new = synced.control.create_element()
        if made_anew:
            synced.conn.execute("DELETE FROM flex.flex_crew_calls WHERE id = %s", [booked.call])
            synced.book(job=booked.job, element=new)
        else:
            moved = "UPDATE flex.flex_crew_calls SET flex_element_id = %s WHERE id = %s"
            synced.conn.execute(moved, [new, booked.call])
        synced.fault("status", ADD, status=422)
        with pytest.raises(SyncFailed, match=f"stays on element {booked.element}"):
            synced.sync()
        assert {*synced.crew(booked)} == {resource}
        synced.sync()
        assert synced.crew(booked) == {}
        assert [line.resource_id for line in synced.control.lines(new) if line.kind == "contact"] == [resource]

    def test_who_moves_with_a_line_that_was_made_for_another_call_has_the_new_one_first(self, synced):
        """Sound and lights shared a crew call; the line was made for sound, and lights moves."""
        sound = synced.book()
        lights = synced.book("lights", job=sound.job, element=sound.element)
        who, resource = synced.hire(sound)
        synced.sync()
        assign(synced.conn, lights.call, who, "LX")
        synced.conn.execute("UPDATE flex.job_assignments SET sound_role = NULL")
        synced.sync()
        new = synced.control.create_element()
        synced.conn.execute("UPDATE flex.flex_crew_calls SET flex_element_id = %s WHERE id = %s", [new, lights.call])
        synced.fault("status", ADD, status=422)
        with pytest.raises(SyncFailed, match=f"stays on element {sound.element}"):
            synced.sync()
        assert {*synced.crew(sound)} == {resource}
        synced.sync()
        assert synced.crew(sound) == {}
        assert [line.resource_id for line in synced.control.lines(new) if line.kind == "contact"] == [resource]

    def test_a_short_quota_reaches_every_crew_call_in_time(self, synced):
        """Those that were read longest ago come first; else the first ones would take all of it, every time."""
        booked = [synced.book() for _ in range(4)]
        synced.sync()
        for each in booked:
            synced.hire(each)
        for _ in range(4):
            synced.limiter = Spent(5)
            with suppress(SyncFailed):
                synced.sync("full")
        assert [len(synced.crew(each)) for each in booked] == [1] * 4


class TestFailures:
    def test_do_not_hold_up_the_others(self, synced):
        bad, good = synced.book(), [synced.book() for _ in range(3)]
        for booked in (bad, *good):
            synced.hire(booked)
        synced.fault("no_type", f"line-item/{bad.element}/row-data", times=None)
        with pytest.raises(SyncFailed, match=r"1 of 4 crew calls are not in step: .*no type"):
            synced.sync()
        assert [len(synced.crew(booked)) for booked in good] == [1, 1, 1]
        assert (synced.crew(bad), synced.waiting()) == ({}, {bad.job})

    def test_message_names_five(self, synced):
        for _ in range(6):
            synced.book()
        synced.fault("status", ROWS, times=None)
        with pytest.raises(SyncFailed) as failed:
            synced.sync()
        assert str(failed.value).count("could not be read") == 5
        assert "; and 1 more." in str(failed.value)

    @pytest.mark.drill("token-revoked", "right-lost")
    @pytest.mark.parametrize("status", [401, 403])
    @pytest.mark.parametrize(("path", "method", "nth"), [(ROWS, "GET", 3), (ADD, "POST", 2)])
    def test_missing_right_stops_everything(self, synced, status, path, method, nth):
        """A lost token at once, a right as soon as it is missing at several crew calls in a row."""
        for booked in [synced.book() for _ in range(6)]:
            synced.hire(booked)
        before = synced.watermark()
        synced.fault("status", path, method, status=status, nth=nth, times=None)
        with pytest.raises(FixConfiguration, match="connection 'flex'"):
            synced.sync()
        assert synced.control.counters().total(status=status) == {401: 1, 403: syncs.FORBIDDEN_IN_A_ROW}[status]
        # The one that was in step by then is settled, and the others are not lost.
        assert (len(synced.waiting()), synced.watermark()) == (5, before)
        entry = synced.synced()
        assert (entry["state"], entry["rows_inserted"], entry["source"]) == ("failed", 1, "flex")
        synced.control.clear()
        synced.sync()
        assert synced.waiting() == set()

    @pytest.mark.parametrize(("path", "method"), [("row-data", "GET"), ("add-resource/*", "POST")])
    def test_missing_right_to_some_crew_calls_keeps_the_others_from_nothing(self, synced, path, method):
        booked = [synced.book() for _ in range(6)]
        for each in booked:
            synced.hire(each)
        for each in booked[:2]:
            synced.fault("status", f"line-item/{each.element}/{path}", method, status=403, times=None)
        with pytest.raises(FixConfiguration, match=f"{booked[0].element}|{booked[1].element}"):
            synced.sync()
        assert [len(synced.crew(each)) for each in booked] == [0, 0, 1, 1, 1, 1]
        assert synced.waiting() == {each.job for each in booked[:2]}

    def gone(self, agency: Agency, *deleted: Booked) -> None:
        """Flex has deleted these crew calls."""
        for booked in deleted:
            lines = [line.id for line in agency.control.lines(booked.element)]
            for each in (booked.element, *lines, f"{booked.element}/row-data", f"{booked.element}/add-resource/*"):
                agency.fault("status", f"line-item/{each}", "*", status=404, times=None)

    def test_crew_calls_of_long_ago_that_flex_has_deleted_are_left_behind(self, synced):
        """Somebody's contact changes, and with it the crew of all the jobs that they ever had."""
        old, new = [synced.book(end_time="2020-02-02Z") for _ in range(3)], synced.book()
        who, _ = synced.hire(new)
        for booked in old:
            assign(synced.conn, booked.call, who)
        synced.sync()
        self.gone(synced, *old)
        changed = uuid4()
        synced.conn.execute("UPDATE flex.profiles SET flex_resource_id = %s WHERE id = %s", [changed, who])
        found = synced.sync().result
        assert len([note for note in found["diagnostics"] if "any more, and its jobs are over" in note]) == 3
        assert (synced.waiting(), {*synced.crew(new)}) == (set(), {changed})
        assert not any(owned(synced.conn, booked.element) for booked in old)

    def test_crew_call_that_flex_has_deleted_costs_little(self, synced):
        """Its job is to come, so a person has to see to it."""
        booked, other = synced.book(), synced.book()
        synced.hire(booked), synced.hire(booked), synced.hire(other)
        synced.sync()
        self.gone(synced, booked)
        synced.hire(booked)
        synced.pauses = (0.0, 0.0)
        asked = []
        for _ in range(2):
            synced.control.reset_counters()
            with pytest.raises(SyncFailed, match=f"Flex has no element {booked.element}"):
                synced.sync()
            asked.append(synced.control.counters().total("GET"))
        # Twice rows, record and both lines, and a line elsewhere; then rows and record.
        assert asked == [9, 2]

    def test_nothing_is_left_behind_for_a_token_of_another_account(self, synced):
        old, new = synced.book(end_time="2020-02-02Z"), synced.book()
        synced.hire(new)
        synced.sync()
        self.gone(synced, old, new)
        synced.hire(old)
        with pytest.raises(SyncFailed, match="none of 1 asked for on other crew calls either"):
            synced.sync()
        assert synced.waiting() == {old.job}

    def test_interrupted_begins_nothing_more(self, synced):
        for booked in [synced.book() for _ in range(5)]:
            synced.hire(booked)

        with synced.context() as context:
            work = syncs.carried_out(context, synced_elements(synced), *begun(synced))
            next(work)
            with pytest.raises(KeyboardInterrupt):
                work.throw(KeyboardInterrupt)
        # That which was underway comes to its end.
        assert len(synced.touched()) <= 2

    def test_failed_read_of_the_desired_crew_changes_nothing(self, synced, monkeypatch):
        booked = synced.book()
        synced.hire(booked)
        synced.sync()
        synced.hire(booked)
        before = (synced.crew(booked), synced.rows(booked))
        monkeypatch.setattr(syncs.element.desired, "DESIRED", syncs.element.desired.DESIRED + psycopg.sql.SQL(" oops"))
        with pytest.raises(psycopg.errors.SyntaxError):
            synced.sync()
        assert (synced.crew(booked), synced.rows(booked)) == before
        assert (synced.waiting(), synced.gates()) == ({booked.job}, {booked.element: "idle"})

    def test_failed_read_of_the_current_crew_changes_nothing(self, synced):
        booked = synced.book()
        ann, _ = synced.hire(booked)
        synced.sync()
        synced.fire(ann)
        synced.hire(booked)
        before = (synced.crew(booked), synced.rows(booked))
        synced.fault("status", ROWS, "GET", status=502, times=None)
        with pytest.raises(SyncFailed):
            synced.sync()
        assert (synced.crew(booked), synced.rows(booked)) == before

    def test_contact_deleted_in_flex_is_back_after_the_same_run(self, synced):
        booked = synced.book()
        ann, resource = synced.hire(booked)
        synced.sync()
        old = synced.rows(booked)[ann]
        synced.by_hand("delete", booked, resource)
        done = synced.sync(job_id=str(booked.job))
        assert {*synced.crew(booked)} == {resource}
        assert synced.rows(booked)[ann] == synced.crew(booked)[resource].id != old
        *_, row = synced.log()
        assert (row["added_count"], row["removed_count"], row["kept_count"], row["summary"]["stale"]) == (1, 0, 0, 1)
        assert (done.counts["crew"].inserted, done.counts["crew"].deleted) == (1, 0)

    def test_unique_key_that_is_missing_is_told_before_the_first_request(self, synced):
        booked = synced.book()
        synced.hire(booked)
        with without_key(synced), pytest.raises(IntegrityFailed, match=r"nothing was asked of Flex.*warehouse_migrate"):
            synced.sync()
        assert (synced.control.counters().total(), synced.crew(booked)) == (0, {})
        synced.sync()
        assert len(synced.crew(booked)) == 1

    def test_dry_run_is_refused(self, agency):
        with agency.context() as context, pytest.raises(SyncFailed, match="flex_reconcile"):
            agency.source.sync(context, {"mode": "full"}, dry_run=True)


def synced_elements(agency: Agency) -> list[UUID]:
    return [element for (element,) in agency.conn.execute("SELECT flex_element_id FROM flex.flex_crew_calls")]


def begun(agency: Agency) -> tuple:
    """A sync's id and its transactions."""
    return syncs.sync_log.begin(agency.conn, "flex", "sync", "flex_sync/test"), psycopg.Connection.transaction


class Spent:
    """A quota that lets so many requests out."""

    def __init__(self, requests: int):
        self.left = requests

    def acquire(self) -> str | None:
        self.left -= 1
        return "the quota is used up" if self.left < 0 else None

    def pause(self, seconds: float) -> None:
        """Nobody waits."""


class TestQuota:
    def test_spent_between_two_crew_calls(self, synced):
        first, second = sorted((synced.book(), synced.book()), key=lambda booked: booked.element)
        synced.hire(first), synced.hire(second)
        synced.limiter = Spent(4)
        with pytest.raises(SyncFailed, match=f"1 of 2 .*element {second.element}.*was not sent: the quota is used up"):
            synced.sync()
        assert (len(synced.crew(first)), synced.crew(second), synced.waiting()) == (1, {}, {second.job})
        synced.limiter = None
        synced.sync()
        assert (len(synced.crew(second)), synced.waiting()) == (1, set())

    @pytest.mark.drill("quota-used-up")
    @pytest.mark.parametrize("requests", range(1, 7))
    def test_spent_anywhere_harms_nobody(self, synced, requests):
        booked = synced.book()
        resources = {resource for _, resource in (synced.hire(booked), synced.hire(booked))}
        synced.limiter = Spent(requests)
        with pytest.raises(SyncFailed, match="quota") if requests < 6 else nullcontext():
            synced.sync()
        synced.limiter = None
        # What proves an add is read all the same.
        assert synced.gates()[booked.element] == "idle"
        synced.sync()
        assert {*synced.crew(booked)} == resources
        assert {*synced.control.counters().adds[booked.element].values()} == {1}


class TestRelease:
    @pytest.mark.parametrize("committed", [True, False])
    def test_adopts_what_is_there_and_brings_the_crew_in_step(self, synced, committed):
        booked, other = synced.book(), synced.book()
        ann, resource = synced.hire(booked)
        synced.fault("drop", f"line-item/{booked.element}/add-resource/*", committed=committed)
        synced.fault("empty", f"line-item/{booked.element}/row-data", "GET", nth=2)
        with pytest.raises(SyncFailed, match=f"{booked.element}"):
            synced.sync()
        synced.hire(other)
        done = synced.sync(release_element=str(booked.element))
        assert {*synced.crew(booked)} == {resource}
        # Whose line it is that is there nobody can tell.
        assert (synced.rows(booked)[ann] in owned(synced.conn, booked.element)) == (not committed)
        assert synced.gates()[booked.element] == "idle"
        assert (done.counts["crew"].inserted, done.result["added"]) == (1, 0 if committed else 1)
        # Only that crew call was meant.
        assert (synced.crew(other), synced.waiting()) == ({}, {other.job})

    def test_refuses_what_is_not_uncertain(self, synced):
        booked = synced.book()
        synced.sync()
        for element_id in (booked.element, uuid4()):
            with pytest.raises(SyncFailed, match=f"element {element_id} was not released: .*nothing to release"):
                synced.sync(release_element=str(element_id))

    def test_refuses_what_another_works_at(self, synced):
        booked = synced.book()
        with (
            psycopg.connect(synced.url, autocommit=True) as other,
            syncs.element.gate.claimed(other, booked.element, "another/run", begun(synced)[0]),
            pytest.raises(SyncFailed, match=r"was not released: .* is busy"),
        ):
            synced.sync(release_element=str(booked.element))

    def test_settles_what_was_on_a_crew_call_that_is_gone(self, synced):
        booked = synced.book()
        synced.hire(booked)
        synced.fault("drop", ADD)
        with pytest.raises(SyncFailed):
            synced.sync()
        for path in (ROWS, f"line-item/{booked.element}"):
            synced.fault("status", path, "GET", status=404, times=None)
        # Whoever still names it has to mend that.
        with pytest.raises(SyncFailed, match=r"could not be read: .*404"):
            synced.sync(release_element=str(booked.element))
        synced.control.clear()
        assert synced.gates()[booked.element] == "idle"


class TestValidate:
    def test_writes_nothing_and_names_what_is_worth_a_look(self, synced):
        booked = synced.book()
        synced.hire(booked)
        synced.fault("status", ADD, status=422)
        with pytest.raises(SyncFailed):
            synced.sync()
        before = (synced.synced(), synced.control.counters().requests)
        done = synced.sync("validate")
        assert done.sync_id is None
        assert done.result["checks"] == 4
        assert [warning.partition(":")[0] for warning in done.result["warnings"]] == ["recent_failures"]
        assert (synced.synced(), synced.control.counters().requests) == before

    def test_fails_without_the_unique_key(self, synced):
        match = r"unique_key: expected 1, found 0.* warehouse_migrate"
        with without_key(synced), pytest.raises(IntegrityFailed, match=match):
            synced.sync("validate")
