"""The source `flex`: its connection, its policies, and its steps."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from psycopg import Connection

from include.confidence import integrity
from include.confidence.health import Alert, Limits
from include.confidence.integrity import Severity
from include.confidence.policy import Policy, RepairShare, Trend, Unproven
from include.confidence.sides import Sides
from include.confidence.summary import ForensicSummary
from include.sources.answer_census import AnswerCensus
from include.sources.base import (
    Api,
    Check,
    Connections,
    IntegrityFailed,
    LeftOut,
    ReadAnswer,
    Synced,
    SyncFailed,
    require_all_rows,
)
from include.sources.flex import figures, repair, scan, sync, undo
from include.sources.flex.answers import ANSWERS, count
from include.sources.flex.checks import MIGRATE, verify
from include.sources.flex.crews import FlexContext, Scope
from include.sources.flex.metrics import METRICS
from include.sources.flex.roles import roles_of
from include.sources.flex.undo import FlexCopy
from include.warehouse.rate_limit import Quota
from include.warehouse.rollback import Copy
from include.warehouse.sync_log import Counts

# Lines of ours that no row leads to are deleted unless this setting says false.
PRUNE_SETTING = "FLEX_SYNC_PRUNE_ORPHANS"
# The application's tables that say who belongs where, and our rows.
CREW_TABLES = ("jobs", "profiles", "job_assignments", "flex_crew_calls", "flex_crew_assignments")
# Slightly below the vendor's quota for Enterprise, since concurrent requests can overshoot. The quota of a smaller
# contract belongs in the connection's extra.
QUOTA = Quota(per_hour=1_950, per_day=9_900)
API = Api("/f5/api", authorize=lambda token: {"X-Auth-Token": token}, quota=QUOTA)

# A change names the technician by one of three ids: the profile's, that of the contact in Flex, or of a line. Not all
# applications have titles of jobs.
PLANNED_NAME = """
concat_ws(', ', (
  SELECT string_agg(DISTINCT concat_ws(' ', t.first_name, t.last_name), ' and ')
  FROM regexp_matches(p.key ->> 'change', '[0-9a-f]{8}-[0-9a-f-]{27}', 'g') AS found (ids)
  JOIN flex.profiles t ON found.ids[1]::uuid IN (t.id, t.flex_resource_id) OR EXISTS (
    SELECT FROM flex.flex_crew_assignments a WHERE a.technician_id = t.id AND a.flex_line_item_id = found.ids[1]::uuid)
), (
  SELECT to_jsonb(j) ->> 'title' FROM flex.jobs j WHERE j.id::text = coalesce(p.after, p.before) ->> 'job_id'
), coalesce(p.after, p.before) ->> 'department')
"""
SIDES = Sides(
    copy="in Flex",
    source="in our assignments",
    after_resume=(
        "it leaves a crew call in Flex as it is until the crew of its job changes here, then makes it equal to our"
        " assignments, the differences above included"
    ),
    after_repair=(
        "It writes into Flex itself: people who belong on a crew call are added there, and lines that we made and that"
        " nobody wants any more are removed. Don't repair if our assignments are what is wrong."
    ),
    counts=(
        "Counted are people on crew calls in Flex, and listed the changes of our own rows: of a person who is added"
        " again, the row with the lost line is deleted and a new one inserted."
    ),
)
OVER = LeftOut(
    missing={"jobs that are over": "nobody is called to them any more. A change of one is brought to Flex all the same"}
)


@dataclass(frozen=True)
class CrewCalls:
    """The only entity.

    Changes that people make in Flex (their own contacts, a deleted line) are drift too. So only trends are judged.
    """

    name: str = sync.ENTITY
    refers_to: frozenset[str] = frozenset()
    leaves_out: LeftOut = OVER
    gates: tuple[Policy, ...] = (
        Trend("missing_in_flex"),
        Trend("missing_row"),
        Trend("duplicate_in_flex", absolute=5),
        Trend("unknown_in_flex"),
        Trend("undesired_owned"),
        Trend("role_mismatch"),
        Trend("unreadable", absolute=5),
        Trend("refused", absolute=5),
        Trend("uncertain", absolute=5),
        Trend("stale_rows"),
    )
    repair_share: RepairShare = field(default_factory=RepairShare)
    unproven: Unproven = scan.UNPROVEN


@dataclass(frozen=True)
class Flex:
    """The source. The warehouse is the truth, and the copy is in Flex, where a crew sees each wrong write.

    `workers`: the number of crew calls worked on at the same time, each with one request after the other. `pauses`:
    seconds to wait before Flex is asked again about something that proves nothing.
    """

    name: str = sync.SOURCE
    entities: tuple[CrewCalls, ...] = (CrewCalls(),)
    switch: str | None = None
    connections: tuple[str, ...] = (sync.SOURCE,)
    health: Limits = field(default_factory=Limits)
    metric_texts: Mapping[str, str] = field(default_factory=lambda: METRICS)
    # No record is mirrored, so no field has a path.
    answer_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    read_answers: tuple[ReadAnswer, ...] = ANSWERS
    sides: Sides = SIDES
    planned_name: str = PLANNED_NAME
    workers: int = 4
    pauses: tuple[float, ...] = (1.0, 4.0)

    @contextmanager
    def open(self, conn: Connection, run: str, connections: Connections) -> Iterator[FlexContext]:
        require_all_rows(conn, "warehouse", [f"{self.name}.{table}" for table in CREW_TABLES])
        roles = roles_of(connections.settings(self.name))
        prune = (connections.variable(PRUNE_SETTING) or "true").strip().lower() not in ("false", "0")
        with connections.api(self.name, API) as api:
            census = AnswerCensus(self.name, ANSWERS)
            api.listen(partial(count, census))
            yield FlexContext(self, conn, run, api, roles, connections, prune, census)

    def sync(self, context: FlexContext, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
        if dry_run:
            raise SyncFailed(f"a sync of {self.name} writes: it has no dry run. Trigger {self.name}_reconcile for that")
        if params["mode"] == "validate":
            return _validated(context)
        synced = sync.sync_elements(context, params)
        with context.conn.transaction():
            context.census.keep(context.conn, context.run, whole=False)
        return synced

    def scan(self, context: FlexContext, entity: str, epoch: int, params: Mapping[str, Any]) -> ForensicSummary:
        return scan.scan_elements(context, epoch, Scope.of(params))

    def repair(
        self, context: FlexContext, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, Counts]]:
        (summary,) = summaries
        return repair.repair_elements(context, summary)

    def verify(self, context: FlexContext, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
        return repair.verify_repair(context, summaries[0], sync_id)

    def reset_watermarks(self, context: FlexContext) -> int:
        return undo.skip_changes(context)

    @contextmanager
    def copy(self, conn: Connection, connections: Connections) -> Iterator[Copy]:
        with self.open(conn, "", connections) as context:
            yield FlexCopy(context)

    def alerts(self, conn: Connection) -> Sequence[Alert]:
        return figures.alerts(conn)

    def result(
        self, summaries: Sequence[ForensicSummary], counts: Mapping[str, Counts], *, dry_run: bool
    ) -> Mapping[str, Any]:
        return {}


def _validated(context: FlexContext) -> Synced:
    """Check our tables and store the findings in confidence.integrity_check.

    Raises IntegrityFailed if a check of severity error has failed.
    """
    findings = verify(context.conn)
    integrity.record(context.conn, context.source.name, context.run, findings)
    failed = [finding for finding in findings if finding.failed]
    errors = [str(finding) for finding in failed if finding.severity is Severity.ERROR]
    if errors:
        raise IntegrityFailed(
            f"{len(errors)} of {len(findings)} checks of our tables failed: {'; '.join(errors)}. {MIGRATE}"
        )
    return Synced(None, {}, {"checks": len(findings), "warnings": [str(finding) for finding in failed]})
