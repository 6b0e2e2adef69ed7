"""What every source offers, of whatever kind: code that knows no source calls these, and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from psycopg import Connection

from include.api.client import ApiClient
from include.confidence.health import Alert, Limits
from include.confidence.policy import Growth, Policy, RepairShare, Trend, Unproven
from include.confidence.summary import ForensicSummary
from include.warehouse.rate_limit import Quota
from include.warehouse.rollback import Copy
from include.warehouse.sync_log import Counts

if TYPE_CHECKING:
    from include.api.bucket import Bucket


class ScanRefused(ValueError):
    """The scan's params contradict each other, or there is nothing to scan yet. The message says what to change."""


class SyncFailed(Exception):
    """Something could not be synced. The message says what, why, and what to do."""


class NeedsPerson(SyncFailed):
    """The source refuses our credentials or the request: no later try mends it before a person has acted."""


class IntegrityFailed(Exception):
    """The copy breaks what has to hold in it. The message names checks and rows, and says what to do."""


class OutcomeUnknown(SyncFailed):
    """A write to a copy that is not in our hands may have happened, and is never repeated.

    The message says what to do.
    """


class Connections(Protocol):
    """Opens what a source works with, each by the name of its connection; closed again with the `with` block."""

    def api(
        self,
        name: str,
        *,
        base_path: str,
        authorize: Callable[[str], Mapping[str, str]],
        per_minute: float | None,
        quota: Quota | None = None,
    ) -> AbstractContextManager[ApiClient]:
        """An HTTP API: `base_path` follows the host, `authorize` makes the headers from the connection's token."""

    def settings(self, name: str) -> Mapping[str, Any]:
        """What the connection says beside address and token."""

    def variable(self, name: str) -> str | None:
        """A setting of the installation by its name; None where nobody has set it."""

    def bucket(self, name: str) -> "AbstractContextManager[Bucket]":
        """The bucket that the connection names, on any S3 endpoint."""

    def database(self, name: str) -> AbstractContextManager[Connection]:
        """A Postgres database in autocommit."""


class Context(Protocol):
    """A source opened for a run (`dag_id/run_id`): `conn` is the warehouse in autocommit."""

    source: "Source"
    conn: Connection
    run: str


class Entity(Protocol):
    """What one scan looks at, and its policies; `policies` adds what holds for every source."""

    name: str
    gates: tuple[Policy, ...]
    repair_share: RepairShare
    unproven: Unproven


@dataclass(frozen=True)
class Synced:
    """What a sync did: the counts of each entity, and its result under the names of `Source.result`.

    `sync_id` is None where it only looked.
    """

    sync_id: int | None
    counts: Mapping[str, Counts]
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One figure of an entity before and after the repair.

    It is `worse` if it got larger than the scan found it, by more than `margin`.
    """

    entity: str
    figure: str
    before: int
    after: int
    margin: int = 0

    @property
    def worse(self) -> bool:
        return self.after > self.before + self.margin


class Source(Protocol):
    """A source with its copy. `params` are those of the DAG that asks.

    `switch` names the setting that has to be 1 before anything is applied to the copy; None where there is none.
    `health`: above which figures of its syncs there is an alert.
    """

    name: str
    entities: Sequence[Entity]
    switch: str | None
    health: Limits

    def open(self, conn: Connection, run: str, connections: Connections) -> AbstractContextManager[Context]:
        """The context in which all other steps work."""

    def sync(self, context: Context, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
        """Bring the copy in step with what changed since the watermark. Raises SyncFailed, or OutcomeUnknown."""

    def scan(self, context: Context, entity: str, epoch: int, params: Mapping[str, Any]) -> ForensicSummary:
        """Compare one entity with its copy, leave evidence and plan in the warehouse. Raises ScanRefused."""

    def repair(
        self, context: Context, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, Counts]]:
        """Apply the plans of all scans under one sync_id; return it with the counts. Raises PlanGone."""

    def verify(self, context: Context, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
        """Compare the copy after the repair with the scans and, for a sample of it, with the source."""

    def reset_watermarks(self, context: Context) -> int:
        """Set the watermarks to the source's present time; return the sync_id of that."""

    def copy(self, conn: Connection, connections: Connections) -> AbstractContextManager[Copy]:
        """The copy as a rollback needs it."""

    def alerts(self, conn: Connection) -> Sequence[Alert]:
        """What of the source's own figures is above its limits, beside what `health` says of all."""

    def result(
        self, summaries: Sequence[ForensicSummary], counts: Mapping[str, Counts], *, dry_run: bool
    ) -> Mapping[str, Any]:
        """A run's figures under the names that the source's users know; empty where the summaries say it all."""


def entity_of(source: Source, name: str) -> Entity:
    """Return the source's entity of that name. Raises KeyError naming the known ones."""
    for entity in source.entities:
        if entity.name == name:
            return entity
    raise KeyError(f"{source.name} has no entity {name!r}; it has {', '.join(e.name for e in source.entities)}")


def require_lookback(name: str, lookback: timedelta, every: timedelta) -> None:
    """Raise ValueError unless a sync reads again what the one before has read: a row that it missed is read then."""
    if lookback <= every:
        raise ValueError(
            f"the lookback of {name} ({lookback}) is not longer than the time between two syncs ({every}): what one"
            " sync missed would have no second chance"
        )


def policies(entity: Entity) -> list[Policy]:
    """By what the entity's figures are judged: its gates and, as in every source, their growth and what is unproven.

    A gate `Growth` of the entity's own replaces the one that its metric would get, which is never laxer in rows than
    the trend.
    """
    own = {gate.metric for gate in entity.gates if isinstance(gate, Growth)}
    trends = [gate for gate in entity.gates if isinstance(gate, Trend) and gate.metric not in own]
    growth = [Growth(trend.metric, absolute=min(trend.absolute, Growth.absolute)) for trend in trends]
    return [*entity.gates, *growth, entity.repair_share, entity.unproven]
