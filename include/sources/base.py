"""The contract of every source. Code outside a source's package calls these methods and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from psycopg import Connection

from include.api.client import ApiClient
from include.api.error_policy import ErrorPolicy
from include.api.errors import FixConfiguration
from include.confidence.health import Alert, Limits
from include.confidence.policy import FIELD_GATES, Growth, Lasting, Policy, RepairShare, Trend, Unproven
from include.confidence.sides import Sides
from include.confidence.summary import ForensicSummary
from include.warehouse.rate_limit import Quota
from include.warehouse.rollback import Copy
from include.warehouse.row_security import hidden
from include.warehouse.sync_log import Counts

if TYPE_CHECKING:
    from include.api.bucket import Bucket


class ScanRefused(ValueError):
    """The run's params contradict each other, or there is nothing to scan yet. The message says what to change."""


class SyncFailed(Exception):
    """Something could not be synced. The message says what, why, and what to do."""


class NeedsPerson(SyncFailed):
    """The source refuses our credentials or the request. Trying again is useless until a person has acted."""


class IntegrityFailed(Exception):
    """Rows of the copy contradict each other. The message names checks and rows, and says what to do."""


class OutcomeUnknown(SyncFailed):
    """Nobody knows whether a write to a copy outside the warehouse happened. It is not repeated.

    The message says what to do.
    """


@dataclass(frozen=True)
class Api:
    """What a source says of its API, besides the address and the token in the connection.

    - `base_path`: the path after the connection's host
    - `authorize`: make the request headers from the token
    - `per_minute`, `quota`: the limits for the requests of all runs together; None is no limit
    - `error_policy`: what the API's own statuses mean
    """

    base_path: str
    authorize: Callable[[str], Mapping[str, str]]
    per_minute: float | None = None
    quota: Quota = field(default_factory=Quota)
    error_policy: ErrorPolicy = field(default_factory=ErrorPolicy)


class Connections(Protocol):
    """Opens what a source works with, by the name of the connection. Everything is closed with the `with` block."""

    def api(self, name: str, api: Api) -> AbstractContextManager[ApiClient]:
        """Open an HTTP API."""

    def settings(self, name: str) -> Mapping[str, Any]:
        """Return the connection's settings other than address and token."""

    def variable(self, name: str) -> str | None:
        """Return a setting of the installation by its name, None if nobody has set it."""

    def bucket(self, name: str) -> "AbstractContextManager[Bucket]":
        """Open the bucket that the connection names, on any S3 endpoint."""

    def database(self, name: str) -> AbstractContextManager[Connection]:
        """Open a Postgres database in autocommit."""


class Context(Protocol):
    """A source opened for the run `run` (`dag_id/run_id`). `conn` is the warehouse in autocommit."""

    source: "Source"
    conn: Connection
    run: str


@dataclass(frozen=True)
class LeftOut:
    """What the lists of an entity leave out unless they are asked for it, such as archived or inactive records.

    - `asked_for`: {what the lists would leave out: the name of the parameter that asks for it}
    - `missing`: {what they leave out all the same, so that the copy lacks it: why}

    Raises ValueError if a parameter or a reason is missing.
    """

    asked_for: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(self.asked_for.values()):
            raise ValueError("name the parameter that asks for what the list would leave out")
        if not all(self.missing.values()):
            raise ValueError("say why the copy lacks what the list leaves out")


# For an entity whose lists show all records.
NOTHING = LeftOut()


@dataclass(frozen=True)
class ReadAnswer:
    """Which fields of an answer are read, if no table has its records. The answer may be a part of another one.

    - `answer`: which of the vendor's answers it is, in words
    - `read`: {field: what it is read for}
    - `ignored`: {field: why it is ignored}
    - `rest`: why all other fields that the vendor may send are ignored
    - `counted_as`: the name under which the census has the fields; empty if nothing counts them
    - `types`: {field that is read: the only type that can be read, by its name in the census}
    - `enumerations`: the fields with a small set of the vendor's words, which the census keeps

    Raises ValueError if a reason is missing, a field is both read and ignored, or `types` names one that is not read.
    """

    answer: str
    read: Mapping[str, str]
    ignored: Mapping[str, str]
    rest: str
    counted_as: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    enumerations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all((self.rest, *self.read.values(), *self.ignored.values())):
            raise ValueError(f"{self.answer}: say of each field what it is read for, or why it is ignored")
        if both := sorted(self.read.keys() & self.ignored.keys()):
            raise ValueError(f"{self.answer}: fields are both read and ignored: {', '.join(both)}")
        if unread := sorted(self.types.keys() - self.read.keys()):
            raise ValueError(f"{self.answer}: fields have a type and are not read: {', '.join(unread)}")


class ScannedEntity(Protocol):
    """The unit that a scan looks at, with its policies. `policies()` adds those of every source.

    - `leaves_out`: what its lists leave out. Every entity says so, if only `NOTHING`.
    - `refers_to`: the names of the entities to which its rows refer
    """

    name: str
    refers_to: frozenset[str]
    leaves_out: LeftOut
    gates: tuple[Policy, ...]
    repair_share: RepairShare
    unproven: Unproven


@dataclass(frozen=True)
class Synced:
    """What a sync did: the counts of each entity, and figures as `Source.result` names them.

    `sync_id` is None if the sync only checked the copy.
    """

    sync_id: int | None
    counts: Mapping[str, Counts]
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One figure of an entity, as the scan found it (`before`) and after the repair.

    It is `worse` if it has grown by more than `margin`.
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
    """A source with its copy. `params` are those of the DAG run.

    - `switch`: the name of a setting that has to be 1 before the copy may be changed, None if there is none
    - `connections`: the names of the connections that it needs
    - `health`: the figures of syncs above which there is an alert
    - `metric_texts`: what the metrics of its scans mean, in a sentence each
    - `answer_names`: by table, as `Table.answers`
    - `read_answers`: what is read of the answers whose records no table has
    - `sides`: what people call copy and source, and what an answer to a question does there
    - `planned_name`: SQL for what people call the row of a planned change `p` (`confidence.planned_change`), as far as
      the warehouse knows it; empty for a source whose keys say enough. The pages show it, and nothing keeps it.
    """

    name: str
    entities: Sequence[ScannedEntity]
    switch: str | None
    connections: tuple[str, ...]
    health: Limits
    metric_texts: Mapping[str, str]
    answer_names: Mapping[str, Mapping[str, str]]
    read_answers: tuple[ReadAnswer, ...]
    sides: Sides
    planned_name: str

    def open(self, conn: Connection, run: str, connections: Connections) -> AbstractContextManager[Context]:
        """Open the context that the steps of a run get."""

    def sync(self, context: Context, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
        """Bring the copy in step with what changed since the watermark.

        Raises SyncFailed, or its kinds NeedsPerson and OutcomeUnknown.
        """

    def scan(self, context: Context, entity: str, epoch: int, params: Mapping[str, Any]) -> ForensicSummary:
        """Compare one entity with its copy; leave evidence and plan in the warehouse. Raises ScanRefused.

        `epoch` is the number of the stop of the writer.
        """

    def repair(
        self, context: Context, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, Counts]]:
        """Apply the plans of all scans under one sync_id; return it with the counts by entity. Raises PlanGone."""

    def verify(self, context: Context, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
        """Compare the repaired copy with the scans and a sample of it with the source. `sync_id` is the repair's."""

    def reset_watermarks(self, context: Context) -> int:
        """Set the watermarks to the source's present time; return the sync_id of this change."""

    def copy(self, conn: Connection, connections: Connections) -> AbstractContextManager[Copy]:
        """Open the copy for a rollback."""

    def alerts(self, conn: Connection) -> Sequence[Alert]:
        """Return alerts about figures that only this source has, besides those that `health` limits."""

    def result(
        self, summaries: Sequence[ForensicSummary], counts: Mapping[str, Counts], *, dry_run: bool
    ) -> Mapping[str, Any]:
        """Return a run's figures under the names that the source's users know; empty if it has no such names."""


class SlicedSource(Source, Protocol):
    """A source whose scan several tasks can read together, each of them a slice.

    One task calls `scan`, which reads what nobody else does, and alone compares, accounts and plans. The others help.
    """

    def read_slice(
        self, context: Context, entity: str, epoch: int, params: Mapping[str, Any], slice_number: int
    ) -> int:
        """Read for the scan of that epoch what nobody reads yet. Return the number of pages.

        `slice_number`: from 1 on; a later try of the same slice takes over what the earlier one was reading.
        """


def entity_of(source: Source, name: str) -> ScannedEntity:
    """Return the source's entity of that name. Raises KeyError naming the known ones."""
    for entity in source.entities:
        if entity.name == name:
            return entity
    raise KeyError(f"{source.name} has no entity {name!r}; it has {', '.join(e.name for e in source.entities)}")


def require_lookback(name: str, lookback: timedelta, every: timedelta) -> None:
    """Raise ValueError unless the lookback is longer than the time between two syncs.

    Then each sync reads again what the one before read, and finds rows that it missed.
    """
    if lookback <= every:
        raise ValueError(
            f"the lookback of {name} ({lookback}) is not longer than the time between two syncs ({every}): what one"
            " sync missed would have no second chance"
        )


def require_all_rows(conn: Connection, connection: str, tables: Sequence[str]) -> None:
    """Raise FixConfiguration if row level security hides rows of another application's tables from us.

    They would look as if nobody had them: people would be taken off, objects would belong to nobody. `connection` is
    the name of the connection that `conn` was opened by.
    """
    if found := hidden(conn, tables):
        raise FixConfiguration(
            f"row level security hides rows of {', '.join(found)} from the user of connection {connection!r}, so"
            " nothing can be told from a row that is not there. Give this user BYPASSRLS, or a policy FOR SELECT"
            " USING (true)"
        )


def policies(entity: ScannedEntity) -> list[Policy]:
    """Return all policies that judge the entity: its own gates, `Growth` for each trend, those of every entity.

    A trend whose metric has a `Growth` among the gates already gets no other. An added `Growth` allows no more rows
    than its trend.
    """
    own = {gate.metric for gate in entity.gates if isinstance(gate, Growth)}
    trends = [gate for gate in entity.gates if isinstance(gate, Trend) and gate.metric not in own]
    growth = [Growth(trend.metric, absolute=min(trend.absolute, Growth.absolute)) for trend in trends]
    return [*entity.gates, *growth, Lasting(), entity.repair_share, entity.unproven, *FIELD_GATES]
