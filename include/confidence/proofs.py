"""How old the proofs of a source's entities are, and which of them a night has put off; kept in the warehouse.

Every function works in the transaction of the connection that it is given and never commits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection
from psycopg.rows import class_row, tuple_row

from include.confidence.stop_budget import Proof


@dataclass(frozen=True)
class PutOff:
    """An entity that a run has left to a later night, why, and when."""

    entity: str
    run: str
    why: str
    put_off_at: datetime


def read_proofs(
    conn: Connection, source: str, entities: Sequence[str], *, before: datetime | None = None
) -> list[Proof]:
    """Return the newest proof of each entity, in their order. `before`: scans since then don't count."""
    with conn.cursor(row_factory=class_row(Proof)) as cursor:
        return cursor.execute(PROOFS, {"source": source, "entities": list(entities), "before": before}).fetchall()


def stood(conn: Connection, source: str) -> tuple[datetime, float]:
    """Return when the present stop of the writer began, and how many seconds it has lasted."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(STOOD, [source]).fetchone()


def put_off(conn: Connection, source: str, run: str, reasons: Mapping[str, str]) -> None:
    """Keep that the run has put off these entities, by name with the reason."""
    for entity, why in reasons.items():
        conn.execute(PUT_OFF, {"source": source, "run": run, "entity": entity, "why": why})


def forget_put_off(conn: Connection, source: str, run: str, entity: str) -> None:
    """Forget that the run has put off the entity, since it scans it now."""
    conn.execute("DELETE FROM confidence.put_off WHERE source = %s AND run = %s AND entity = %s", [source, run, entity])


def put_off_by(conn: Connection, source: str, run: str) -> dict[str, str]:
    """Return {entity: why} of what the run has put off."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return dict(
            cursor.execute(
                "SELECT entity, why FROM confidence.put_off WHERE source = %s AND run = %s ORDER BY entity",
                [source, run],
            ).fetchall()
        )


def put_off_now(conn: Connection, source: str, proofs: Sequence[Proof]) -> tuple[PutOff, ...]:
    """Return those of the entities that were put off since their newest proof, by the last run that did so."""
    entities, times = [proof.entity for proof in proofs], [proof.proven_at for proof in proofs]
    with conn.cursor(row_factory=class_row(PutOff)) as cursor:
        return tuple(cursor.execute(PUT_OFF_NOW, [entities, times, source]).fetchall())


# A run by hand proves an entity too if it looks at what scheduled runs look at. The longest of
# the last three scans counts: a scan that went on after an earlier attempt looks shorter than it is.
PROOFS = """
SELECT e.entity, newest.scanned_at AS proven_at, took.seconds
FROM unnest(%(entities)s::text[]) WITH ORDINALITY AS e (entity, place)
CROSS JOIN LATERAL (
  SELECT array_append(array(
    SELECT f.scope FROM confidence.forensic_run f
    WHERE f.source = %(source)s AND f.entity = e.entity AND f.run LIKE '%%/scheduled\\_\\_%%'
    ORDER BY f.scanned_at DESC LIMIT 1
  ), 'all') AS scopes
) AS usual
CROSS JOIN LATERAL (
  SELECT max(last.scanned_at) AS scanned_at FROM unnest(usual.scopes) AS u (scope) CROSS JOIN LATERAL (
    SELECT f.scanned_at FROM confidence.forensic_run f
    WHERE f.source = %(source)s AND f.entity = e.entity AND f.scope = u.scope
      AND f.verdict IS NOT NULL AND NOT f.rescanned AND coalesce(f.summary ->> 'incomplete', '') = ''
      AND f.scanned_at < coalesce(%(before)s::timestamptz, 'infinity')
    ORDER BY f.scanned_at DESC LIMIT 1
  ) AS last
) AS newest
CROSS JOIN LATERAL (
  SELECT max(latest.seconds) AS seconds FROM (
    SELECT last.seconds FROM unnest(usual.scopes) AS u (scope) CROSS JOIN LATERAL (
      SELECT f.seconds, f.scanned_at FROM confidence.forensic_run f
      WHERE f.source = %(source)s AND f.entity = e.entity AND f.scope = u.scope AND f.seconds IS NOT NULL
        AND f.scanned_at < coalesce(%(before)s::timestamptz, 'infinity')
      ORDER BY f.scanned_at DESC LIMIT 3
    ) AS last
    ORDER BY last.scanned_at DESC LIMIT 3
  ) AS latest
) AS took
ORDER BY e.place
"""

STOOD = """
SELECT coalesce(s.began_at, w.since),
  extract(epoch FROM clock_timestamp() - coalesce(s.began_at, w.since))::double precision
FROM confidence.writer w LEFT JOIN confidence.writer_stop s ON s.source = w.source AND s.ended_at IS NULL
WHERE w.source = %s
"""

PUT_OFF = """
INSERT INTO confidence.put_off (source, run, entity, why) VALUES (%(source)s, %(run)s, %(entity)s, %(why)s)
ON CONFLICT (source, run, entity) DO UPDATE SET why = excluded.why, put_off_at = excluded.put_off_at
"""

PUT_OFF_NOW = """
SELECT DISTINCT ON (p.entity) p.entity, p.run, p.why, p.put_off_at
FROM confidence.put_off p JOIN unnest(%s::text[], %s::timestamptz[]) AS e (entity, proven_at) USING (entity)
WHERE p.source = %s AND p.put_off_at > coalesce(e.proven_at, '-infinity')
ORDER BY p.entity, p.put_off_at DESC
"""
