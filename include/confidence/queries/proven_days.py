"""Read on which days the sources were proven: a run of that day was confirmed."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from psycopg import Cursor


def read_proven_days(
    cursor: Cursor[dict[str, Any]], params: Mapping[str, Any]
) -> Mapping[str, Mapping[date, bool | None]]:
    """Return, by source and day, whether a run was confirmed; None if that is not known and no other run was.

    `params`:

    - `sources`; `counts`: how many entities each of them has; `log_since`: the time from which on the sync log of each
      is complete, None if it always was
    - `owners`, `entities`: source and name of each entity
    - `since`: the beginning of the first day
    - `open_changes`: the figure of a repair's checks that counts the changes which are still open
    """
    found: dict[str, dict[date, bool | None]] = {}
    # If a day has several runs, confirmed outweighs unknown, and unknown outweighs not confirmed.
    weight = {True: 2, None: 1, False: 0}
    for row in cursor.execute(CONFIRMED, params).fetchall():
        days = found.setdefault(row["source"], {})
        days[row["day"]] = max(days.get(row["day"], False), row["confirmed"], key=weight.__getitem__)
    return found


# The same as `outcome.gap` and `outcome.not_confirmed`, for all runs at once. A run has looked at everything if its
# scopes are those of scheduled runs. `confirmed` is null if the sync log may have lost the row of the run's repair.
CONFIRMED = """
WITH scan AS MATERIALIZED (
  SELECT source, run, entity, scope, epoch, scanned_at, verdict, left_out, plans_changes AS planned,
    run LIKE '%%/scheduled\\_\\_%%' AS scheduled, all_proven AND verdict IS NOT NULL AND NOT rescanned AS proven,
    (min(scanned_at) OVER (PARTITION BY source, run) AT TIME ZONE 'UTC')::date AS day
  FROM confidence.forensic_run
  WHERE source = ANY (%(sources)s) AND scanned_at >= %(since)s::timestamptz - interval '1 day'
), newest AS (
  SELECT DISTINCT ON (source, run, entity) * FROM scan ORDER BY source, run, entity, scanned_at DESC
), ran AS (
  SELECT source, run, min(day) AS day, min(scanned_at) AS began, max(scanned_at) AS ended, bool_or(planned) AS planned,
    bool_and(proven AND (source, entity, scope) IN (
      SELECT source, entity, scope FROM scan WHERE scheduled OR scope = 'all')) AND min(epoch) = max(epoch) AS proven,
    count(*) FILTER (WHERE (source, entity) IN (
      SELECT * FROM unnest(%(owners)s::text[], %(entities)s::text[]))) AS entities,
    bool_or(verdict = 'hold') AS held, bool_or(planned AND left_out) AS left_out,
    array_agg(entity) FILTER (WHERE planned) AS to_repair
  FROM newest GROUP BY source, run
), followed AS (
  SELECT *, lead(began, 1, 'infinity') OVER (PARTITION BY source ORDER BY began) AS next_began FROM ran
), left_stopped AS (
  SELECT source, run FROM (
    SELECT source, run, ended_at, lead(began_at) OVER later AS next_began, lead(run) OVER later AS next_run
    FROM confidence.writer_stop
    WHERE source = ANY (%(sources)s) AND coalesce(ended_at, 'infinity') >= %(since)s::timestamptz - interval '1 day'
    WINDOW later AS (PARTITION BY source ORDER BY began_at)
  ) AS stop WHERE ended_at IS NULL OR (next_began = ended_at AND next_run IS DISTINCT FROM run)
)
SELECT r.source, r.day, CASE
    WHEN NOT r.proven OR r.entities < declared.entities OR answer.decision IN ('resume', 'keep') THEN false
    WHEN r.held AND answer.decision IS DISTINCT FROM 'repair' THEN false
    WHEN EXISTS (SELECT FROM left_stopped l WHERE (l.source, l.run) = (r.source, r.run)) THEN false
    WHEN repair.sync_id IS NULL THEN
      CASE WHEN NOT r.planned THEN true WHEN r.ended < declared.log_since THEN NULL ELSE false END
    WHEN repair.undone THEN repair.state = 'success' AND NOT r.planned
    ELSE repair.state = 'success' AND repair.verified_at IS NOT NULL AND NOT r.left_out
      AND repair.rows_superseded + repair.rows_failed = 0
      AND NOT coalesce(jsonb_path_exists(repair.checks, '$[*] ? (@.figure == $figure && @.after > 0)',
        jsonb_build_object('figure', %(open_changes)s::text)), false)
      AND NOT EXISTS (
        SELECT FROM unnest(r.to_repair) AS entity WHERE NOT coalesce(repair.checks @> jsonb_build_array(
          jsonb_build_object('entity', entity, 'figure', %(open_changes)s::text)), false))
  END AS confirmed
FROM followed r
JOIN unnest(%(sources)s::text[], %(counts)s::bigint[], %(log_since)s::timestamptz[])
  AS declared (source, entities, log_since) USING (source)
LEFT JOIN LATERAL (
  SELECT f.decision FROM confidence.forensic_run f
  WHERE f.source = r.source AND f.decided_at > r.ended AND f.decided_at < r.next_began
  ORDER BY f.decided_at DESC LIMIT 1
) AS answer ON r.proven
LEFT JOIN LATERAL (
  SELECT l.*, EXISTS (SELECT FROM confidence.sync_log u WHERE u.undoes = l.sync_id AND u.state = 'success') AS undone
  FROM confidence.sync_log l
  WHERE l.run = r.run AND l.source = r.source AND l.kind = 'repair' AND l.started_at > r.began
  ORDER BY l.sync_id DESC LIMIT 1
) AS repair ON r.proven
"""
