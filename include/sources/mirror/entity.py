"""What a mirrored source declares: its entities, how each is listed, asked for changes and looked up one by one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from psycopg import Connection, sql

from include.api.client import ApiClient
from include.api.paginators import PageNumber, Paginator, SpringPage
from include.api.request import Answer, Request
from include.confidence.integrity import Severity
from include.confidence.policy import Growth, RepairShare, Trend, Unproven
from include.sources.mirror.changes import BothEnds, Changes, Feed, FullList, Since, Window
from include.warehouse.table import Table

if TYPE_CHECKING:
    from include.sources.mirror.source import Mirror

# One drift metric for each way in which source and copy can differ, under the names of the forensic summary.
DRIFT = (Trend("api_unique_not_in_db"), Trend("db_not_in_api_unique"), Trend("rows_differing"))


@dataclass(frozen=True)
class Partitions:
    """The list is asked for in parts, by location for example, each with a watermark of its own.

    `values` reads from the warehouse which parts there are, `request` puts up to `size` of them into a request.
    `listed_by`: the entity whose records they are; then those that its list shows are parts too, since the copy may
    lack one. `column` says of which part a row is. `adds`: the source's rows don't say it, so it is added to them; then
    `size` is 1.
    """

    values: Callable[["Context"], Sequence[str]]
    request: Callable[[Request, Sequence[str]], Request]
    column: str
    listed_by: str | None = None
    size: int = 1
    adds: bool = False

    def __post_init__(self) -> None:
        if self.adds and self.size > 1:
            raise ValueError(f"rows that don't say their {self.column} can be asked for by one {self.column} only")


@dataclass(frozen=True)
class Newest:
    """The list shows only so many records, those that changed last: it may not reach back to `since`.

    `holds`: the condition on rows `t` of the copy that it would show without that limit.
    """

    since: datetime
    holds: str


@dataclass(frozen=True)
class Listing:
    """A list to be read from its first page to its last.

    `partition`: what it is a part of; `adds`: what its rows don't say of themselves; `shape`: a row as the entity's
    table reads it, None for one that doesn't count. `named`: the rows, where the run names them and nothing is asked
    for. `newest`: what a sync needs to know of a list in brief that shows only so many records. `deleted`: as in
    `Feed`, whose rows are events; None for all other lists.
    """

    request: Request | None
    paginator: Paginator
    partition: str = ""
    adds: Mapping[str, Any] = field(default_factory=dict)
    shape: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda row: row
    named: Sequence[Mapping[str, Any]] = ()
    newest: Newest | None = None
    deleted: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None


@dataclass(frozen=True)
class Need:
    """The entity of which a record names one, in the columns `by`: what the copy lacks of those is looked up."""

    entity: str
    by: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Rows of a table of their own that come inside an entity's records; those of one record are a set.

    `rows` takes them out of a record, with the record's key in the columns `by`.
    """

    table: Table
    rows: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]
    by: tuple[str, ...]


@dataclass(frozen=True)
class Falls:
    """A row falls with another one of the warehouse: then it counts as gone, whatever its own list shows.

    `condition`: true for a row `t` that fell. `entity`, `by`: the entity of the row that it falls with, and the columns
    that name that one. `stands`: whether a record of that entity, as the source shows it, is one that nothing falls
    with: a scan asks for those that the copy takes for fallen, since its own rows may be what is wrong.
    """

    condition: str
    entity: str
    by: tuple[str, ...]
    stands: Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Derived:
    """A table that is computed from mirrored ones: `query` selects its columns, in the table's order.

    `touched`: where the whole would be too much, the condition on rows `t` that those belong to what was written by
    syncs after {since}. It limits what of the table is compared, and replaces {touched} in the query. `keep`: the
    condition on rows `t` that are not computed.
    """

    table: Table
    query: str
    touched: str | None = None
    keep: str = "false"


@dataclass(frozen=True)
class Lookup:
    """The narrow request that shows whether a row is there.

    `by`: the columns whose values go into the request; rows that share them share the request. With `batch`, up to so
    many tuples of values go into one request, which gets a list of them. `rows`: reads the rows from the answer's
    data; each has to name the values that were asked for, as far as it names any. `beside`: requests for what the first
    one doesn't tell, sent once it has been answered, so that the first tells the oldest state. `rows` takes the data of
    each, None where it was not found. `finish`: a row with what only the run knows.

    What proves that a row is absent:
    - `own`: the request is the record's own address, so that the API's own 404 does, or a tombstone: then `rows` is [].
    - else the request is a list, whose 404 or silence proves nothing. `witness`: a look-up of the same `by` at the own
      address of the record or of its parent, read as a whole, which is asked about what the list doesn't show.
    - `complete`: the list ends by its own totals or cursor; together with the entity's whole list it does.
    """

    request: Callable[..., Request]
    rows: Callable[..., Iterable[Mapping[str, Any]]]
    by: tuple[str, ...] = ("id",)
    own: bool = True
    batch: int = 1
    witness: "Lookup | None" = None
    complete: bool = False
    paginator: Paginator | None = None
    beside: tuple[Callable[..., Request], ...] = ()
    finish: Callable[["Context", Mapping[str, Any]], Mapping[str, Any]] = lambda context, row: row

    def __post_init__(self) -> None:
        if not (self.own or self.witness or self.complete):
            raise ValueError("a look-up by a list needs a witness, or nothing would ever prove that a row is absent")
        if self.own and (self.paginator or self.batch > 1):
            raise ValueError("a record's own address shows one record: it has no pages, and takes one key")
        if self.witness and not (self.witness.own and self.witness.by == self.by):
            raise ValueError("a witness is asked by the same columns, at an own address")
        if self.beside and (self.batch > 1 or self.paginator):
            raise ValueError("requests beside another belong to one record")


@dataclass(frozen=True)
class Invariant:
    """What holds in the copy whatever the source shows: `query` selects the keys of the rows that break it.

    `entity`: the one whose scan counts them, as `<name>_violations`. None is expected.
    """

    name: str
    entity: str
    query: sql.Composable
    severity: Severity = Severity.ERROR

    @property
    def metric(self) -> str:
        return f"{self.name}_violations"


class Forensics(Protocol):
    """Metrics beyond the general comparison, computed where the plan of a finished scan and the copy are."""

    def __call__(self, conn: Connection, plan: sql.Identifier) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Entity:
    """A kind of record that the source has, and the table that mirrors it: `Listed`, `Child` or `Discovered`.

    `needs`: the records of other entities that these name. `falls`: which rows fall with those of another entity; a
    part of this one's plan, so that a sync changes no row twice. `gates`, `repair_share` and `unproven` are its
    policies.
    """

    table: Table
    lookup: Lookup
    _: KW_ONLY
    needs: tuple[Need, ...] = ()
    falls: Falls | None = None
    gates: tuple[Trend | Growth, ...] = DRIFT
    repair_share: RepairShare = field(default_factory=RepairShare)
    unproven: Unproven = field(default_factory=Unproven)
    forensics: Forensics | None = None

    # What only some kinds have. `read_every`: where syncs read whole lists, how old the last reading has to be.
    changes: ClassVar[Changes | None] = None
    views: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    parts: ClassVar[tuple[Part, ...]] = ()
    partitions: ClassVar[Partitions | None] = None
    history: ClassVar[bool] = False
    read_every: ClassVar[timedelta | None] = None

    def __post_init__(self) -> None:
        wrong = self._wrong_columns() or self._wrong()
        if wrong:
            raise ValueError(f"{self.table.full_name}: {wrong}")

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def tables(self) -> tuple[Table, ...]:
        """Its own table and those of its parts."""
        return (self.table, *(part.table for part in self.parts))

    def _wrong(self) -> str:
        """What in the declaration can't be meant for this kind of entity; empty if nothing is."""
        raise TypeError("an entity is Listed, Child or Discovered")

    def _wrong_columns(self) -> str:
        columns = set(self.table.names)
        named = {*self.lookup.by, *(c for need in self.needs for c in need.by)}
        named |= {self.partitions.column} if self.partitions else set()
        named |= set(self.falls.by) if self.falls else set()
        if named - columns:
            return f"it names columns that its table doesn't have: {', '.join(sorted(named - columns))}"
        for part in self.parts:
            if len(part.by) != len(self.table.key) or set(part.by) - set(part.table.names):
                return f"{part.table.name} doesn't name the record's key by {', '.join(part.by)}"
        if self.parts and self.lookup.by != self.table.key:
            return "a record with rows inside it is looked up by its key"
        return ""


@dataclass(frozen=True)
class Listed(Entity):
    """Records of a list that shows them whole.

    `changes`: how the list is asked for what changed. `views`: where the listing leaves some rows out unless it is
    asked for them, the params of the lists that together show all. `parts` come inside the records. `history`: the list
    shows the newest rows only; what it doesn't show any more is kept, and is out of scope.
    """

    listing: Request
    paginator: Paginator
    _: KW_ONLY
    # field(), or the other kinds' None would be its default.
    changes: Changes = field()
    views: tuple[Mapping[str, Any], ...] = ({},)
    partitions: Partitions | None = None
    parts: tuple[Part, ...] = ()
    history: bool = False

    @property
    def read_every(self) -> timedelta | None:
        return self.changes.every if isinstance(self.changes, FullList) else None

    def _wrong(self) -> str:
        if isinstance(self.changes, BothEnds) and not isinstance(self.paginator, PageNumber | SpringPage):
            return "a list that is read from both ends has page numbers"
        if len(self.views) > 1 and not isinstance(self.changes, Since | Window | FullList):
            return "several views are for lists that are read from their start"
        if self.partitions and isinstance(self.changes, BothEnds):
            return "a list that is read from both ends is one list, and has no partitions"
        if self.partitions and isinstance(self.changes, Feed):
            return "a feed of changes is one list for all, and has no partitions"
        return self._wrong_history() or _wrong_address(self)

    def _wrong_history(self) -> str:
        if self.history and isinstance(self.changes, FullList):
            return "a history is no whole list: it shows the newest rows only"
        if self.history and self.parts:
            return "records of a history have no rows inside them: those of one record are a set"
        if self.history and self.falls:
            return "rows of a history are kept, so none falls with another"
        return ""


@dataclass(frozen=True)
class Child(Entity):
    """Rows that a sync asks for by their parent, and replaces as a set where the parent changed.

    `listing`: the list of all of them, which scans read. `parent`: the entity's name; the lookup's `by` are the columns
    that point to it.
    """

    listing: Request
    paginator: Paginator
    parent: str

    def _wrong(self) -> str:
        if set(self.lookup.by) & set(self.table.key):
            return "rows that are asked for by their parent are not looked up by their own key"
        return ""


@dataclass(frozen=True)
class Discovered(Entity):
    """Records that the source's lists show only in brief: the lookup reads each of them whole.

    `lists`: those that show, for a partition, what changed since a time, or all that the run asks for where it is None.
    `shown`: the table's key and what else of its columns the lists show. An incremental sync doesn't look up a record
    of which the copy has all that is shown; where that is the key alone, every record is looked up. The watermark
    stays before the version, or else before the time of change, that is shown of a record which was left out. `within`:
    the condition on rows `t` of the copy that a scan's lists would show. `partial`: whether the run asks for a part
    only, so that no watermark may move. `limit`: how many records a sync looks up at most, 0 for no limit.
    `read_every`: how old the last reading has to be before a sync reads the lists again. `parts` come inside the
    records.
    """

    lists: Callable[["Context", str, datetime | None], Sequence[Listing]]
    shown: Table
    _: KW_ONLY
    within: Callable[["Context"], sql.Composable] = lambda context: sql.SQL("true")
    partial: Callable[["Context"], bool] = lambda context: False
    limit: Callable[["Context"], int] = lambda context: 0
    read_every: timedelta = timedelta(0)
    partitions: Partitions | None = None
    parts: tuple[Part, ...] = ()

    def _wrong(self) -> str:
        if set(self.shown.names) - set(self.table.names):
            return "what lists show in brief is in its table too"
        if not self.shown.key == self.table.key == self.lookup.by:
            return "records that lists show in brief are named and looked up by the table's key"
        return _wrong_address(self)


def _wrong_address(entity: Entity) -> str:
    if entity.lookup.own and entity.lookup.by != entity.table.key:
        return "a record's own address is made from the table's key"
    return ""


@dataclass(frozen=True)
class Context:
    """What a step works with: the source, its API, the warehouse (autocommit) and who it works for.

    `run` is `dag_id/run_id`, `params` are the run's, `settings` are what the connection says beside address and token;
    `workers` bounds the requests on their way at once. `keep` is given each answer to a look-up with the values that
    were looked up.
    """

    source: "Mirror"
    client: ApiClient
    conn: Connection
    run: str
    workers: int = 4
    params: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep: Callable[[tuple, Request, Answer], None] = lambda values, request, answer: None
