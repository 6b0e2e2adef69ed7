"""A source that declares lists of every kind which the stub serves: its contract shows that the stub does."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from include.api.paginators import Cursor, LastId, NextLink, Offset, PageNumber, Single, SpringPage
from include.api.request import Request
from include.confidence.policy import Trend
from include.sources.base import NOTHING, LeftOut
from include.sources.mirror.changes import BothEnds, Deletes, Feed, FullList, Since, Window, as_unix_time
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Listed, Part
from include.sources.mirror.listing import Partitions
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.source import Mirror
from include.warehouse.readers import decimal, identifier, instant, integer, unix_time
from include.warehouse.table import Column, Table

ID, UPDATED = Column("id", identifier), Column("updated", instant)
PIERS = Table("wharf", "piers", (Column("id"), Column("name"), UPDATED), version="updated")
SHIPS = Table(
    "wharf",
    "ships",
    (Column("id"), Column("pier", field="pier.id"), Column("name"), Column("revision", integer), UPDATED),
    version="revision",
    changed="updated",
    ignored={"cargo": "it is rows of cargo"},
)
CARGO = Table(
    "wharf",
    "cargo",
    (Column("ship_id"), Column("code"), Column("what"), Column("kg", decimal)),
    key=("ship_id", "code"),
    version=None,
)
NOTES = Table(
    "wharf", "notes", (Column("id", identifier), Column("ship_id"), Column("note"), UPDATED), version="updated"
)
PRICES = Table("wharf", "prices", (ID, Column("what"), UPDATED), version="updated")
REBATES = Table(
    "wharf",
    "rebates",
    (Column("id"), Column("price_id", identifier, field="price.id"), Column("for_whom")),
    version=None,
)
CREW = Table("wharf", "crew", (Column("id"), Column("name"), Column("joined", unix_time)), version=None)
BERTHS = Table(
    "wharf",
    "berths",
    (Column("id"), Column("name"), Column("changed", unix_time)),
    version="changed",
    required=("changed",),
)
FLAGS = Table("wharf", "flags", (Column("name"), Column("colour")), key=("name",), version=None)
LOG = Table("wharf", "log", (ID, Column("what"), UPDATED), version="updated")


def own(path: str) -> Lookup:
    return Lookup(request=lambda id_: Request(f"/{path}/{quote(str(id_), safe='')}"), rows=lambda data: [data["item"]])


def time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def between(field: str):
    """A reading of the ships whose `field` is between two moments."""

    def reading(listing: Request, start: datetime, end: datetime) -> Request:
        return replace(listing, body={**listing.body, "query": {field: {"from": time(start), "to": time(end)}}})

    return reading


def piers(context: MirrorContext) -> list[str]:
    query = "SELECT id FROM wharf.piers WHERE deleted_at IS NULL ORDER BY id"
    return [id_ for (id_,) in context.conn.execute(query)]


def of_piers(listing: Request, some: Sequence[str]) -> Request:
    return replace(listing, body={**listing.body, "piers": list(some)})


SOURCE = Mirror(
    name="wharf",
    base_path="",
    authorize=lambda token: {"Authorization": token},
    every=timedelta(minutes=30),
    lookback=timedelta(minutes=45),
    entities=(
        Listed(
            PIERS, own("piers"), Request("/piers"), Single(), changes=FullList(timedelta(days=1)), leaves_out=NOTHING
        ),
        Listed(
            SHIPS,
            Lookup(
                request=lambda ids: Request("/ships/batch", method="POST", body={"ids": [id_ for (id_,) in ids]}),
                rows=lambda data: data.get("items", []),
                own=False,
                batch=20,
                witness=own("ships"),
            ),
            Request("/ships/search", method="POST", body={"query": {}, "limit": 100}),
            Cursor("items", token="next", in_body=True, optional=True),
            changes=Window(between("updated"), late=between("created")),
            leaves_out=LeftOut({"ships of other piers": "piers"}),
            partitions=Partitions(piers, of_piers, column="pier", listed_by="piers", size=4),
            parts=(
                Part(CARGO, lambda ship: [{**each, "ship_id": ship["id"]} for each in ship["cargo"]], by=("ship_id",)),
            ),
        ),
        Child(
            NOTES,
            Lookup(
                by=("ship_id",),
                request=lambda id_: Request("/notes", {"ship": id_}),
                rows=lambda data: data["content"],
                paginator=SpringPage(),
                own=False,
                complete=True,
            ),
            Request("/notes"),
            SpringPage(),
            parent="ships",
            leaves_out=NOTHING,
        ),
        Listed(PRICES, own("prices"), Request("/prices"), PageNumber("prices"), changes=BothEnds(), leaves_out=NOTHING),
        # No list shows the rebates of all prices.
        Child(
            REBATES,
            Lookup(
                by=("price_id",),
                request=lambda id_: Request(f"/prices/{quote(str(id_), safe='')}/rebates"),
                rows=lambda data: data["value"],
                paginator=NextLink("value", key="@odata.nextLink", total="@odata.count"),
                own=False,
                complete=True,
            ),
            listing=None,
            paginator=NextLink("value", key="@odata.nextLink", total="@odata.count"),
            parent="prices",
            leaves_out=NOTHING,
        ),
        Listed(
            CREW,
            own("crew"),
            Request("/crew"),
            LastId("data"),
            changes=Feed(
                request=lambda since: Request("/events", {"kind": "crew", "created[gte]": as_unix_time(since)}),
                paginator=LastId("data"),
                record=lambda event: None if event["type"] == "deleted" else event["object"],
                deleted=lambda event: event["object"] if event["type"] == "deleted" else None,
                newest_first=True,
                keeps=timedelta(days=30),
            ),
            leaves_out=NOTHING,
        ),
        Listed(
            BERTHS,
            own("berths"),
            Request("/berths"),
            LastId("data"),
            changes=Feed(
                request=lambda since: Request("/export/berths", {"start_time": as_unix_time(since)}),
                paginator=Cursor("page.list[*].berth", token="page.after", end="end_of_stream", cap=1000),
                record=lambda berth: berth,
            ),
            deletes=Deletes(
                request=lambda since: Request("/events", {"kind": "berth.deleted", "since": as_unix_time(since)}),
                paginator=LastId("data"),
                deleted=lambda event: event["object"],
            ),
            leaves_out=NOTHING,
        ),
        # No flag has an address of its own.
        Listed(
            FLAGS,
            Lookup.by_whole_list(Request("/flags"), Single("data"), by=("name",)),
            Request("/flags"),
            Single("data"),
            changes=FullList(),
            leaves_out=NOTHING,
        ),
        Listed(
            LOG,
            own("log"),
            Request("/log", {"all": "true"}),
            Offset("log", total="meta.total"),
            changes=Since("from", "%Y-%m-%d %H:%M"),
            history=True,
            leaves_out=LeftOut({"older entries": "all"}),
            gates=(Trend("api_unique_not_in_db"), Trend("rows_differing")),
        ),
    ),
)
