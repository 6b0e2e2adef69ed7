"""A rate limit and a quota that hold across threads, tasks and machines: their only state is in the warehouse."""

import threading
import time
from dataclasses import dataclass
from typing import Any

from psycopg import Connection


@dataclass(frozen=True)
class Quota:
    """How many requests an account may make within any hour and any day; None: as many as it likes."""

    per_hour: int | None = None
    per_day: int | None = None

    def __bool__(self) -> bool:
        return bool(self.per_hour or self.per_day)


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


# A minute counts until its last second is that old.
COUNT = """
WITH spent AS (
  SELECT coalesce(sum(requests) FILTER (WHERE minute > now() - interval '61 minutes'), 0) AS hour,
    coalesce(sum(requests), 0) AS day
  FROM confidence.request_count WHERE api = %(api)s AND minute > now() - interval '1 day 1 minute'
), counted AS (
  INSERT INTO confidence.request_count AS c (api, minute, requests)
  SELECT %(api)s, date_trunc('minute', now()), 1 FROM spent
  WHERE (%(per_hour)s::int IS NULL OR hour < %(per_hour)s) AND (%(per_day)s::int IS NULL OR day < %(per_day)s)
  ON CONFLICT (api, minute) DO UPDATE SET requests = c.requests + 1
  RETURNING 1
)
SELECT hour, day, EXISTS (SELECT FROM counted) FROM spent
"""


class RequestCount:
    """Counts the requests of an API by the minute and lets none go out above the quota.

    Who comes at the same moment may each be let in as the last: a quota belongs a little below the vendor's. `conn`
    must be in autocommit and is used by this object alone.
    """

    def __init__(self, conn: Connection, api: str, quota: Quota):
        self._conn = conn
        self._api = api
        self._quota = quota
        self._lock = threading.Lock()
        conn.execute(
            "DELETE FROM confidence.request_count WHERE api = %s AND minute < now() - interval '2 days'", [api]
        )

    def acquire(self) -> str | None:
        """Count one request; or say which quota is used up."""
        named = {"api": self._api, "per_hour": self._quota.per_hour, "per_day": self._quota.per_day}
        with self._lock:
            hour, day, counted = self._conn.execute(COUNT, named).fetchone()
        if counted:
            return None
        return (
            f"{hour} requests within the last hour (limit {self._quota.per_hour or 'none'}), {day} within the last day"
            f" (limit {self._quota.per_day or 'none'}). Run the task again later, or raise requests_per_hour or"
            f" requests_per_day in the extra of connection {self._api!r} if the account allows more"
        )

    def pause(self, seconds: float) -> None:
        """A count knows no pause."""


@dataclass(frozen=True)
class Both:
    """A quota, then a rate limit (or none)."""

    count: RequestCount
    limit: Any

    def acquire(self) -> str | None:
        return self.count.acquire() or self.limit.acquire()

    def pause(self, seconds: float) -> None:
        self.limit.pause(seconds)
