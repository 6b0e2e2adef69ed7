"""Messages to people, kept in `confidence.notification` so that each is sent once."""

from collections.abc import Callable, Collection
from datetime import datetime

from psycopg import Connection
from psycopg.rows import args_row, scalar_row

from include.confidence.messages import Event, Kind

# A message that could not be sent within this time is dropped.
KEPT = "1 day"


def note(conn: Connection, event: Event) -> None:
    """Store the event to be sent, unless an event with the same key is stored, sent or not, and has not ended."""
    conn.execute(
        """
        INSERT INTO confidence.notification (key, source, run, kind, title, text)
        VALUES (%(key)s, %(source)s, %(run)s, %(kind)s, %(title)s, %(text)s)
        ON CONFLICT (key) WHERE ended_at IS NULL DO NOTHING
        """,
        vars(event),
    )


def end(conn: Connection, source: str, kinds: Collection[Kind], still: Collection[str]) -> None:
    """End the source's events of these kinds, except those with keys in `still`. An ended event can be sent again."""
    conn.execute(
        """
        UPDATE confidence.notification SET ended_at = clock_timestamp()
        WHERE source = %s AND kind = ANY (%s) AND ended_at IS NULL AND key <> ALL (%s)
        """,
        [source, list(kinds), list(still)],
    )


def told_runs(conn: Connection, source: str, runs: Collection[str], since: datetime | None = None) -> set[str]:
    """Return the runs whose failure or standstill people were told of after `since`.

    A question about a hold and a finding of the watch don't count: they don't tell how a run has ended.
    """
    serious = [str(kind) for kind in Kind if kind.serious and kind not in (Kind.HOLD, Kind.WATCH)]
    with conn.cursor(row_factory=scalar_row) as cursor:
        found = cursor.execute(
            "SELECT DISTINCT run FROM confidence.notification"
            " WHERE source = %s AND run = ANY (%s) AND kind = ANY (%s)"
            " AND noted_at > coalesce(%s::timestamptz, '-infinity')",
            [source, list(runs), serious, since],
        )
        return set(found.fetchall())


def send_next(conn: Connection, send: Callable[[Event], bool]) -> bool:
    """Send the oldest event that nobody has sent or is sending.

    `send` returns whether it could send the event. Returns False if it could not, or if there is no event.
    """
    with conn.transaction(), conn.cursor(row_factory=args_row(_event)) as cursor:
        event = cursor.execute(
            """
            SELECT key, kind, source, run, title, text FROM confidence.notification
            WHERE sent_at IS NULL AND ended_at IS NULL AND noted_at > now() - %s::interval
            ORDER BY notification_id LIMIT 1 FOR UPDATE SKIP LOCKED
            """,
            [KEPT],
        ).fetchone()
        if event is None or not send(event):
            return False
        conn.execute(
            "UPDATE confidence.notification SET sent_at = clock_timestamp() WHERE key = %s AND ended_at IS NULL",
            [event.key],
        )
        return True


def _event(key: str, kind: str, source: str, run: str, title: str, text: str) -> Event:
    return Event(key, Kind(kind), source, run, title, text)
