"""The mirrored source: an API with its entities, and the steps that every source offers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from psycopg import Connection

from include.api.envelopes import ENVELOPES, FAILED
from include.api.error_policy import ErrorPolicy
from include.confidence.health import Alert, Limits
from include.confidence.sides import Sides
from include.confidence.summary import ForensicSummary
from include.sources.base import Api, Check, Connections, ReadAnswer, Synced, SyncFailed, entity_of, require_lookback
from include.sources.mirror import metrics
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.derive import Derived
from include.sources.mirror.entity import Child, Entity, Listed
from include.sources.mirror.invariant import Invariant
from include.sources.mirror.repair import repair_entities, reset_watermarks, verify_repair
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.sources.mirror.validate import validate
from include.warehouse.readers import identifier, integer, text
from include.warehouse.rollback import Copy
from include.warehouse.sync_log import Counts
from include.warehouse.table_rollback import Tables


@dataclass(frozen=True)
class Mirror:
    """A source whose lists are mirrored in the warehouse. `Source` in `include/sources/base.py` describes the methods.

    - `base_path`: the path after the connection's host
    - `authorize`: make the request headers from the connection's token
    - `every`: the time between two syncs, as in the schedule of the DAG
    - `lookback`: how far behind the watermark each sync reads again. It is longer than `every`, so a row missed by one
      sync has a second chance.
    - `derived`: tables to compute after each sync and repair, in this order
    - `checks`: the invariants of the copy
    - `per_minute`: the vendor's limit of requests, None for no limit
    - `error_policy`: what the API's own statuses mean
    - `own_metrics`: what the metrics of its own forensics mean, in a sentence each
    - `sides`, `planned_name`: as in `Source`
    - `in_brief`: what is read of records that lists show in brief
    - `enumerations`: by table, the fields with a small set of the vendor's words, such as a status. The census of
      fields keeps their values, so name none that people fill in.

    Raises ValueError where the declaration contradicts itself.
    """

    name: str
    base_path: str
    authorize: Callable[[str], Mapping[str, str]]
    entities: tuple[Entity, ...]
    every: timedelta
    derived: tuple[Derived, ...] = ()
    checks: tuple[Invariant, ...] = ()
    per_minute: float | None = None
    error_policy: ErrorPolicy = field(default_factory=ErrorPolicy)
    lookback: timedelta = timedelta(minutes=20)
    switch: str | None = None
    health: Limits = field(default_factory=Limits)
    own_metrics: Mapping[str, str] = field(default_factory=dict)
    enumerations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sides: Sides = field(default_factory=Sides)
    planned_name: str = ""
    in_brief: tuple[ReadAnswer, ...] = ()

    def __post_init__(self) -> None:
        if self.base_path and (not self.base_path.startswith("/") or self.base_path.endswith("/")):
            raise ValueError(
                f"the base_path of {self.name}, {self.base_path!r}, begins with / and doesn't end with one"
            )
        names = [entity.name for entity in self.entities]
        unknown = sorted(frozenset[str]().union(*(entity.refers_to for entity in self.entities)) - set(names))
        if unknown:
            raise ValueError(f"{self.name} has no entities {', '.join(unknown)}, which others name")
        if len(set(names)) < len(names):
            raise ValueError(f"two entities of {self.name} have the same name")
        for child in self.entities:
            if isinstance(child, Child):
                _require_parent(child, entity_of(self, child.parent))
        for entity in self.entities:
            for each in (*entity.needs, *entity.implied):
                _require_key_of(entity, each.by, entity_of(self, each.entity))
        tables = [table for entity in self.entities for table in entity.tables]
        tables += [derived.table for derived in self.derived]
        if astray := [table.full_name for table in tables if table.schema != self.name]:
            raise ValueError(f"the tables of {self.name} are in the schema of its name, and {', '.join(astray)} is not")
        unknown = sorted(set(self.enumerations) - {table.name for table in tables})
        if unknown:
            raise ValueError(f"{self.name} has no tables {', '.join(unknown)}, whose enumerations it names")
        require_lookback(self.name, self.lookback, self.every)

    @property
    def connections(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def metric_texts(self) -> Mapping[str, str]:
        return metrics.metric_texts(self.entities, self.checks) | self.own_metrics

    @property
    def answer_names(self) -> Mapping[str, Mapping[str, str]]:
        return {table.name: table.answers for entity in self.entities for table in entity.tables if table.answers}

    @property
    def read_answers(self) -> tuple[ReadAnswer, ...]:
        """What is read around the records of lists, and of records in brief. The census counts all whole records."""
        return (_around_records(self.entities), *self.in_brief)

    def children(self, entity: Entity) -> tuple[Child, ...]:
        """Return the entities whose parent is this one."""
        return tuple(each for each in self.entities if isinstance(each, Child) and each.parent == entity.name)

    @contextmanager
    def open(self, conn: Connection, run: str, connections: Connections) -> Iterator[MirrorContext]:
        api = Api(self.base_path, self.authorize, self.per_minute, error_policy=self.error_policy)
        with connections.api(self.name, api) as client:
            yield MirrorContext(self, client, conn, run, settings=connections.settings(self.name))

    def sync(self, context: MirrorContext, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
        if dry_run:
            raise SyncFailed(f"a sync of {self.name} writes: it has no dry run. Trigger {self.name}_reconcile for that")
        context = replace(context, params=params)
        if params["mode"] == "validate":
            findings = validate(context)
            return Synced(None, {}, {"checks": len(findings), "warnings": [str(f) for f in findings if f.failed]})
        return Synced(*sync_entities(context, full=params["mode"] != "incremental"))

    def scan(self, context: MirrorContext, entity: str, epoch: int, params: Mapping[str, Any]) -> ForensicSummary:
        return scan_entity(replace(context, params=params), entity_of(self, entity), epoch, self.scope(entity, params))

    def scope(self, entity: str, params: Mapping[str, Any]) -> Scope:
        """Return what part of the entity a scan with these params looks at."""
        return Scope.of(params)

    def repair(
        self, context: MirrorContext, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, Counts]]:
        return repair_entities(context, summaries)

    def verify(self, context: MirrorContext, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
        return verify_repair(context, summaries, sync_id)

    def reset_watermarks(self, context: MirrorContext) -> int:
        return reset_watermarks(context)

    def copy(self, conn: Connection, connections: Connections) -> AbstractContextManager[Copy]:
        return nullcontext(Tables(conn))

    def alerts(self, conn: Connection) -> Sequence[Alert]:
        return ()

    def result(
        self, summaries: Sequence[ForensicSummary], counts: Mapping[str, Counts], *, dry_run: bool
    ) -> Mapping[str, Any]:
        return {}


def _around_records(entities: Sequence[Entity]) -> ReadAnswer:
    """Return what is read of the answers around the records of the entities' lists."""
    paginators = [entity.paginator for entity in entities if isinstance(entity, Listed)]
    beside = sorted({name for paginator in paginators for name in paginator.beside})
    return ReadAnswer(
        "what stands around the records of a list",
        read={
            **dict.fromkeys(beside, "whether and where the list goes on, how much it has, and up to when"),
            **dict.fromkeys((*ENVELOPES, *FAILED), "an error in place of the records"),
        },
        ignored={},
        rest="they describe the answer, and no record",
    )


def _require_parent(child: Child, parent: Entity) -> None:
    """Raise ValueError unless the entity can be the parent of these children."""
    if isinstance(parent, Child):
        raise ValueError(f"{child.name} names {parent.name} as its parent, which has a parent itself")


def _require_key_of(entity: Entity, by: Sequence[str], other: Entity) -> None:
    """Raise ValueError unless the columns `by` can have the other entity's key: as many columns, of the same types."""
    if len(by) != len(other.table.key):
        raise ValueError(f"{entity.name} doesn't name the key of {other.name} by {', '.join(by)}")
    readers = [{column.name: column.read for column in each.table.columns} for each in (entity, other)]
    for name, key in zip(by, other.table.key, strict=True):
        if {_kind(readers[0][name]), _kind(readers[1][key])} == {"text", "number"}:
            raise ValueError(
                f"{entity.name}.{name} is {_kind(readers[0][name])} and names {other.name}.{key}, which is"
                f" {_kind(readers[1][key])}: give both the same reader"
            )


def _kind(read: Callable[[Any], Any]) -> str:
    """Return what a column's reader makes: text, a number, or something that is not known here."""
    return {text: "text", integer: "number", identifier: "number"}.get(read, "unknown")
