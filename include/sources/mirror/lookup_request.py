"""The request of a look-up, as an entity declares it: what to ask, and how the answer proves absence."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from include.api.paginators import Paginator
from include.api.request import Request
from include.sources.mirror.context import MirrorContext
from include.warehouse.table import Table

# The number of rows that one reading of a whole list is to find at most.
AT_ONCE = 10_000


@dataclass(frozen=True)
class Inside:
    """The record inside which an answer shows the looked-up rows: its table, and how to read it from the data."""

    table: Table
    record: Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class OtherName:
    """A column by which an address takes records too, such as their number.

    If no record has the requested key, the address may show one that has the same value in `column`.
    `table`, `record`: the table of that record, and how to read it from the data
    """

    table: Table
    column: str
    record: Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Lookup:
    """The narrow request that proves whether a row is present or absent.

    - `request`: make the request from the values of the columns `by`. Rows with the same values share a request.
    - `batch`: the largest number of value tuples in one request. If above 1, `request` takes a list of tuples.
    - `rows`: read the rows from the answer's data. Each row has to agree with the requested values.
    - `beside`: further requests for the same record, sent after the first is answered, so that the first shows the
      oldest state. `rows` then takes the data of every answer, None for one that was not found.
    - `finish`: complete a row with values that only the run knows
    - `inside`: the record that holds the rows. If an answer shows it in an older version than the copy has, the answer
      is outdated and proves nothing: a replica may lag behind at all its addresses alike.
    - `whole`: the request is the whole list again, see `by_whole_list`
    - `other_name`: another column by which the address takes records. If an answer shows another record by it, the
      requested one is absent, provided that the address prefers keys: a row of the copy has to show that.

    How absence is proven:

    - `own` (the default): the request goes to the record's own address. The API's own 404 proves absence, and so does
      an answer in which `rows` finds nothing. If a parameter asks for the record, and not the path, such an answer has
      to name what was asked for: an empty list would be one too.
    - not `own`: the request is a list, so its 404 or an empty answer proves nothing. `witness` then asks at the own
      address of the record, or of its parent, by the same `by`. If the list of a parent answers 404, the own address of
      the parent decides whether it has gone with the parent.
    - `complete`: the list shows by its totals or cursor where it ends. Absence is proven if neither this list nor the
      entity's whole list shows the row, and they show others that the copy has. A child whose parents alone list it has
      no other list: there this one has to lack the row twice. Only a scan reads both, so a sync deletes no children by
      such a list.

    Raises ValueError where the declaration contradicts itself.
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
    finish: Callable[[MirrorContext, Mapping[str, Any]], Mapping[str, Any]] = lambda context, row: row
    inside: Inside | None = None
    other_name: OtherName | None = None
    whole: bool = False

    @classmethod
    def by_whole_list(cls, listing: Request, paginator: Paginator, by: tuple[str, ...] = ("id",)) -> Self:
        """Return the look-up of records that the API can't be asked for one by one: their whole list is read again.

        Absence is proven if both readings lack the row, and show others that the copy has.
        """
        return cls(
            lambda values: listing,
            lambda data: (),
            by,
            own=False,
            batch=AT_ONCE,
            complete=True,
            paginator=paginator,
            whole=True,
        )

    def __post_init__(self) -> None:
        if not (self.own or self.witness or self.complete):
            raise ValueError(
                "a look-up by a list needs a witness, or complete=True if it tells its end: else no absence is proven"
            )
        if self.complete and not self.paginator:
            raise ValueError(
                "a list that tells its end has a paginator: give the look-up one, Single() if the list always comes in"
                " one answer"
            )
        if self.own and self.batch > 1:
            raise ValueError("a record's own address shows one record: it takes one key")
        if self.witness and not (self.witness.own and self.witness.by == self.by):
            raise ValueError("a witness is asked by the same columns, at an own address")
        if self.beside and (self.batch > 1 or self.paginator):
            raise ValueError("`beside` works for a look-up of one record only")
