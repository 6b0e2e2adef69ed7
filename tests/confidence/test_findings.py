"""What the watch has found, from one pass to the next."""

from dataclasses import replace

import pytest

from include.confidence import findings
from include.confidence.watch import Code, Finding

CLOSED = Finding(Code.POOL_CLOSED, "shop", "1", None, "the pool is closed", "no sync can start", "open it")
STANDS = Finding(Code.UNATTENDED, "shop", "a/1/7", "a/1", "the writer stands", "nothing is synced", "clear it")


def age(conn, minutes: float) -> None:
    """Let the findings have been seen so long ago."""
    conn.execute("UPDATE confidence.finding SET first_seen = first_seen - make_interval(secs => %s)", [60 * minutes])


def seen(conn, source: str = "shop") -> dict[str, bool]:
    """Whether each finding that is kept is settled."""
    return {finding.what: finding.settled for finding in findings.open_findings(conn, [source])}


def test_what_one_pass_has_seen_is_kept_and_not_settled(conn):
    assert findings.keep(conn, "shop", [CLOSED]) == []
    assert seen(conn) == {CLOSED.what: False}


def test_what_is_still_there_after_four_minutes_is_settled(conn):
    """So the second of two passes tells it, of which there is one every 5 minutes."""
    findings.keep(conn, "shop", [CLOSED])
    age(conn, 3.8)
    assert findings.keep(conn, "shop", [CLOSED, STANDS]) == []
    age(conn, 0.2)
    assert findings.keep(conn, "shop", [CLOSED, STANDS]) == [CLOSED]
    assert seen(conn) == {CLOSED.what: True, STANDS.what: False}


def test_what_is_gone_begins_anew_when_it_comes_again(conn):
    findings.keep(conn, "shop", [CLOSED])
    age(conn, 60)
    assert findings.keep(conn, "shop", []) == []
    assert seen(conn) == {}
    assert findings.keep(conn, "shop", [CLOSED]) == []


def test_words_follow_what_is_seen_now(conn):
    findings.keep(conn, "shop", [STANDS])
    age(conn, 60)
    changed = replace(STANDS, what="the writer still stands", next_step="answer decide")
    assert findings.keep(conn, "shop", [changed]) == [changed]
    [kept] = findings.open_findings(conn, ["shop"])
    assert (kept.what, kept.consequence, kept.next_step, kept.run) == (
        "the writer still stands",
        "nothing is synced",
        "answer decide",
        "a/1",
    )


@pytest.mark.parametrize("other", ["store", "shop"])
def test_each_source_has_its_own(conn, other):
    findings.keep(conn, "shop", [CLOSED])
    findings.keep(conn, "store", [replace(CLOSED, source="store", what="another")])
    findings.keep(conn, other, [])
    assert len(seen(conn, "shop") | seen(conn, "store")) == 1
    assert seen(conn, other) == {}
    assert conn.execute("SELECT count(*) FROM confidence.watch").fetchone() == (2,)
