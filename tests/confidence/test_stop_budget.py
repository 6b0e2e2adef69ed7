"""Which entities a night scans if the writer may stand for a limited time only, and how old the proofs are."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.confidence import proofs, scan_log
from include.confidence.stop_budget import Choice, Proof, choose, oldest_first, waiting
from include.sources import REGISTRY, get_source
from include.warehouse import fence
from tests.confidence.builders import judged, summary

NIGHT = datetime(2026, 3, 1, 3, tzinfo=UTC)
RUN = "repairshopr_reconcile/scheduled__night"
SOURCE = "repairshopr"


def proven(entity: str, days_ago: int | None, seconds: float | None = 60) -> Proof:
    return Proof(entity, None if days_ago is None else NIGHT - timedelta(days=days_ago), seconds)


def alone(*found: Proof) -> dict[str, set[str]]:
    return {proof.entity: set() for proof in found}


def scanned(choice: Choice) -> set[str]:
    return {*choice.first, *choice.fitting}


class TestChoose:
    def test_oldest_proof_comes_first(self):
        found = [proven("young", 1), proven("old", 3), proven("older", 4)]
        choice = choose(found, alone(*found), 120)
        assert (choice.first, choice.fitting) == (("older",), ("old",))
        assert choice.put_off == {
            "young": "its last scans took up to 1 min, and 0 min of the time for which the writer may stand are left"
            " for it"
        }

    def test_never_proven_comes_before_all(self):
        found = [proven("old", 300), proven("new", None, None)]
        assert choose(found, alone(*found), 60).first == ("new",)

    def test_one_is_scanned_however_long_it_takes(self):
        found = [proven("long", 2, 7200), proven("short", 1, 60)]
        choice = choose(found, alone(*found), 60)
        assert (choice.first, choice.fitting, list(choice.put_off)) == (("long",), (), ["short"])

    def test_smaller_one_takes_the_time_that_is_left(self):
        found = [proven("a", 4, 60), proven("b", 3, 600), proven("c", 2, 60)]
        choice = choose(found, alone(*found), 120)
        assert (scanned(choice), set(choice.put_off)) == ({"a", "c"}, {"b"})

    def test_unknown_duration_is_left_to_the_clock(self):
        found = [proven("a", 4, 600), proven("b", 3, None)]
        assert choose(found, alone(*found), 600).fitting == ("b",)

    def test_what_rows_refer_to_is_scanned_with_them(self):
        found = [proven("invoices", 1), proven("lines", 2), proven("tickets", 1)]
        refers_to = alone(*found) | {"lines": {"invoices"}}
        choice = choose(found, refers_to, 60)
        assert (choice.first, choice.fitting, list(choice.put_off)) == (("invoices", "lines"), (), ["tickets"])

    def test_what_refers_is_not_scanned_without(self):
        found = [proven("tickets", 3), proven("invoices", 1, 600), proven("lines", 2)]
        choice = choose(found, alone(*found) | {"lines": {"invoices"}}, 300)
        assert scanned(choice) == {"tickets"}
        why = "its last scans and those of invoices, to which it refers, took up to 11 min, and 4 min of the time"
        assert choice.put_off["lines"].startswith(why)

    def test_two_that_refer_to_each_other_go_together(self):
        found = [proven("a", 1), proven("b", 2)]
        assert choose(found, {"a": {"b"}, "b": {"a"}}, 1).first == ("a", "b")

    def test_what_refers_to_what_was_put_off_waits(self):
        refers_to = {"a": {"b"}, "b": {"c"}, "c": set(), "d": set()}
        assert waiting("abcd", refers_to, {"c": "why"}) == ["a", "b"]
        assert waiting("abcd", refers_to, {}) == []


NAMES = "abcdef"
# An entity refers to later ones only: a cycle would make them one.
REFERENCES = st.fixed_dictionaries(
    {
        name: st.sets(st.sampled_from(NAMES[place + 1 :])) if NAMES[place + 1 :] else st.just(set())
        for place, name in enumerate(NAMES)
    }
)
STANDING = st.fixed_dictionaries(
    {name: st.tuples(st.none() | st.integers(0, 9), st.none() | st.floats(0, 1e4)) for name in NAMES}
)


class TestEveryEntityHasItsTurn:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(STANDING, REFERENCES, st.floats(0, 2e4), st.data())
    def test_within_as_many_nights_as_there_are_entities(self, standing, refers_to, seconds, data):
        """Also if the clock cuts off any of those that would have fitted."""
        found = [proven(name, *standing[name]) for name in NAMES]
        seen = set()
        for night in range(1, len(NAMES) + 1):
            choice = choose(found, refers_to, seconds)
            assert sorted([*choice.first, *choice.fitting, *choice.put_off]) == list(NAMES)
            cut = data.draw(st.sets(st.sampled_from(choice.fitting)) if choice.fitting else st.just(set()))
            cut |= set(waiting(NAMES, refers_to, cut | set(choice.put_off)))
            assert choice.first
            assert not cut & set(choice.first)
            done = scanned(choice) - cut
            assert all(refers_to[name] <= done for name in done)
            seen |= done
            found = [
                replace(each, proven_at=NIGHT + timedelta(night)) if each.entity in done else each for each in found
            ]
        assert seen == set(NAMES)

    @pytest.mark.parametrize("source", REGISTRY)
    @pytest.mark.parametrize("seconds", [0, 60, 150])
    def test_of_each_source(self, source, seconds):
        entities = get_source(source).entities
        refers_to = {entity.name: entity.refers_to for entity in entities}
        assert set().union(*refers_to.values()) <= set(refers_to)
        found = [proven(name, None) for name in refers_to]
        for night in range(len(entities)):
            done = scanned(choose(found, refers_to, seconds))
            found = [
                replace(each, proven_at=NIGHT + timedelta(night)) if each.entity in done else each for each in found
            ]
        assert [each.entity for each in found if each.proven_at is None] == []


def aged(conn, scan_id: str, days: int, seconds: float | None = None) -> None:
    conn.execute(
        "UPDATE confidence.forensic_run SET scanned_at = now() - make_interval(days => %s), seconds = %s"
        " WHERE scan_id = %s",
        [days, seconds, scan_id],
    )


def ages(conn, *entities: str, **options) -> dict[str, int | None]:
    """How many days ago each was proven."""
    found = proofs.read_proofs(conn, SOURCE, entities, **options)
    return {p.entity: p.proven_at and round((datetime.now(UTC) - p.proven_at) / timedelta(days=1)) for p in found}


class TestProofs:
    def test_are_the_newest_judged_scans_that_are_evidence(self, conn):
        judged(conn, "good", entity="customers")
        judged(conn, "newer, no evidence", entity="customers", incomplete="too much is unknown")
        scan_log.record(conn, summary(scan_id="newest, not judged", entity="customers"))
        judged(conn, "scanned again", entity="customers")
        conn.execute("UPDATE confidence.forensic_run SET rescanned = true WHERE scan_id = 'scanned again'")
        for scan_id, days in [("good", 5), ("newer, no evidence", 3), ("newest, not judged", 1), ("scanned again", 2)]:
            aged(conn, scan_id, days)
        assert ages(conn, "tickets", "customers") == {"tickets": None, "customers": 5}

    def test_of_a_part_prove_nothing_unless_scheduled_runs_look_at_it(self, conn):
        judged(conn, "all", entity="customers")
        judged(conn, "pages", entity="customers", scope="pages 1-2", run=f"{SOURCE}_reconcile/manual__1")
        aged(conn, "all", 4)
        aged(conn, "pages", 1)
        assert ages(conn, "customers") == {"customers": 4}
        judged(conn, "usual", entity="customers", scope="pages 1-2", run=f"{SOURCE}_reconcile/scheduled__1")
        aged(conn, "usual", 3)
        assert ages(conn, "customers") == {"customers": 1}

    def test_before_a_time_are_older(self, conn):
        for days in (1, 4):
            judged(conn, f"scan {days}", entity="customers")
            aged(conn, f"scan {days}", days)
        assert ages(conn, "customers", before=datetime.now(UTC) - timedelta(days=2)) == {"customers": 4}

    def test_duration_is_the_longest_of_the_last_three(self, conn):
        for days, seconds in [(1, 5.0), (2, None), (3, 20.0), (4, 10.0), (5, 900.0)]:
            judged(conn, f"scan {days}", entity="customers")
            aged(conn, f"scan {days}", days, seconds)
        [proof] = proofs.read_proofs(conn, SOURCE, ["customers"])
        assert proof.seconds == 20.0

    def test_oldest_first(self):
        found = [proven("young", 1), proven("never", None), proven("old", 3)]
        assert [proof.entity for proof in oldest_first(found)] == ["never", "old", "young"]


class TestPutOff:
    def test_is_kept_until_the_next_proof(self, conn):
        judged(conn, "earlier", entity="tickets")
        aged(conn, "earlier", 2)
        for run, why in (("first", "no time"), ("second", "still none")):
            proofs.put_off(conn, SOURCE, run, {"tickets": why, "customers": why})
        [customers, tickets] = proofs.put_off_now(
            conn, SOURCE, proofs.read_proofs(conn, SOURCE, ["customers", "tickets"])
        )
        assert (customers.entity, customers.run, tickets.run, tickets.why) == (
            "customers",
            "second",
            "second",
            "still none",
        )
        judged(conn, "later", entity="tickets")
        standing = proofs.put_off_now(conn, SOURCE, proofs.read_proofs(conn, SOURCE, ["customers", "tickets"]))
        assert [each.entity for each in standing] == ["customers"]

    def test_by_a_run_that_scans_it_after_all_is_forgotten(self, conn):
        proofs.put_off(conn, SOURCE, RUN, {"tickets": "no time"})
        proofs.put_off(conn, SOURCE, RUN, {"tickets": "none again"})
        assert proofs.put_off_by(conn, SOURCE, RUN) == {"tickets": "none again"}
        proofs.forget_put_off(conn, SOURCE, RUN, "tickets")
        assert proofs.put_off_by(conn, SOURCE, RUN) == {}


def test_writer_has_stood_since_its_run_stopped_it(conn):
    fence.stop(conn, SOURCE, "earlier", 10)
    conn.execute("UPDATE confidence.writer_stop SET began_at = began_at - interval '1 hour'")
    assert proofs.stood(conn, SOURCE)[1] == pytest.approx(3600, abs=30)
    fence.stop(conn, SOURCE, RUN, 10)
    assert proofs.stood(conn, SOURCE)[1] < 30
