"""The second look of a check: which objects it asks for, and what all looks together say of the planned changes."""

from collections.abc import Callable, Sequence
from datetime import datetime

from psycopg import Connection, sql

from include.sources.storage.plan import MESSAGES
from include.warehouse.staging import Stage

# So many keys are looked at together. A task that is cut off goes on after the last such batch.
BATCH = 5000


def suspects_of(conn: Connection, plan: sql.Identifier, status: str = "candidate") -> Callable[[str], list[str]]:
    """Return the source of keys for `look_again`: the keys needed by the plan's rows of that status.

    It is a function that returns up to BATCH keys after a key, in order.
    """
    return _following(conn, _keys(plan, status))


def some_suspects(conn: Connection, plan: sql.Identifier, number: int, seed: int) -> Callable[[str], list[str]]:
    """Return a source of keys as `suspects_of` does, for a sample of `number` keys that depends on the seed."""
    query = sql.SQL("SELECT key FROM ({}) k ORDER BY hashtextextended(key, {}) LIMIT {}")
    keys = sql.SQL("SELECT key FROM ({}) s").format(query.format(_keys(plan, "candidate"), seed, number))
    return _following(conn, keys)


def no_suspects(after: str) -> list[str]:
    """Return no keys: a source of keys for `look_again` if nothing is to be looked at."""
    return []


def disputed(
    conn: Connection, plan: sql.Identifier, looks: Sequence[Stage], *, listed_whole: bool
) -> Callable[[str], list[str]]:
    """Return a source of keys as `suspects_of` does, for those that only one of LIST and HEAD shows.

    `listed_whole`: as in `settle`.
    """
    states = _key_states(plan, "candidate", looks, listed_whole)
    return _following(conn, sql.SQL("SELECT key FROM ({}) k WHERE state = 'disputed'").format(states))


def count_suspects(conn: Connection, plan: sql.Identifier, status: str = "candidate") -> int:
    """Return how many keys the plan's rows of that status need."""
    return conn.execute(sql.SQL("SELECT count(*) FROM ({}) k").format(_keys(plan, status))).fetchone()[0]


def _keys(plan: sql.Identifier, status: str) -> sql.Composed:
    return sql.SQL(KEYS).format(plan=plan, status=sql.Literal(status))


def _following(conn: Connection, keys: sql.Composed) -> Callable[[str], list[str]]:
    query = sql.SQL('SELECT key FROM ({}) k WHERE key > %s COLLATE "C" ORDER BY key LIMIT %s').format(keys)

    def following(after: str) -> list[str]:
        return [key for (key,) in conn.execute(query, [after, BATCH])]

    return following


def settle(
    conn: Connection,
    plan: sql.Identifier,
    looks: Sequence[Stage],
    *,
    status: str = "candidate",
    listed_whole: bool = False,
    lately: datetime | None = None,
) -> None:
    """Settle the plan's rows of that status by all looks at their objects.

    Of several looks in the same way (LIST or HEAD) the last counts. `listed_whole`: one of the looks is a complete
    listing, so a key that it doesn't show is absent by LIST. `lately`: if an image that is not young has changed after
    that time, it has done so in the future.
    """
    with conn.transaction():
        conn.execute("DROP TABLE IF EXISTS pg_temp.key_state")
        for stage in looks:
            conn.execute(sql.SQL("ANALYZE {}").format(stage.sql))
        conn.execute(
            sql.SQL("CREATE TEMPORARY TABLE key_state ON COMMIT DROP AS {}").format(
                _key_states(plan, status, looks, listed_whole)
            )
        )
        conn.execute("CREATE UNIQUE INDEX ON pg_temp.key_state (key)")
        conn.execute("ANALYZE pg_temp.key_state")
        conn.execute(
            sql.SQL(SETTLE).format(
                plan=plan,
                status=sql.Literal(status),
                original=_settled("original"),
                staged=_settled("staged"),
                lately=sql.Literal(lately),
                **MESSAGES,
            )
        )


def _settled(name: str) -> sql.Composed:
    columns = {column: sql.Identifier(f"{name}_{column}") for column in ("key", "others")}
    return sql.SQL(SETTLED).format(asked=sql.Identifier(f"asked_{name}"), **columns)


def _key_states(plan: sql.Identifier, status: str, looks: Sequence[Stage], listed_whole: bool) -> sql.Composed:
    """Return the query for the state of each key that the plan's rows of that status need, by all looks together."""
    all_looks = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {number} AS number, key, presence, reason, way, later, restorable FROM {looks}").format(
            number=number, looks=stage.sql
        )
        for number, stage in enumerate(looks)
    )
    return sql.SQL(KEY_STATES).format(
        keys=_keys(plan, status),
        looks=all_looks,
        unlisted=sql.Literal("absent" if listed_whole else None),
    )


KEYS = """
SELECT DISTINCT key FROM (
  SELECT unnest(original_key || original_others) AS key FROM {plan}
  WHERE _status = {status} AND (_operation = 'heal' OR original_state = 'absent')
  UNION ALL
  SELECT unnest(staged_key || staged_others) FROM {plan}
  WHERE _status = {status} AND (staged_state = 'absent' OR _operation = 'heal' AND new_status = 'ready')
) k
WHERE key IS NOT NULL
"""

KEY_STATES = """
SELECT k.key, coalesce(h.reason, l.reason) AS reason,
  coalesce(h.later, false) OR coalesce(l.later, false) AS later, coalesce(h.restorable, false) AS restorable,
  CASE WHEN h.presence IN ('present', 'empty') THEN
      CASE coalesce(l.presence, {unlisted}) WHEN 'absent' THEN 'disputed' ELSE h.presence END
    WHEN h.presence = 'absent' THEN CASE coalesce(l.presence, {unlisted}, 'unknown')
      WHEN 'absent' THEN 'absent' WHEN 'unknown' THEN 'unknown' ELSE 'disputed' END
    WHEN l.presence IN ('present', 'empty') THEN l.presence
    WHEN h.presence = 'unknown' THEN 'unknown'
    ELSE coalesce(l.presence, 'unknown') END AS state,
  'unknown' IN (h.presence, l.presence) IS TRUE AS one_witness
FROM ({keys}) k
LEFT JOIN LATERAL (
  SELECT * FROM ({looks}) looks WHERE key = k.key AND way = 'head' ORDER BY number DESC LIMIT 1) h ON true
LEFT JOIN LATERAL (
  SELECT * FROM ({looks}) looks WHERE key = k.key AND way = 'list' ORDER BY number DESC LIMIT 1) l ON true
"""

SETTLED = """
CASE WHEN NOT {asked} THEN NULL
  WHEN bool_or(k.state = 'present') FILTER (WHERE k.key = {key}) THEN 'present'
  WHEN bool_or(k.state = 'empty') FILTER (WHERE k.key = {key}) THEN 'empty'
  WHEN bool_or(k.state IN ('present', 'empty')) FILTER (WHERE k.key = ANY ({others})) THEN 'elsewhere'
  WHEN bool_or(k.state = 'unknown') FILTER (WHERE k.key = {key} OR k.key = ANY ({others})) THEN 'unknown'
  WHEN bool_or(k.state = 'disputed') FILTER (WHERE k.key = {key} OR k.key = ANY ({others})) THEN 'disputed'
  ELSE 'absent' END
"""

# An image whose age is not proven may be waiting for its upload. A heal is a write, so one witness is not enough for
# it: a cache may keep answers about objects that are gone.
SETTLE = """
WITH asked AS (
  SELECT *, original_key IS NOT NULL AND (_operation = 'heal' OR original_state = 'absent') AS asked_original,
    staged_key IS NOT NULL
      AND (staged_state = 'absent' OR _operation = 'heal' AND new_status = 'ready') AS asked_staged
  FROM {plan} WHERE _status = {status}
), found AS (
  SELECT q.id, q._operation, q.status, coalesce(f.original, q.original_state) AS original,
    coalesce(f.staged, q.staged_state) AS staged, f.unknown, f.reason, f.restorable, f.one_witness,
    CASE WHEN q._operation = 'heal' THEN NULL WHEN q.young THEN 'young' WHEN q.updated_at > {lately} THEN 'ahead' END
      AS age
  FROM asked q CROSS JOIN LATERAL (
    SELECT {original} AS original, {staged} AS staged,
      CASE WHEN bool_or(k.state = 'unknown' AND k.later) THEN 'later' WHEN bool_or(k.state = 'unknown') THEN 'refused'
        WHEN bool_or(k.state = 'disputed') THEN 'disputed' END AS unknown,
      min(k.reason) FILTER (WHERE k.state = 'unknown') AS reason,
      coalesce(bool_or(k.restorable) FILTER (WHERE k.state = 'absent'), false) AS restorable,
      bool_or(k.one_witness AND k.state = 'present') AS one_witness
    FROM pg_temp.key_state k WHERE k.key = ANY (
      CASE WHEN asked_original THEN original_key || original_others END
      || CASE WHEN asked_staged THEN staged_key || staged_others END)
  ) f
)
UPDATE {plan} p SET
  original_state = CASE f.original WHEN 'absent' THEN coalesce(f.age, 'absent') ELSE f.original END,
  staged_state = CASE f.staged WHEN 'absent' THEN coalesce(f.age, 'absent') ELSE f.staged END,
  unknown = f.unknown, reason = f.reason, restorable = f.restorable, looked = true,
  new_error = CASE WHEN f._operation = 'heal' THEN p.new_error
    WHEN f.original = 'absent' THEN {original_missing} ELSE {staged_missing} END,
  _status = CASE
    WHEN f._operation = 'heal' THEN
      CASE WHEN f.one_witness THEN 'noise'
        WHEN f.original IN ('present', 'elsewhere') AND f.staged IN ('present', 'elsewhere') THEN 'confirmed'
        ELSE 'noise' END
    WHEN f.original IN ('unknown', 'disputed') OR f.staged IN ('unknown', 'disputed') THEN 'unproven'
    WHEN 'absent' IN (f.original, f.staged) AND f.age IS NOT NULL THEN 'unproven'
    WHEN 'absent' IN (f.original, f.staged) THEN CASE f.status WHEN 'processing' THEN 'left' ELSE 'confirmed' END
    WHEN f.original = 'present' AND f.staged IN ('present', 'unneeded') THEN 'noise'
    ELSE 'unproven' END
FROM found f WHERE f.id = p.id
"""
