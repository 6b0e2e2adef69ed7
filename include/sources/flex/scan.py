"""The scan: compare both lists of every crew call in the scope with the desired crew. Nothing is written to Flex."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, get_args
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from include.api.errors import ApiError
from include.confidence import planned_changes, scan_log, unproven
from include.confidence.account import Account
from include.confidence.field_figures import with_fields
from include.confidence.policy import Unproven
from include.confidence.summary import ForensicSummary, Plan
from include.sources.flex import calls
from include.sources.flex.accounts import CALLS, LINES, ROWS, TABLES
from include.sources.flex.compare import EXAMPLES, compare_element, concerns_all
from include.sources.flex.crews import FlexContext, Scope, each
from include.sources.flex.patterns import find_patterns
from include.sources.flex.plan import Class
from include.sources.flex.rows import Unreadable
from include.sources.flex.sync import ENTITY, SOURCE

log = logging.getLogger(__name__)

UNPROVEN = Unproven()
PROGRESS_EVERY = 50
# After so many crew calls in a row without an answer, the scan checks whether Flex is down.
FAILED_IN_A_ROW = 5

CLASSES: tuple[str, ...] = get_args(Class)
# States of whole crew calls, counted in crew calls; and rows of ours whose line is gone, counted in rows.
WHOLE = ("unreadable", "refused", "uncertain", "stale_rows")
SIZES = ("crew_calls", "lines", "desired", "rows")

# The gate of such an element names a write that was sent, and whose outcome is not proven or unknown. So nobody knows
# the state of the element until the writer has claimed or released it.
UNCERTAIN = "SELECT flex_element_id FROM flex.element_gate WHERE operation_id IS NOT NULL"

KEEP = """
INSERT INTO flex.element_scan (scan_id, flex_element_id, figures, examples, planned, accounts, doubts)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""

FIGURES = """
SELECT f.key, sum(f.value::bigint)::bigint FROM flex.element_scan, jsonb_each_text(figures) f
WHERE scan_id = %s GROUP BY 1
"""

SAMPLES = """
SELECT e.key, (array_agg(i.id ORDER BY i.id))[1:%s]
FROM flex.element_scan, jsonb_each(examples) e, jsonb_array_elements_text(e.value) i (id)
WHERE scan_id = %s GROUP BY 1
"""

PLANNED = """
SELECT count(*) FILTER (WHERE p.value = 'insert'), count(*) FILTER (WHERE p.value = 'update'),
  count(*) FILTER (WHERE p.value = 'delete')
FROM flex.element_scan, jsonb_each_text(planned) p WHERE scan_id = %s
"""

ACCOUNTS = """
SELECT t.key, f.key, sum(f.value::bigint)::bigint
FROM flex.element_scan, jsonb_each(accounts) t, jsonb_each_text(t.value) f WHERE scan_id = %s GROUP BY 1, 2
"""

# What the scan has not looked at: out of scope, or new if it has come into scope since.
OUTSIDE = """
WITH outside AS (
  SELECT flex_element_id, flex_element_id = ANY (%(scope)s) AS new FROM (
    SELECT flex_element_id FROM flex.flex_crew_calls
    UNION SELECT flex_element_id FROM flex.owned_line WHERE gone_at IS NULL
    EXCEPT SELECT flex_element_id FROM flex.element_scan WHERE scan_id = %(scan)s
  ) e
)
SELECT %(calls)s, new, count(*) FROM outside GROUP BY 2
UNION ALL
SELECT %(lines)s, new, count(*) FROM flex.owned_line JOIN outside USING (flex_element_id)
WHERE gone_at IS NULL GROUP BY 2
UNION ALL
SELECT %(rows)s, new, count(*) FROM flex.flex_crew_assignments a
JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id JOIN outside USING (flex_element_id) GROUP BY 2
"""

DOUBTS = sql.SQL("""
SELECT d.value -> 'key' AS key, d.value ->> 'why' AS why, (d.value ->> 'looked')::boolean AS looked
FROM flex.element_scan, jsonb_array_elements(doubts -> {table}) d WHERE scan_id = {scan}
""")

# Rows on the crew calls that a scan of a part has looked at.
REMEMBERED = sql.SQL("""
SELECT key FROM confidence.unproven u WHERE source = {source} AND entity = {table} AND EXISTS (
  SELECT FROM flex.element_scan s LEFT JOIN flex.flex_crew_calls c USING (flex_element_id)
  WHERE s.scan_id = {scan} AND u.key ->> 0 IN (s.flex_element_id::text, c.id::text))
""")


# A change is named by what it does (`plan.key`): there is no row that it would write as it is.
CHANGES = """
SELECT s.ctid AS place, jsonb_build_object('element', s.flex_element_id, 'change', p.key) AS key, p.value AS operation,
  'confirmed' AS status, NULL AS why, true AS looked,
  CASE p.value WHEN 'delete' THEN told.change WHEN 'update' THEN told.change - 'change' END AS before,
  CASE WHEN p.value <> 'delete' THEN told.change END AS after
FROM flex.element_scan s, jsonb_each_text(s.planned) p, LATERAL (
  SELECT jsonb_build_object('change', p.key, 'job_id', min(c.job_id::text), 'department', min(c.department)) AS change
  FROM flex.flex_crew_calls c WHERE c.flex_element_id = s.flex_element_id
) told
WHERE s.scan_id = {scan}
"""


def scan_elements(context: FlexContext, epoch: int, scope: Scope) -> ForensicSummary:
    """Compare the scope's crew calls with the desired crews; store evidence and plan. Reads only in Flex.

    What the last attempt has read is not read again. If the answer about a crew call proves nothing, or there is none
    even at the end of the scan, the crew call is unproven with all its known lines and rows. Raises what
    `ApiClient.send` raises if that concerns all crew calls.
    """
    conn = context.conn
    scan_id = f"{context.run}/{ENTITY}/{epoch}"
    underway = f"{evidence_id(scan_id, scope)} underway"
    with conn.cursor(row_factory=scalar_row) as cursor:
        seen = set(cursor.execute("SELECT flex_element_id FROM flex.element_scan WHERE scan_id = %s", [underway]))
        uncertain = set(cursor.execute(UNCERTAIN))
    # What the last attempt has read counts, even if its job is over or cancelled since.
    elements = list(dict.fromkeys([*scope.elements(conn), *seen]))
    reading = _Reading(context, underway, uncertain, next(iter(seen), None))
    missing = [element_id for element_id in elements if element_id not in seen]
    lines = []
    for number, _ in enumerate(each(context, missing, reading.first), len(seen) + 1):
        if number % PROGRESS_EVERY == 0 and number < len(elements):
            lines.append(_progress(context, number, len(elements)))
    if elements and len(reading.put_off) == len(elements):
        raise reading.put_off[elements[0]]
    for _ in each(context, reading.put_off, reading.last):
        pass
    lines.append(_progress(context, len(elements), len(elements)))
    return _store(context, scan_id, epoch, scope, elements, lines, resumed=bool(seen))


def _store(
    context: FlexContext,
    scan_id: str,
    epoch: int,
    scope: Scope,
    elements: Sequence[UUID],
    lines: Sequence[Mapping[str, Any]],
    *,
    resumed: bool,
) -> ForensicSummary:
    """Store what the scan has found, in one transaction: evidence, plan, fields and lines of progress."""
    conn, stored_as = context.conn, evidence_id(scan_id, scope)
    with conn.transaction():
        # The plan of an earlier scan is replaced by this one.
        conn.execute("DELETE FROM flex.element_scan WHERE scan_id <> %s", [f"{stored_as} underway"])
        conn.execute("UPDATE flex.element_scan SET scan_id = %s", [stored_as])
        for table in TABLES:
            _remember(context, stored_as, table, whole=scope == Scope())
        fields = context.census.keep(conn, context.run, whole=scope == Scope(), resumed=resumed)
        summary = with_fields(_summary(context, scan_id, epoch, scope, elements), fields)
        scan_log.record(conn, summary)
        scan_log.keep_progress(conn, scan_id, lines)
        changes = sql.SQL(CHANGES).format(scan=sql.Literal(stored_as))
        planned_changes.keep(conn, summary, ENTITY, ("change",), changes)
        scan_log.keep_patterns(conn, scan_id, find_patterns(conn, ENTITY, stored_as))
    return summary


class _Reading:
    """Reads crew calls one by one, in several threads. `put_off` has those without an answer, with their errors.

    `answered` is a crew call that had an answer, None if there is none yet.
    """

    def __init__(self, context: FlexContext, underway: str, uncertain: Collection[UUID], answered: UUID | None) -> None:
        self._context, self._underway, self._uncertain = context, underway, uncertain
        self._answered = answered
        self._failed_in_a_row: list[UUID] = []
        self.put_off: dict[UUID, ApiError] = {}

    def first(self, conn: Connection, element_id: UUID) -> None:
        """Read a crew call. Without an answer it is put off to the end. Raises the error if it concerns all of Flex."""
        try:
            self._read(conn, element_id)
        except ApiError as error:
            self.put_off[element_id] = error
            self._failed_in_a_row.append(element_id)
            if concerns_all(error) or self._is_outage():
                raise
            log.warning("element %s is asked again at the end: %s", element_id, error)
        else:
            self._answered = element_id
            self._failed_in_a_row.clear()

    def last(self, conn: Connection, element_id: UUID) -> None:
        """Read a crew call that was put off. Without an answer it is unreadable now."""
        self._read(conn, element_id, last=True)

    def _is_outage(self) -> bool:
        """Return whether many crew calls in a row have failed, and one that had an answer before fails now too.

        Without the second condition a few bad crew calls next to each other would look like an outage.
        """
        if len(self._failed_in_a_row) < FAILED_IN_A_ROW:
            return False
        self._failed_in_a_row.clear()
        if self._answered is None:
            return True
        try:
            calls.lines(self._context.api, self._answered, ())
        except ApiError:
            return True
        except Unreadable:
            pass
        return False

    def _read(self, conn: Connection, element_id: UUID, *, last: bool = False) -> None:
        own = replace(self._context, conn=conn)
        found = compare_element(own, element_id, uncertain=element_id in self._uncertain, last=last)
        doubts = {table: list(map(asdict, some)) for table, some in found.accounts.doubts.items()}
        accounts = {table: _counted(account) for table, account in found.accounts.by_table.items()}
        values = (found.figures, found.examples, found.planned, accounts, doubts)
        conn.execute(KEEP, [self._underway, element_id, *map(Jsonb, values)])


def evidence(conn: Connection, summary: ForensicSummary) -> dict[UUID, frozenset[str]]:
    """Return the names of the changes that the scan has planned, by element. Elements without any are left out."""
    query = "SELECT flex_element_id, planned FROM flex.element_scan WHERE scan_id = %s AND planned <> '{}'"
    found = conn.execute(query, [evidence_id(summary.scan_id, summary.scope)]).fetchall()
    return {element_id: frozenset(planned) for element_id, planned in found}


def evidence_id(scan_id: str, scope: Scope | str) -> str:
    """Return the id of a scan's evidence in flex.element_scan."""
    return f"{scan_id}/{scope}"


def _counted(account: Account) -> dict[str, int]:
    return {name: figure for name, figure in asdict(account).items() if figure}


def _remember(context: FlexContext, stored_as: str, table: str, *, whole: bool) -> None:
    parts = {"table": sql.Literal(table), "scan": sql.Literal(stored_as), "source": sql.Literal(SOURCE)}
    part = None if whole else REMEMBERED.format(**parts)
    unproven.remember_query(context.conn, SOURCE, table, context.run, DOUBTS.format(**parts), proven=part)


def _summary(context: FlexContext, scan_id: str, epoch: int, scope: Scope, elements: Sequence[UUID]) -> ForensicSummary:
    conn, stored_as = context.conn, evidence_id(scan_id, scope)
    figures: dict[str, int] = dict(conn.execute(FIGURES, [stored_as]).fetchall())
    examples: dict[str, list[str]] = dict(conn.execute(SAMPLES, [EXAMPLES, stored_as]).fetchall())
    accounts = _accounts(context, stored_as, scope, elements)
    rows = accounts[ROWS]
    return ForensicSummary(
        source=SOURCE,
        entity=ENTITY,
        scope=str(scope),
        scan_id=scan_id,
        run=context.run,
        epoch=epoch,
        metrics={
            **{name: figures.get(name, 0) for name in (*SIZES, *CLASSES, *WHOLE)},
            **unproven.metrics(conn, SOURCE, TABLES),
        },
        telemetry={"requests": context.api.requests_sent},
        plan=Plan(*conn.execute(PLANNED, [stored_as]).fetchone()),
        live_rows=rows.looked_at,
        examples={**{f"{kind}_ids": ids for kind, ids in examples.items()}, **_unproven_examples(conn)},
        accounts=accounts,
        incomplete=UNPROVEN.no_evidence(accounts),
    )


def _unproven_examples(conn: Connection) -> dict[str, list]:
    found = unproven.examples(conn, SOURCE, TABLES)
    return {name: ids[:EXAMPLES] for name, ids in found.items() if ids}


def _accounts(context: FlexContext, stored_as: str, scope: Scope, elements: Sequence[UUID]) -> dict[str, Account]:
    """Return the accounts of all crew calls together, with those that were not looked at."""
    conn = context.conn
    figures = {table: Counter[str]() for table in TABLES}
    for table, name, number in conn.execute(ACCOUNTS, [stored_as]):
        figures[table][name] = number
    # Counted independently, so that the sum fails if a listed crew call was not looked at.
    figures[CALLS]["listed"] = len(elements)
    named = {"scan": stored_as, "scope": scope.elements(conn), "calls": CALLS, "lines": LINES, "rows": ROWS}
    for table, new, number in conn.execute(OUTSIDE, named):
        figures[table] += Counter({"live": number, "young" if new else "out_of_scope": number})
    return {table: Account(**found) for table, found in figures.items()}


def _progress(context: FlexContext, done: int, of: int) -> Mapping[str, Any]:
    """Log a line of progress; return it."""
    line = {"event": "scan_progress", "source": SOURCE, "entity": ENTITY, "crew_calls": done, "of": of}
    line["requests"] = context.api.requests_sent
    log.info(json.dumps(line, sort_keys=True))
    return line
