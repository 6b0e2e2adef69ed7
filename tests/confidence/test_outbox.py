"""Events on their way to people: each is sent once, until it has ended and comes again."""

from dataclasses import replace

import psycopg
import pytest

from include.confidence import outbox
from include.confidence.messages import Event, Kind

EVENT = Event("sync/shop/TryLater", Kind.SYNC, "shop", "shop_sync/1", "shop: sync failed", "why\nand what next")


class Sent(list):
    """Takes what is sent, unless it is `down`."""

    down = False

    def __call__(self, event: Event) -> bool:
        if not self.down:
            self.append(event)
        return not self.down


@pytest.fixture
def sent() -> Sent:
    return Sent()


def send_all(conn: psycopg.Connection, sent: Sent) -> list[str]:
    """Send what waits; returns all keys sent so far."""
    while outbox.send_next(conn, sent):
        pass
    return [event.key for event in sent]


def test_event_is_sent_once_as_it_was_noted_first(conn, sent):
    outbox.note(conn, EVENT)
    outbox.note(conn, replace(EVENT, run="shop_sync/2", text="later"))
    send_all(conn, sent)
    outbox.note(conn, EVENT)
    send_all(conn, sent)
    assert sent == [EVENT]


def test_what_could_not_be_sent_waits_for_the_next_one(conn, sent):
    sent.down = True
    outbox.note(conn, EVENT)
    assert send_all(conn, sent) == []
    sent.down = False
    other = replace(EVENT, key="warn/other", kind=Kind.WARN)
    outbox.note(conn, other)
    send_all(conn, sent)
    assert sent == [EVENT, other]


def test_what_is_a_day_old_is_left(conn, sent):
    outbox.note(conn, EVENT)
    conn.execute("UPDATE confidence.notification SET noted_at = now() - interval '25 hours'")
    assert send_all(conn, sent) == []


def test_what_has_ended_is_told_when_it_comes_again(conn, sent):
    outbox.note(conn, EVENT)
    send_all(conn, sent)
    outbox.end(conn, "shop", [Kind.SYNC], [])
    outbox.note(conn, EVENT)
    assert send_all(conn, sent) == [EVENT.key] * 2


def test_what_ended_before_it_could_be_sent_is_not_sent(conn, sent):
    outbox.note(conn, EVENT)
    outbox.end(conn, "shop", [Kind.SYNC], [])
    assert send_all(conn, sent) == []


@pytest.mark.parametrize(
    ("source", "kinds", "still"),
    [("shop", [Kind.SYNC], [EVENT.key]), ("shop", [Kind.HEALTH], []), ("shop", [], []), ("other", [Kind.SYNC], [])],
)
def test_what_goes_on_has_not_ended(conn, sent, source, kinds, still):
    outbox.note(conn, EVENT)
    send_all(conn, sent)
    outbox.end(conn, source, kinds, still)
    outbox.note(conn, EVENT)
    assert send_all(conn, sent) == [EVENT.key]


def test_while_one_sends_it_another_leaves_it_alone(migrated_url, sent):
    with (
        psycopg.connect(migrated_url, autocommit=True) as conn,
        psycopg.connect(migrated_url, autocommit=True) as other,
    ):
        other.execute("SET lock_timeout = '2s'")
        outbox.note(conn, EVENT)
        meanwhile: list[bool] = []

        def send(event: Event) -> bool:
            meanwhile.append(outbox.send_next(other, sent))
            return sent(event)

        try:
            assert outbox.send_next(conn, send)
            assert not outbox.send_next(other, sent)
        finally:
            conn.execute("DELETE FROM confidence.notification")
    assert meanwhile == [False]
    assert sent == [EVENT]


def test_runs_of_which_people_know_that_something_failed(conn):
    def tell(key: str, kind: Kind, run: str, source: str = "shop") -> None:
        outbox.note(conn, Event(key, kind, source, run, "title", "text"))

    tell("1", Kind.SCAN, "failed")
    tell("2", Kind.UNANSWERED, "unanswered")
    # A question, a warning and the watch's own findings do not say how the run has ended.
    tell("3", Kind.HOLD, "held")
    tell("4", Kind.WARN, "warned")
    tell("5", Kind.WATCH, "watched")
    tell("6", Kind.SCAN, "elsewhere", source="store")
    runs = ["failed", "unanswered", "held", "warned", "watched", "elsewhere", "unknown"]
    assert outbox.told_runs(conn, "shop", runs) == {"failed", "unanswered"}
    assert outbox.told_runs(conn, "shop", ["failed"]) == {"failed"}
    (noted,) = conn.execute("SELECT noted_at FROM confidence.notification WHERE key = '1'").fetchone()
    assert outbox.told_runs(conn, "shop", runs, since=noted) == {"unanswered"}
