"""A rate limit that holds across threads, tasks and machines: its only state is one row a source's API."""

import threading
import time

from psycopg import Connection


class SharedLimit:
    """Hands out evenly spaced moments at which a request may be sent.

    `per_minute` is the vendor's limit. Even spacing keeps any sliding minute below it; the utilisation leaves room for
    the jitter of the network, so that requests that bunch up on their way don't cross the limit at the vendor's door.
    `conn` must be in autocommit and is used by this object alone.
    """

    UTILISATION = 0.975

    def __init__(self, conn: Connection, api: str, per_minute: float):
        self._conn = conn
        self._api = api
        self._interval = 60 / (per_minute * self.UTILISATION)
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Block until a request may be sent."""
        delay = self._move(
            "INSERT INTO confidence.rate_limit AS r VALUES (%(api)s, clock_timestamp() + %(step)s * interval '1 s')"
            " ON CONFLICT (api) DO UPDATE SET"
            "  next_at = greatest(r.next_at, clock_timestamp()) + %(step)s * interval '1 s'"
            " RETURNING extract(epoch FROM next_at - clock_timestamp())::float8 - %(step)s",
            self._interval,
        )
        if delay > 0:
            time.sleep(delay)

    def pause(self, seconds: float) -> None:
        """Let nobody send for `seconds`: the vendor asked for it."""
        self._move(
            "INSERT INTO confidence.rate_limit AS r VALUES (%(api)s, clock_timestamp() + %(step)s * interval '1 s')"
            " ON CONFLICT (api) DO UPDATE SET"
            "  next_at = greatest(r.next_at, clock_timestamp() + %(step)s * interval '1 s')"
            " RETURNING 0::float8",
            seconds,
        )

    def _move(self, query: str, step: float) -> float:
        with self._lock:
            return self._conn.execute(query, {"api": self._api, "step": step}).fetchone()[0]
