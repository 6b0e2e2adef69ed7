"""A rate limit and a quota that threads, tasks and machines share: their only state is in the warehouse."""

import threading
import time
from dataclasses import dataclass
from typing import Any

from psycopg import Connection


@dataclass(frozen=True)
class Quota:
    """How many requests an account may make within any hour and any day; None for no limit."""

    per_hour: int | None = None
    per_day: int | None = None

    def __bool__(self) -> bool:
        return bool(self.per_hour or self.per_day)


class SharedLimit:
    """Spaces requests evenly, so that no sliding minute has more than the vendor allows.

    `per_minute` is the vendor's limit, and `UTILISATION` the share of it that is used: the network delays some requests
    more than others, so they arrive less evenly than they were sent. `conn` must be in autocommit, and nothing else may
    use it.
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
        """Let no request be sent for `seconds`, because the vendor asked for a pause."""
        self._move(
            "INSERT INTO confidence.rate_limit AS r VALUES (%(api)s, clock_timestamp() + %(step)s * interval '1 s')"
            " ON CONFLICT (api) DO UPDATE SET"
            "  next_at = greatest(r.next_at, clock_timestamp() + %(step)s * interval '1 s')"
            " RETURNING 0::float8",
            seconds,
        )

    def _move(self, query: str, step: float) -> float:
        """Move the time of the next free request by `step` seconds; return the figure that the query selects."""
        with self._lock:
            return self._conn.execute(query, {"api": self._api, "step": step}).fetchone()[0]


# Requests are counted by the minute. A minute counts in full until its last second is an hour, or a day, old.
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
    """Counts the requests to an API and refuses those above the quota.

    Concurrent callers can overshoot the quota slightly, so set it below the vendor's. `conn` must be in autocommit, and
    nothing else may use it.
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
        """Count one request and return None. If the quota is used up, count nothing and return a message."""
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
        """Do nothing: a pause does not change what was counted."""


@dataclass(frozen=True)
class Both:
    """A quota and a rate limit as one: the quota is asked first. `limit` has `acquire` and `pause`, as SharedLimit."""

    count: RequestCount
    limit: Any

    def acquire(self) -> str | None:
        """Block until a request may be sent and return None; return a message if the quota is used up."""
        return self.count.acquire() or self.limit.acquire()

    def pause(self, seconds: float) -> None:
        """Let no request be sent for `seconds`."""
        self.limit.pause(seconds)
