"""The kinds of entity of a mirrored source, and how their records belong together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, ClassVar, Protocol

from psycopg import Connection, sql

from include.api.errors import RefuseData
from include.api.paginators import PageNumber, Paginator, SpringPage
from include.api.request import Answer, Request
from include.confidence.policy import Growth, RepairShare, Trend, Unproven
from include.sources.base import NOTHING, LeftOut, entity_of
from include.sources.mirror.changes import BothEnds, Changes, Deletes, Feed, FullList, Since, Window
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.listing import Listing, Partitions
from include.sources.mirror.lookup_mistakes import lookup_mistake
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.table import Table

# The default gates: one for each way in which source and copy can differ.
DRIFT = (Trend("api_unique_not_in_db"), Trend("db_not_in_api_unique"), Trend("rows_differing"))
# The gate that every entity with nested rows has besides.
NESTED_DRIFT = Trend("nested_rows_drifted")


@dataclass(frozen=True)
class Need:
    """A reference to a record of another entity, by the columns `by`. A sync looks up what the copy lacks."""

    entity: str
    by: tuple[str, ...]


@dataclass(frozen=True)
class Implies:
    """A row of another entity that exists as long as a row does, by the columns `by`.

    If neither its list nor the copy has it, a scan looks it up. Don't declare it of rows that may outlive the other,
    such as orders of a deleted customer: each of them would be looked up night by night.

    `where`: SQL over rows `t`, true if the row implies the other
    """

    entity: str
    by: tuple[str, ...]
    where: str = "true"


@dataclass(frozen=True)
class Part:
    """Nested rows: they come inside an entity's records and have a table of their own.

    `rows`: extract them from a record, with the record's key in the columns `by`. The rows of one record are written
    as a set.
    """

    table: Table
    rows: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]
    by: tuple[str, ...]


@dataclass(frozen=True)
class Cascade:
    """An implicit delete: a row is deleted because a row of another entity is, whatever its own list shows.

    - `condition`: SQL over rows `t`, true if the row is implicitly deleted because another was
    - `entity`, `by`: the entity of the other row, and the columns that point to it
    - `alive`: return whether a record of that entity, as the source shows it, is not deleted. A scan asks the source
      this, since the other row may be deleted in the copy by mistake.
    """

    condition: str
    entity: str
    by: tuple[str, ...]
    alive: Callable[[Mapping[str, Any]], bool]


class Forensics(Protocol):
    """Compute further metrics of a scan, from the copy and the plan of the scan."""

    def __call__(self, conn: Connection, plan: sql.Identifier) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Entity:
    """A kind of record with the table that mirrors it. Declare a `Listed`, `Child` or `Discovered`.

    - `leaves_out`: what its lists leave out unless they are asked for it. Must be given: `NOTHING` if they show all
    - `needs`: the records of other entities that its records refer to
    - `implies`: the rows of other entities that exist as long as its rows do
    - `cascade`: the rows that are implicitly deleted with rows of another entity. They are in this entity's plan, so a
      sync changes no row twice.
    - `gates`, `repair_share`, `unproven`: its policies; with nested rows, `NESTED_DRIFT` is added to the gates
    - `forensics`: further metrics of its scans

    Raises ValueError where the declaration contradicts itself.
    """

    table: Table
    lookup: Lookup
    _: KW_ONLY
    # None is refused: a default would let the statement be forgotten.
    leaves_out: LeftOut | None = None
    needs: tuple[Need, ...] = ()
    implies: tuple[Implies, ...] = ()
    cascade: Cascade | None = None
    gates: tuple[Trend | Growth, ...] = DRIFT
    repair_share: RepairShare = field(default_factory=RepairShare)
    unproven: Unproven = field(default_factory=Unproven)
    forensics: Forensics | None = None

    # Only some kinds have these. `read_every`: the least time between two readings, if syncs read whole lists.
    changes: ClassVar[Changes | None] = None
    deletes: ClassVar[Deletes | None] = None
    views: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    parts: ClassVar[tuple[Part, ...]] = ()
    partitions: ClassVar[Partitions | None] = None
    history: ClassVar[bool] = False
    ended: ClassVar[str] = "false"
    read_every: ClassVar[timedelta | None] = None

    def __post_init__(self) -> None:
        wrong = self._column_mistake() or self._mistake() or self._statement_mistake() or self._lookup_mistake()
        if wrong:
            raise ValueError(f"{self.table.full_name}: {wrong}")
        if self.parts and NESTED_DRIFT not in self.gates:
            object.__setattr__(self, "gates", (*self.gates, NESTED_DRIFT))

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def tables(self) -> tuple[Table, ...]:
        """The entity's own table, then those of its nested rows."""
        return (self.table, *(part.table for part in self.parts))

    @property
    def refers_to(self) -> frozenset[str]:
        """The names of the entities to which its rows refer."""
        return frozenset(each.entity for each in (*self.needs, *self.implied))

    @property
    def implied(self) -> tuple[Implies, ...]:
        """The rows of other entities that exist as long as its own do: `implies`, and those that its rows belong to."""
        found = [*self.implies]
        if self.cascade:
            found.append(Implies(self.cascade.entity, self.cascade.by))
        if self.partitions and self.partitions.listed_by:
            found.append(Implies(self.partitions.listed_by, (self.partitions.column,)))
        return tuple(found)

    @property
    def place(self) -> tuple[str, ...]:
        """The columns that tell to what a row belongs, such as its partition: one row can't belong to two at once."""
        return (self.partitions.column,) if self.partitions else ()

    def _mistake(self) -> str:
        """Return what this kind of entity can't have; empty if the declaration is right."""
        raise TypeError("an entity is Listed, Child or Discovered")

    def _statement_mistake(self) -> str:
        if self.leaves_out is None:
            return (
                "it doesn't say what its list leaves out, such as archived or inactive records: say"
                " leaves_out=NOTHING or leaves_out=LeftOut(...)"
            )
        # Partitions may bring the parameter, and lists in brief are made by the run: there the contract looks for it.
        if isinstance(self, Listed | Child) and not self.partitions:
            asked = self.listing.param_names.union(*self.views)
            unasked = sorted(set(self.leaves_out.asked_for.values()) - asked)
            if unasked:
                return (
                    f"its leaves_out names a parameter that no request of its lists has: {', '.join(unasked)}. Put it"
                    " into listing or views"
                )
        return ""

    def _lookup_mistake(self) -> str:
        return lookup_mistake(self.table, self.lookup, of_parent=isinstance(self, Child))

    def _column_mistake(self) -> str:
        columns, parts = set(self.table.names), self.partitions
        named = {*self.lookup.by, *(c for each in (*self.needs, *self.implies) for c in each.by)}
        named |= {parts.column} if parts else set()
        named |= set(self.cascade.by) if self.cascade else set()
        if named - columns:
            return f"it names columns that its table doesn't have: {', '.join(sorted(named - columns))}"
        if parts and parts.adds and parts.column not in self.lookup.by:
            return (
                f"its rows don't say their {parts.column}, so a look-up by {', '.join(self.lookup.by)} would lose it:"
                f" add {parts.column} to `by`, and to the table's key"
            )
        for part in self.parts:
            if len(part.by) != len(self.table.key) or set(part.by) - set(part.table.names):
                return f"{part.table.name} doesn't name the record's key by {', '.join(part.by)}"
        if self.parts and self.lookup.by != self.table.key:
            return "a record with rows inside it is looked up by its key"
        return ""


@dataclass(frozen=True)
class Listed(Entity):
    """Records of a list that shows them in full.

    - `changes`: how a sync asks for what changed
    - `deletes`: the list of deletes, if there is one besides `changes`
    - `views`: several sets of params, if only several requests together show all rows
    - `parts`: the nested rows in the records
    - `history`: the list shows only the newest rows. Older rows stay in the copy and are out of scope. If the key has a
      version, the list shows the newest row of each series: rows whose keys differ in the version alone.
    - `ended`: SQL over rows `t` of a history, true if the list need not show the row's series any more
    """

    listing: Request
    paginator: Paginator
    _: KW_ONLY
    # field(), or the other kinds' None would be its default.
    changes: Changes = field()
    deletes: Deletes | None = None
    views: tuple[Mapping[str, Any], ...] = ({},)
    partitions: Partitions | None = None
    parts: tuple[Part, ...] = ()
    history: bool = False
    ended: str = "false"

    @property
    def read_every(self) -> timedelta | None:
        return self.changes.every if isinstance(self.changes, FullList) else None

    def _mistake(self) -> str:
        if isinstance(self.changes, BothEnds) and not isinstance(self.paginator, PageNumber | SpringPage):
            return "a list that is read from both ends has page numbers"
        if isinstance(self.changes, BothEnds) and not self.table.moment:
            return "a list that is read from both ends shows when its records changed: say by which column of its table"
        if len(self.views) > 1 and not isinstance(self.changes, Since | Window | FullList):
            return "several views are for lists that are read from their start"
        if self.partitions and isinstance(self.changes, BothEnds):
            return "a list that is read from both ends is one list, and has no partitions"
        if self.partitions and isinstance(self.changes, Feed):
            return "a feed of changes is one list for all, and has no partitions"
        if self.deletes and self.partitions:
            return "a list of deletes is one list for all, and has no partitions"
        if self.deletes and not isinstance(self.changes, Since | Window | Feed):
            return "a list of deletes is read beside a list of what changed"
        return self._filter_mistake() or self._history_mistake() or _address_mistake(self)

    def _filter_mistake(self) -> str:
        """Return which value of `leaves_out` or `views` the filter for changes replaces; empty if it keeps them."""
        changes = self.changes
        if not isinstance(changes, Since) or changes.in_body:
            return ""
        # A list may also want a time always. Such a value is there to be replaced.
        if changes.param not in {*(self.leaves_out or NOTHING).asked_for.values(), *chain.from_iterable(self.views)}:
            return ""
        changed = str(changes.value(datetime(2026, 3, 1, 8, tzinfo=UTC)))
        for own in ({**self.listing.params, **view} for view in self.views):
            if str(own.get(changes.param, "")) not in changed:
                return (
                    f"a sync asks by {changes.param} for what changed, in place of the list's own"
                    f" {own[changes.param]!r}: put that into the format of Since too"
                )
        return ""

    def _history_mistake(self) -> str:
        if self.history and isinstance(self.changes, FullList):
            return "a history is no whole list: it shows the newest rows only"
        if self.history and self.parts:
            return "records of a history have no rows inside them: those of one record are a set"
        if self.history and self.cascade:
            return "rows of a history are kept, so no delete cascades to them"
        if self.history and self.deletes:
            return "rows of a history are kept, so no list of deletes concerns them"
        if self.ended != "false" and not self.history:
            return "only the series of a history end"
        return ""


@dataclass(frozen=True)
class Child(Entity):
    """Rows that belong to a parent: when the parent changes, a sync reads them again and replaces them as a set.

    - `listing`: the list of all rows, for scans. None if the API lists the rows of one parent only: then scans, and the
      first sync, send the look-up of each parent that the parent's list shows or the copy has.
    - `parent`: the name of the parent's entity. The `by` of the look-up are the columns that point to the parent.
    """

    listing: Request | None
    paginator: Paginator
    parent: str

    @property
    def partitions(self) -> Partitions | None:
        """The parents, if the API lists the rows of one parent only."""
        if self.listing is not None:
            return None
        return Partitions(self._known_parents, self._rows_of, self.lookup.by[0], listed_by=self.parent)

    def _rows_of(self, listing: Request | None, keys: Sequence[str]) -> Request:
        """Return the request for the rows of one parent. Its check refuses rows that name no parent, or another."""
        asked = self.lookup.request(*keys)

        def check(data: Any) -> None:
            if asked.check:
                asked.check(data)
            for row in self.paginator.read(Answer(data), self.paginator.start).rows:
                if tuple(map(str, self.table.named(row, self.lookup.by))) != tuple(keys):
                    raise RefuseData(f"a row doesn't name the {self.lookup.by[0]} that was asked for")

        return replace(asked, check=check)

    @property
    def place(self) -> tuple[str, ...]:
        return self.lookup.by

    def _known_parents(self, context: MirrorContext) -> list[str]:
        """Return the keys of the live parents in the copy."""
        table = entity_of(context.source, self.parent).table
        query = sql.SQL("SELECT {key}::text FROM {} t WHERE deleted_at IS NULL ORDER BY {key}")
        return [key for (key,) in context.conn.execute(query.format(table.sql, key=sql.Identifier("t", *table.key)))]

    @property
    def implied(self) -> tuple[Implies, ...]:
        return tuple(dict.fromkeys((*super().implied, Implies(self.parent, self.lookup.by))))

    def _mistake(self) -> str:
        if set(self.lookup.by) & set(self.table.key):
            return "rows that are asked for by their parent are not looked up by their own key"
        if self.listing is None and (len(self.lookup.by) > 1 or self.lookup.batch > 1 or self.lookup.own):
            return (
                "rows that only their parent lists are looked up for one parent, by one column: leave out `batch`, and"
                " say own=False"
            )
        return ""


@dataclass(frozen=True)
class Discovered(Entity):
    """Records of lists that show them only in brief, so each record has to be looked up.

    - `lists`: return the lists of a partition with what changed since a time, or with everything if the time is None
    - `shown`: the columns that the lists show: the table's key, and perhaps more. An incremental sync skips records
      whose shown values equal the copy's. If only the key is shown, it looks up every record. If a record could not
      be read, the watermark stops before its shown version (or change time).
    - `within`: return SQL over rows `t` of the copy, true if a scan's lists would show the row
    - `partial`: return whether the run reads only a part of the lists. Then no watermark moves.
    - `limit`: return the largest number of look-ups of a sync, 0 for no limit
    - `read_every`: the least time between two readings of the lists
    - `parts`: the nested rows in the records
    - `contradiction`: say why a list's row and the record in full contradict each other; empty if they don't
    """

    lists: Callable[[MirrorContext, str, datetime | None], Sequence[Listing]]
    shown: Table
    _: KW_ONLY
    within: Callable[[MirrorContext], sql.Composable] = lambda context: sql.SQL("true")
    partial: Callable[[MirrorContext], bool] = lambda context: False
    limit: Callable[[MirrorContext], int] = lambda context: 0
    read_every: timedelta = timedelta(0)
    partitions: Partitions | None = None
    parts: tuple[Part, ...] = ()
    contradiction: Callable[[Mapping[str, Any], Mapping[str, Any]], str] = lambda brief, record: ""

    def _mistake(self) -> str:
        if self.shown.keeps_extra:
            return "what lists show in brief is no whole record: make it by the table's in_brief"
        if set(self.shown.names) - set(self.table.names):
            return "what lists show in brief is in its table too"
        if not self.shown.key == self.table.key == self.lookup.by:
            return "records that lists show in brief are named and looked up by the table's key"
        return _address_mistake(self)


def _address_mistake(entity: Entity) -> str:
    if entity.lookup.own and entity.lookup.by != entity.table.key:
        return "a record's own address is made from the table's key"
    if entity.lookup.own and entity.lookup.paginator:
        return "a record's own address shows one record: it has no pages"
    return ""
