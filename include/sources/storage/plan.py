"""The plan of a check: the state of each image's objects, and what to do about the image, all in SQL.

The plan holds every image that is not in order: to mark, to heal, or unproven. An image is judged unless it is deleted,
young or in error. A scan of all images also notes the young ones that are not in order: one that an earlier scan has
noted is not excused again, but unproven. The states of the objects that an image needs:

- `present`, `absent` (both ways to look agree), or `empty`: there without content
- `elsewhere`: only found under another reading of its url, so it may be another object
- `unknown`: no answer, or a refusal; `disputed`: LIST shows it, but HEAD answers 404
- `foreign`, `unreadable`, `none`: its url names another bucket, can't be read, or is missing; or the url may mean what
  is foreign or unreadable, and the object is not here. A host that is called like the bucket, perhaps by chance, stands
  for it if the check has found an object in the folder with which the path begins.
- `young`, `ahead`: absent, and the image has changed lately, or its time of change lies in the future, so that its
  upload may not have ended
- `unneeded`: the staged object of an image that is not ready or names none
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from include.api.bucket import Look, Presence
from include.sources.storage import earlier_scans
from include.sources.storage.images import IMAGES, ORIGINAL_MISSING, STAGED_MISSING, STATUSES
from include.warehouse.find_patterns import MOST, column_types, facts_of
from include.warehouse.patterns import Pattern
from include.warehouse.sql_fragments import identifiers
from include.warehouse.staging import Stage

KNOWN_STATUSES = sql.SQL(", ").join(map(sql.Literal, STATUSES))
UNKNOWN_AS = {Presence.ABSENT: "disputed", Presence.EMPTY: None, Presence.UNKNOWN: "later"}
WHY = {
    "foreign": "its {} url names another bucket, or may name one",
    "unreadable": "its {} url cannot be read",
    "none": "it names no {}",
    "empty": "its {} object is empty",
    "elsewhere": "its {} object is found under another reading of its url only",
    "young": "its {} object is missing, as in an earlier scan, and each time the image had changed just before",
    "ahead": "its {} object is missing, but its time of change lies in the future and proves no age",
    "disputed": "LIST and HEAD disagree whether its {} object is there",
}
MESSAGES = {"original_missing": sql.Literal(ORIGINAL_MISSING), "staged_missing": sql.Literal(STAGED_MISSING)}
COLUMNS = [*IMAGES.names, "original_state", "staged_state", "unknown", "reason", "new_status", "new_error"]

# What a planned change is about: if any of it has changed, what the looks have shown is about something else.
ABOUT = (
    *("status", "error", "updated_at", "original_place", "original_key", "original_others"),
    *("staged_place", "staged_key", "staged_others"),
)
PLANNED = (*ABOUT, "new_status", "new_error", "_operation", "young")
CONFIRMED = sql.SQL("_status = 'confirmed'")
# Images that are to be marked, or are not proven, because of what looks at their objects have shown.
SEEN_OTHERWISE = sql.SQL("_operation = 'mark' AND looked AND _status IN ('confirmed', 'left', 'unproven')")


def make(staged: Stage, objects: Stage, *, started: datetime, watched_by: str | None = None) -> Mapping[str, int]:
    """Make the plan from the first look. Return how many images are in order, to mark and to heal.

    The keys are `in_order`, `marks` and `heals`. `started`: the application's time when the check began. `watched_by`:
    the run, if young images are to be noted.
    """
    conn = staged.conn
    parts = {
        "images": staged.sql,
        "objects": objects.sql,
        "plan": staged.plan,
        "columns": identifiers(COLUMNS),
        "data": identifiers(IMAGES.names, "i"),
        "statuses": KNOWN_STATUSES,
        "watched": sql.Literal(watched_by is not None),
        "noted": earlier_scans.noted(conn, watched_by, started),
        **MESSAGES,
    }
    with conn.transaction():
        for stage in (staged, objects):
            conn.execute(sql.SQL("ANALYZE {}").format(stage.sql))
        staged.empty_plan()
        conn.execute("DROP TABLE IF EXISTS pg_temp.shown_folder")
        conn.execute(sql.SQL(SHOWN_FOLDERS).format(**parts))
        conn.execute("ANALYZE pg_temp.shown_folder")
        states = {
            "original": _first_state("original", "o", ORIGINAL_NOT_LOOKED_FOR, objects),
            "staged": _first_state("staged", "s", STAGED_NOT_LOOKED_FOR, objects),
        }
        (in_order,) = conn.execute(sql.SQL(JUDGE).format(**parts, **states)).fetchone()
        heals = conn.execute(sql.SQL(PLAN_HEALS).format(**parts)).rowcount
        (marks,) = conn.execute(
            sql.SQL("SELECT count(*) FROM {} WHERE _operation = 'mark' AND _status = 'candidate'").format(staged.plan)
        ).fetchone()
    return {"in_order": in_order, "marks": marks, "heals": heals}


def leave_heals(conn: Connection, plan: sql.Identifier) -> None:
    """Turn confirmed heals into `healable`: they are only counted."""
    query = "UPDATE {} SET _status = 'healable' WHERE _operation = 'heal' AND _status = 'confirmed'"
    conn.execute(sql.SQL(query).format(plan))


def sample(staged: Stage, size: int, seed: int) -> list[str]:
    """Return a random sample of about `size` keys of objects that images without a problem need."""
    conn = staged.conn
    (images,) = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(staged.sql)).fetchone()
    query = sql.SQL(SAMPLE).format(images=staged.sql, plan=staged.plan)
    values = {"seed": seed, "every": max(1, images // size), "size": size}
    return [key for (key,) in conn.execute(query, values)]


def doubt(staged: Stage, looks: Sequence[Look]) -> int:
    """Plan an image as unproven, though it seemed right, if one of these looks did not find its object.

    Return the number of such images.
    """
    parts = {"images": staged.sql, "plan": staged.plan, "columns": identifiers(COLUMNS)}
    values = {
        "keys": [look.key for look in looks],
        "states": ["disputed" if look.presence is Presence.ABSENT else str(look.presence) for look in looks],
        "unknown": [UNKNOWN_AS[look.presence] for look in looks],
        "reasons": [look.reason or None for look in looks],
    }
    query = sql.SQL(DOUBT).format(**parts, data=identifiers(IMAGES.names, "i"))
    return staged.conn.execute(query, values).rowcount


def doubts(plan: sql.Identifier) -> sql.Composed:
    """Return the query for unproven images that `unproven.remember_query` takes."""
    return sql.SQL(DOUBTS).format(plan=plan, statuses=KNOWN_STATUSES, original=_why("original"), staged=_why("staged"))


def changes(plan: sql.Identifier) -> sql.Composed:
    """Return the query for the planned changes that `planned_changes.keep` takes."""
    return sql.SQL(CHANGES).format(plan=plan, doubts=doubts(plan))


def find_patterns(staged: Stage) -> list[Pattern]:
    """Return what the images to mark have in common, compared with all images that the check has judged."""
    marks = "SELECT {} FROM {} WHERE _operation = 'mark' AND _status = 'confirmed'"
    columns = identifiers(IMAGES.names)
    return facts_of(
        staged.conn,
        IMAGES.name,
        "update",
        sql.SQL(marks).format(columns, staged.plan),
        sql.SQL("SELECT {} FROM {} WHERE NOT deleted AND NOT young AND status <> 'error'").format(columns, staged.sql),
        types=column_types(staged),
        key=IMAGES.key,
    )[:MOST]


def _first_state(name: str, object_: str, not_looked_for: sql.SQL, objects: Stage) -> sql.Composed:
    """Return the expression for the state of an object by the first look."""
    return sql.SQL(FIRST_STATE).format(
        presence=sql.Identifier(object_, "presence"),
        others=sql.Identifier("i", f"{name}_others"),
        place=sql.Identifier("i", f"{name}_place"),
        key=sql.Identifier("i", f"{name}_key"),
        not_looked_for=not_looked_for,
        objects=objects.sql,
    )


def _why(name: str) -> sql.Composed:
    """Return the expression for why the state of an object leaves its image unproven."""
    state = sql.Identifier(f"{name}_state")
    cases = [
        sql.SQL("WHEN {} = {} THEN {}").format(state, sql.Literal(known), sql.Literal(why.format(name)))
        for known, why in WHY.items()
    ]
    return sql.SQL("CASE {} WHEN {} = 'unknown' THEN {} || reason END").format(
        sql.SQL(" ").join(cases), state, sql.Literal(f"its {name} object could not be looked at: ")
    )


def planned(
    conn: Connection, plan: sql.Identifier, batch: int, which: sql.SQL = CONFIRMED
) -> Iterator[list[dict[str, Any]]]:
    """Yield the confirmed changes, or `which` rows else, by id, `batch` rows at a time."""
    query = sql.SQL(
        "SELECT id::text, {} FROM {} WHERE {} AND (%(last)s::uuid IS NULL OR id > %(last)s) ORDER BY id LIMIT %(batch)s"
    ).format(identifiers(PLANNED), plan, which)
    last = None
    with conn.cursor(row_factory=dict_row) as cursor:
        while rows := cursor.execute(query, {"last": last, "batch": batch}).fetchall():
            yield rows
            last = rows[-1]["id"]


def supersede(conn: Connection, plan: sql.Identifier, ids: Collection[str]) -> None:
    """Mark planned changes as superseded: their images are no longer as the plan saw them."""
    query = sql.SQL("UPDATE {} SET _status = 'superseded' WHERE id = ANY (%s::uuid[])").format(plan)
    conn.execute(query, [list(ids)])


def as_planned(staged: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    """Return whether an image is still as the planned change saw it: status, error, time of change, places and keys.

    A place also changes if another version, as after an upgrade, reads the url in another way.
    """
    return not staged["deleted"] and all(staged[name] == planned[name] for name in ABOUT)


ORIGINAL_NOT_LOOKED_FOR = sql.SQL("WHEN i.original_key IS NULL THEN i.original_place")
STAGED_NOT_LOOKED_FOR = sql.SQL(
    "WHEN i.status <> 'ready' OR NOT i.has_staged THEN 'unneeded' WHEN i.staged_key IS NULL THEN i.staged_place"
)

# Images in processing are looked at too, but never written, since a worker is changing them.
JUDGE = """
WITH judged AS MATERIALIZED (
  SELECT i.id, i.young, {original} AS original, {staged} AS staged, i.status IN ({statuses}) AS known
  FROM {images} i
  LEFT JOIN {objects} o ON o.key = i.original_key
  LEFT JOIN {objects} s ON s.key = i.staged_key
  WHERE NOT i.deleted AND (NOT i.young OR {watched}) AND i.status <> 'error'
), doubtful AS (
  INSERT INTO {plan} ({columns}, looked, _operation, _status)
  SELECT {data}, original, staged, look.unknown, look.reason, 'error',
    CASE WHEN original = 'absent' THEN {original_missing} ELSE {staged_missing} END,
    'unknown' IN (original, staged), 'mark',
    CASE WHEN i.young AND NOT EXISTS ({noted}) THEN 'young'
      WHEN known AND 'absent' IN (original, staged) AND 'unknown' NOT IN (original, staged) THEN 'candidate'
      ELSE 'unproven' END
  FROM judged JOIN {images} i USING (id)
  LEFT JOIN LATERAL (
    SELECT CASE WHEN bool_or(later) THEN 'later' ELSE 'refused' END AS unknown, min(reason) AS reason
    FROM {objects} WHERE presence = 'unknown' AND key = ANY (
      i.original_key || i.original_others || CASE WHEN i.status = 'ready' THEN i.staged_key || i.staged_others END)
  ) look ON 'unknown' IN (original, staged)
  WHERE NOT (known AND original = 'present' AND staged IN ('present', 'unneeded'))
)
SELECT count(*) FILTER (WHERE known AND original = 'present' AND staged IN ('present', 'unneeded') AND NOT young)
FROM judged
"""

FIRST_STATE = """
CASE {not_looked_for}
  WHEN {presence} IN ('present', 'empty') THEN {presence}
  WHEN EXISTS (SELECT FROM {objects} x WHERE x.key = ANY ({others}) AND x.presence IN ('present', 'empty'))
    THEN 'elsewhere'
  WHEN {presence} = 'unknown'
    OR EXISTS (SELECT FROM {objects} x WHERE x.key = ANY ({others}) AND x.presence = 'unknown') THEN 'unknown'
  WHEN {place} = 'here or by_chance' THEN
    CASE WHEN split_part(ltrim({key}, '/'), '/', 1) IN (SELECT folder FROM pg_temp.shown_folder)
      THEN 'absent' ELSE 'foreign' END
  WHEN {place} LIKE 'here or %%' THEN substr({place}, 9)
  ELSE 'absent' END
"""

# Of the folders with which images that the first look has not found begin, and which may be the names of other buckets:
# those in which it has found any object. Each is looked up in the index by key, so this costs little.
SHOWN_FOLDERS = """
CREATE TEMPORARY TABLE shown_folder ON COMMIT DROP AS
SELECT folder FROM (
  SELECT DISTINCT split_part(ltrim(k.key, '/'), '/', 1) AS folder
  FROM {images} i
  CROSS JOIN LATERAL (VALUES (i.original_place, i.original_key), (i.staged_place, i.staged_key)) k (place, key)
  WHERE k.place = 'here or by_chance' AND NOT EXISTS (
    SELECT FROM {objects} x WHERE x.key = k.key AND x.presence IN ('present', 'empty'))
) folders
WHERE EXISTS (
  SELECT FROM {objects} x WHERE x.presence IN ('present', 'empty')
    AND x.key > (folder || '/') COLLATE "C" AND x.key < (folder || '0') COLLATE "C")
"""

# An image that a run has marked is still as its last entry in the change log left it. Its url may have changed: the
# object that its error names has to be looked at.
PLAN_HEALS = """
INSERT INTO {plan} ({columns}, looked, _operation, _status)
SELECT {data}, 'present', 'present', NULL, NULL, c.before ->> 'status', c.before ->> 'error', false, 'heal', 'candidate'
FROM {images} i CROSS JOIN LATERAL (
  SELECT before, after FROM confidence.change_log
  WHERE table_name = 'images' AND key ->> 'id' = i.id::text ORDER BY change_id DESC LIMIT 1
) c
WHERE NOT i.deleted AND NOT i.young AND i.status = 'error' AND i.error IN ({original_missing}, {staged_missing})
  AND c.after ->> 'status' = i.status AND c.after ->> 'error' = i.error
  AND (c.after ->> 'updated_at')::timestamptz = i.updated_at
  AND c.before ->> 'status' <> 'error'
  AND CASE i.error WHEN {original_missing} THEN i.original_key ELSE i.staged_key END IS NOT NULL
  AND (i.original_key IS NULL OR EXISTS (SELECT FROM {objects} x
    WHERE (x.key = i.original_key OR x.key = ANY (i.original_others)) AND x.presence = 'present'))
  AND (i.staged_key IS NULL OR c.before ->> 'status' <> 'ready' OR EXISTS (SELECT FROM {objects} x
    WHERE (x.key = i.staged_key OR x.key = ANY (i.staged_others)) AND x.presence = 'present'))
"""

CHANGES = """
SELECT p.ctid AS place, jsonb_build_object('id', p.id) AS key, 'update' AS operation,
  CASE p._status WHEN 'superseded' THEN 'young' ELSE p._status END AS status,
  coalesce(d.why, CASE p._status WHEN 'left' THEN 'a worker is changing it'
    WHEN 'young' THEN 'it has changed lately' WHEN 'superseded' THEN 'it has changed during the scan'
    WHEN 'healable' THEN 'its objects are there again, and heal was not asked for' END) AS why,
  p.looked, seen.image AS before,
  seen.image || jsonb_build_object('status', p.new_status, 'error', p.new_error) AS after
FROM {plan} p
CROSS JOIN LATERAL (
  SELECT jsonb_build_object('status', p.status, 'error', p.error, 'updated_at', p.updated_at,
    'original_key', p.original_key, 'original_object', p.original_state,
    'staged_key', p.staged_key, 'staged_object', p.staged_state) AS image
) seen
LEFT JOIN ({doubts}) d ON d.key = jsonb_build_array(p.id)
WHERE p._status IN ('confirmed', 'left', 'healable', 'unproven', 'young')
  OR p._status = 'superseded' AND p._operation = 'mark'
"""

SAMPLE = """
SELECT key FROM (
  SELECT DISTINCT unnest(ARRAY[i.original_key, CASE i.status WHEN 'ready' THEN i.staged_key END]) AS key
  FROM {images} i
  WHERE NOT i.deleted AND NOT i.young AND i.status <> 'error' AND NOT EXISTS (SELECT FROM {plan} p WHERE p.id = i.id)
    AND (uuid_hash_extended(i.id, %(seed)s) & 9223372036854775807) %% %(every)s = 0
) k WHERE key IS NOT NULL ORDER BY hashtextextended(key, %(seed)s) LIMIT %(size)s
"""

DOUBT = """
WITH looks AS (
  SELECT * FROM unnest(%(keys)s::text[], %(states)s::text[], %(unknown)s::text[], %(reasons)s::text[])
    AS l (key, state, unknown, reason)
)
INSERT INTO {plan} ({columns}, looked, _operation, _status)
SELECT {data}, coalesce(o.state, 'present'), coalesce(s.state, 'present'), coalesce(o.unknown, s.unknown),
  coalesce(o.reason, s.reason), 'error', NULL, true, 'mark', 'unproven'
FROM {images} i
LEFT JOIN looks o ON o.key = i.original_key
LEFT JOIN looks s ON s.key = i.staged_key AND i.status = 'ready'
WHERE (o.key IS NOT NULL OR s.key IS NOT NULL) AND NOT i.deleted AND NOT i.young AND i.status <> 'error'
  AND NOT EXISTS (SELECT FROM {plan} p WHERE p.id = i.id)
"""

DOUBTS = """
SELECT jsonb_build_array(id) AS key, looked, concat_ws('; ',
  CASE WHEN status NOT IN ({statuses}) THEN 'its status is none that is known here' END, {original}, {staged}) AS why
FROM {plan} WHERE _operation = 'mark' AND _status = 'unproven'
"""
