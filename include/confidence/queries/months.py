"""Read what each month of a source came to, for those who answer for it. Months and days are in UTC."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from include.confidence.holds import NOBODY
from include.confidence.outcome import OPEN_CHANGES
from include.confidence.queries.nights import FAILED, NO_SCAN, Night, read_nights, with_failed
from include.confidence.queries.proven_days import read_proven_days

# How many months are told.
MOST = 12


@dataclass(frozen=True)
class Declared:
    """What a source declares, as far as its months need it.

    - `entities`: all that a run has to scan
    - `freshness`: how old the copy may be, as a multiple of the time between two scheduled syncs
    """

    source: str
    entities: tuple[str, ...]
    freshness: float


@dataclass(frozen=True)
class NightCounts:
    """How many nights ended how, by the worst verdict of each day. A run counts on the day of its first scan.

    - `failed`: nights whose run has failed, other than by a hold that nobody answered
    - `not_judged`: nights on which no gate came to its end
    - `no_scan`: nights without any scan, from the first run of the source on; today counts only once it has a scan
    - `proven`: nights with a run that was confirmed; None if that is not known of some
    """

    passed: int
    warned: int
    held: int
    failed: int
    not_judged: int
    no_scan: int
    proven: int | None


@dataclass(frozen=True)
class StoodStill:
    """For how long the writer was stopped, in seconds.

    - `scans`: from the stop to the last scan
    - `held`: while a hold was open; that goes on after a person has decided to keep the writer stopped
    - `other`: anything else, such as judging, repairing and verifying, or a step that failed
    - `open`: the writer is still stopped, so the time until now counts; only ever in the month that is now
    - `measured_since`: nothing is known of the time before; None if the whole month was measured
    """

    scans: float
    held: float
    other: float
    open: bool
    measured_since: datetime | None

    @property
    def seconds(self) -> float:
        """The time in all."""
        return self.scans + self.held + self.other


@dataclass(frozen=True)
class Answers:
    """The questions about holds that were first asked in the month, and how long people took to answer, in seconds.

    `unanswered`: how many nobody has answered: time ran out, a later run took over, or they are open. The times are
    None if no question was answered.
    """

    asked: int
    unanswered: int
    median_seconds: float | None
    longest_seconds: float | None


@dataclass(frozen=True)
class SourceMonth:
    """A month of a source; `month` is its first day. None: not known.

    - `rows_repaired`, `rows_rolled_back`: rows that repairs and rollbacks have changed
    - `fresh_share`: of the time, in which the last sync of the whole source had begun no longer than
      `freshness_limit_seconds` ago; that is a scheduled sync which succeeded and moved a watermark, and was not dry
    """

    source: str
    month: date
    nights: NightCounts
    rows_repaired: int | None
    rows_rolled_back: int | None
    stood_still: StoodStill | None
    answers: Answers
    fresh_share: float | None
    freshness_limit_seconds: float | None


def read_months(
    conn: Connection, declared: Sequence[Declared], failed: Mapping[str, Mapping[str, datetime]]
) -> list[SourceMonth]:
    """Return the last 12 months since the first scan of one of the sources, newest first.

    A month has the sources in their order, each from the month of its first scan on. `failed`: of each source, the runs
    that have failed, and when each began.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        sources = [source.source for source in declared]
        begun = {row["source"]: row for row in cursor.execute(BEGUN, {"sources": sources}).fetchall()}
        if not begun:
            return []
        params = _params(declared, begun)
        proven = read_proven_days(cursor, params)
        rows, stops, answers, fresh = (
            {(row["source"], row["month"]): row for row in cursor.execute(query, params).fetchall()}
            for query in (ROWS, STOPS, ANSWERS, FRESH)
        )
    nights = read_nights(conn, params["sources"], params["since"].date())
    found = []
    for month, end in zip(params["months"], params["ends"], strict=True):
        for source in declared:
            began = begun.get(source.source)
            if began is None or began["first_scan"] >= end:
                continue
            key, since = (source.source, month), max(month, began["first_scan"].astimezone(UTC))
            in_log = began["log_since"] is None or since >= began["log_since"]
            days = [night for night in nights[source.source] if since.date() <= night.day < end.date()]
            days = with_failed(days, failed.get(source.source, {}))
            found.append(
                SourceMonth(
                    source=source.source,
                    month=month.date(),
                    nights=_count(days, proven.get(source.source, {})),
                    **_changed(rows.get(key), in_log=in_log),
                    stood_still=_stood_still(stops.get(key), began["stops_kept_since"], since, end),
                    answers=_answers(answers.get(key)),
                    **_freshness(fresh.get(key), in_log=in_log),
                )
            )
    return found


def _params(declared: Sequence[Declared], begun: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters of all queries, the months among them, newest first."""
    sources = [source.source for source in declared]
    first_scan = min(row["first_scan"] for row in begun.values())
    months = _months(first_scan.astimezone(UTC), datetime.now(UTC))
    return {
        "sources": sources,
        "owners": [source.source for source in declared for _ in source.entities],
        "entities": [entity for source in declared for entity in source.entities],
        "counts": [len(source.entities) for source in declared],
        "freshness": [source.freshness for source in declared],
        "log_since": [begun[source]["log_since"] if source in begun else None for source in sources],
        "months": months,
        "ends": [(month + timedelta(days=32)).replace(day=1) for month in months],
        "since": months[-1],
        "nobody": NOBODY,
        "open_changes": OPEN_CHANGES,
    }


def _months(first: datetime, last: datetime) -> list[datetime]:
    """Return the beginning of each month from the `first` to the `last` moment, the newest MOST, newest first."""
    months = range(last.year * 12 + last.month - 1, first.year * 12 + first.month - 2, -1)
    return [datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in months[:MOST]]


def _count(nights: Sequence[Night], proven: Mapping[date, bool | None]) -> NightCounts:
    today = datetime.now(UTC).date()
    kinds = Counter(night.kind for night in nights if night.run or night.day < today)
    confirmed = [proven.get(night.day, False) for night in nights]
    return NightCounts(
        passed=kinds["pass"],
        warned=kinds["warn"],
        held=kinds["hold"],
        failed=kinds[FAILED],
        not_judged=kinds["not judged"],
        no_scan=kinds[NO_SCAN],
        proven=None if None in confirmed else sum(confirmed),
    )


def _changed(row: Mapping[str, Any] | None, *, in_log: bool) -> dict[str, int | None]:
    names = ("rows_repaired", "rows_rolled_back")
    return {name: (row[name] if row else 0) if in_log else None for name in names}


def _stood_still(
    row: Mapping[str, Any] | None, kept_since: datetime, since: datetime, end: datetime
) -> StoodStill | None:
    if kept_since >= end:
        return None
    times = [row[name] for name in ("scans", "held", "other")] if row else [0.0, 0.0, 0.0]
    return StoodStill(*times, open=bool(row and row["open"]), measured_since=kept_since if kept_since > since else None)


def _answers(row: Mapping[str, Any] | None) -> Answers:
    if row is None:
        return Answers(0, 0, None, None)
    return Answers(*(row[name] for name in ("asked", "unanswered", "median_seconds", "longest_seconds")))


def _freshness(row: Mapping[str, Any] | None, *, in_log: bool) -> dict[str, float | None]:
    known = row is not None and in_log
    names = ("fresh_share", "freshness_limit_seconds")
    return {name: row[name] if known else None for name in names}


# Since when each table is known whole: the policy may have dropped what is older.
BEGUN = """
SELECT w.source, greatest(w.stops_kept_since, dropped.stops) AS stops_kept_since, first.scanned_at AS first_scan,
  (SELECT until FROM confidence.dropped_changes d WHERE d.source = w.source) AS log_since
FROM confidence.writer w CROSS JOIN LATERAL (
  SELECT max(dropped_until) FILTER (WHERE table_name = 'confidence.writer_stop') AS stops,
    max(dropped_until) FILTER (WHERE table_name = 'confidence.forensic_run') AS scans
  FROM confidence.retention r WHERE r.source IN ('', w.source)
) AS dropped CROSS JOIN LATERAL (
  SELECT scanned_at FROM confidence.forensic_run f
  WHERE f.source = w.source AND scanned_at >= coalesce(dropped.scans, '-infinity') ORDER BY scanned_at LIMIT 1
) AS first WHERE w.source = ANY (%(sources)s)
"""


# If its process was lost, a row of the log has no counts, but the change log has what was committed.
ROWS = """
SELECT source, date_trunc('month', started_at, 'UTC') AS month,
  coalesce(sum(changed) FILTER (WHERE kind = 'repair'), 0)::bigint AS rows_repaired,
  coalesce(sum(changed) FILTER (WHERE kind = 'rollback'), 0)::bigint AS rows_rolled_back
FROM (
  SELECT source, kind, started_at, CASE WHEN state <> 'success' AND entities = '{}'
    THEN (SELECT count(*) FROM confidence.change_log c WHERE c.sync_id = l.sync_id)
    ELSE rows_inserted + rows_updated + rows_deleted END AS changed
  FROM confidence.sync_log l
  WHERE source = ANY (%(sources)s) AND kind IN ('repair', 'rollback') AND started_at >= %(since)s
) AS written GROUP BY 1, 2
"""


STOPS = """
SELECT s.source, m.month, bool_or(s.ended_at IS NULL AND m.ends > now()) AS open,
  sum(CASE WHEN s.held THEN part.seconds ELSE 0 END) AS held,
  sum(CASE WHEN s.held THEN 0 ELSE part.scans END) AS scans,
  sum(CASE WHEN s.held THEN 0 ELSE part.seconds - part.scans END) AS other
FROM unnest(%(months)s::timestamptz[], %(ends)s::timestamptz[]) AS m (month, ends)
JOIN (
  SELECT source, began_at, ended_at, hold_reason IS NOT NULL AS held, coalesce(ended_at, now()) AS until,
    CASE WHEN hold_reason IS NULL THEN (
      SELECT max(f.scanned_at) FROM confidence.forensic_run f
      WHERE f.run = w.run AND f.source = w.source AND f.scanned_at >= w.began_at
        AND f.scanned_at <= coalesce(w.ended_at, now())) END AS scanned_at
  FROM confidence.writer_stop w WHERE source = ANY (%(sources)s) AND coalesce(ended_at, 'infinity') > %(since)s
) AS s ON s.began_at < m.ends AND s.until > m.month
CROSS JOIN LATERAL (
  SELECT extract(epoch FROM least(s.until, m.ends) - greatest(s.began_at, m.month))::double precision AS seconds,
    CASE WHEN s.scanned_at > m.month
      THEN extract(epoch FROM least(s.scanned_at, m.ends) - greatest(s.began_at, m.month)) ELSE 0
    END::double precision AS scans
) AS part
GROUP BY s.source, m.month
"""


ANSWERS = """
SELECT source, date_trunc('month', asked_at, 'UTC') AS month, count(*) AS asked,
  count(*) - count(seconds) AS unanswered,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS median_seconds, max(seconds) AS longest_seconds
FROM (
  SELECT source, asked_at,
    CASE WHEN decided_by <> %(nobody)s THEN extract(epoch FROM decided_at - asked_at)::double precision END AS seconds
  FROM confidence.question WHERE source = ANY (%(sources)s) AND asked_at >= %(since)s
) AS question GROUP BY 1, 2
"""


# The time between two scheduled syncs is as in confidence.health, at the end of the month: the median of the last 20.
# The log doesn't say which part of the source a person has asked for, so only scheduled syncs are known to be of the
# whole. A row with a reason, or without a watermark that it moved, stands for something else, such as a table alone;
# one that moved the watermark of dry syncs (`sync_log.DRY`) wrote nothing.
FRESH = """
WITH whole AS NOT MATERIALIZED (
  SELECT source, started_at, finished_at FROM confidence.sync_log
  WHERE kind = 'sync' AND state = 'success' AND run LIKE '%%/scheduled\\_\\_%%' AND reason IS NULL
    AND state_before <> '{}' AND NOT state_before @? '$.keyvalue() ? (@.key like_regex "/dry run$")'
), due AS (
  SELECT d.source, m.month, least(m.ends, now()) AS until, d.freshness * schedule.every AS allowed
  FROM unnest(%(sources)s::text[], %(freshness)s::double precision[]) AS d (source, freshness)
  CROSS JOIN unnest(%(months)s::timestamptz[], %(ends)s::timestamptz[]) AS m (month, ends)
  CROSS JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY gap) AS every
    FROM (
      SELECT began - lag(began) OVER (ORDER BY began) AS gap
      FROM (
        SELECT min(started_at) AS began
        FROM (
          SELECT run, started_at FROM confidence.sync_log
          WHERE source = d.source AND kind = 'sync' AND run LIKE '%%/scheduled\\_\\_%%' AND started_at < m.ends
          ORDER BY started_at DESC LIMIT 63
        ) AS tries GROUP BY run ORDER BY began DESC LIMIT 21
      ) AS scheduled
    ) AS gaps
  ) AS schedule
), synced AS (
  SELECT source, first.finished_at AS first_at, last.finished_at AS last_at
  FROM unnest(%(sources)s::text[]) AS source
  CROSS JOIN LATERAL (
    SELECT min(finished_at) AS finished_at FROM whole WHERE whole.source = source.source
  ) AS first
  CROSS JOIN LATERAL (
    SELECT max(finished_at) AS finished_at FROM whole
    WHERE whole.source = source.source AND finished_at < %(since)s
  ) AS last
), late AS (
  SELECT s.source, stretch.*
  FROM (SELECT source, min(allowed) AS allowed FROM due GROUP BY source) AS strictest JOIN synced s USING (source)
  CROSS JOIN LATERAL (
    SELECT started_at, finished_at AS began, lead(finished_at, 1, now()) OVER (ORDER BY finished_at) AS ended
    FROM whole WHERE whole.source = s.source AND finished_at >= coalesce(s.last_at, %(since)s)
  ) AS stretch
  WHERE stretch.ended - stretch.started_at > strictest.allowed
), stale AS (
  SELECT due.source, due.month,
    sum(extract(epoch FROM least(s.ended, due.until) - greatest(s.began, s.started_at + due.allowed, due.month)))
      AS seconds
  FROM late s
  JOIN due ON due.source = s.source AND s.began < due.until
    AND least(s.ended, due.until) > greatest(s.began, s.started_at + due.allowed, due.month)
  GROUP BY due.source, due.month
)
SELECT due.source, due.month, extract(epoch FROM due.allowed)::double precision AS freshness_limit_seconds,
  CASE WHEN due.allowed IS NOT NULL THEN (1 - coalesce(stale.seconds, 0)
    / extract(epoch FROM due.until - greatest(due.month, synced.first_at)))::double precision END AS fresh_share
FROM due JOIN synced USING (source) LEFT JOIN stale USING (source, month) WHERE synced.first_at < due.until
"""
