"""The lists of repair orders: boards show orders in work and the last changes, the report shows posted orders.

No list shows whole orders, and no list shows all orders. An order that is not posted may leave every list, so a
complete read also looks up each such order of the copy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from psycopg import sql

from include.api.decoding import decode_json
from include.api.errors import RefuseData
from include.api.list_answers import listed_rows
from include.api.paginators import FRESH, Crawl, Cursor, Page, Position, Single, SpringPage
from include.api.request import Answer, Request
from include.sources.base import ReadAnswer
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.listing import Listing, NewestOnly
from include.sources.tekmetric import answers, tables, values
from include.sources.tekmetric.shops import Shop, shops_of
from include.warehouse.readers import instant

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Board:
    """A board: the date since which an order is on it, and the condition on rows `t` of the copy that are on it."""

    date: str
    holds: str


# A completed order leaves ACTIVE at some time that is not documented.
BOARDS = {
    "ACTIVE": Board("updatedDate", "t.status_id IN (1, 2)"),
    "POSTED": Board("postedDate", "t.status_id IN (5, 6)"),
    "COMPLETE": Board("completedDate", "t.status_id = 3"),
}
# Before any order was posted.
BEGINNING = date(2000, 1, 1)
# The report does not show when an order changed, only when it was posted.
SHOWN = tables.REPAIR_ORDERS.in_brief(
    *tables.OF_SHOP, "updated_date", "posted_at", version="updated_date", changed="posted_at"
)
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class NextKeys(Cursor):
    """The pages of the report. `nextKeys` are sent back as they came: a text as it is, a list as several parameters.

    A position is the JSON of `nextKeys`.
    """

    def request(self, base: Request, position: Position) -> Request:
        if position is None:
            return base
        keys = decode_json(position)
        several = isinstance(keys, list) and all(map(_plain, keys))
        value = list(map(str, keys)) if several else keys if isinstance(keys, str) else position
        return replace(base, params={**base.params, self.param: value})

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        data = answer.data if isinstance(answer.data, dict) else {}
        keys = data.get(self.token) or None
        if data.get(self.more) is True and keys is None:
            raise RefuseData(f"it says that more follows, but has no {self.token}")
        page = super().read(replace(answer, data={**data, self.token: None}), position, crawl)
        follows = keys is not None and data.get(self.more) is not False
        return replace(page, next=_encode(keys).decode() if follows else None)


@dataclass(frozen=True)
class OnePage(Single):
    """A board without pages: a plain array, or an object with its rows as `content`, as the other boards."""

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        rows = answer.data if isinstance(answer.data, list) else listed_rows(answer, BOARD.rows)
        return super().read(replace(answer, data=rows), position, crawl)


_SHOWN = "the order's own address shows it"
_EARNED = "the order's labor profit or its jobs show it"
IN_BRIEF = (
    ReadAnswer(
        "a row of a board",
        read={
            "id": "the order, which is looked up",
            **dict.fromkeys(("updatedDate", "postedDate", "completedDate"), "whether the order has to be looked up"),
        },
        ignored=dict.fromkeys(
            (
                *("repairOrderNumber", "roNumber", "repairOrderStatus", "createdDate"),
                *("total", "subtotal", "authorizedTotal", "amountPaid"),
            ),
            _SHOWN,
        ),
        rest="each order is read in full at its own address",
    ),
    ReadAnswer(
        "a row of the report",
        read={
            "repairOrderId": "the order, which is looked up",
            "postedDate": "whether the order has to be looked up",
            "shopId": "the row is of the shop that was asked for",
        },
        ignored=dict.fromkeys(("repairOrderNumber", "customerId", "vehicleId", "serviceWriterId"), _SHOWN)
        | dict.fromkeys(
            (
                *("totalRetail", "totalCost", "totalProfit", "totalProfitMargin"),
                *("laborProfit", "partsTotalProfit", "subletProfit", "feesProfit"),
            ),
            _EARNED,
        ),
        rest="each order is read in full at its own address",
    ),
    ReadAnswer(
        "what stands around the rows of the report",
        read={"nextKeys": "where the list goes on", "hasNext": "whether it goes on"},
        ignored={},
        rest="they describe the answer, and no record",
    ),
)


def _plain(key: Any) -> bool:
    """Return whether a key can be sent as a query parameter: a text or a number."""
    return isinstance(key, str | int | Decimal) and not isinstance(key, bool)


BOARD, COLUMNS = SpringPage(), OnePage()
REPORT = NextKeys(rows="content", param="nextKeys", token="nextKeys", more="hasNext")


def lists(context: MirrorContext, shop_id: str, since: datetime | None) -> list[Listing]:
    """Return the lists that a sync or scan of one shop reads.

    `since`: the changes to read; None for a complete read. If the run names an order, this order is the only one read.
    Otherwise the lists are:

    - the boards
    - the report, for a complete read or if `since` is before the last `days_back` days: boards may not reach back there
    - for a complete read, the orders of the copy that are not posted; they are looked up without a list

    A complete read goes back as far as `days_back` says. For an incremental sync of a shop that had been left out of
    the connection it goes back to the last change that the copy has.
    """
    shop, params = shops_of(context)[int(shop_id)], context.params
    if params.get("ro_id"):
        order = {"shop_id": shop.tm_id, "tm_id": params["ro_id"]}
        return [Listing(None, Single(), shop_id, named=[order])]
    first_day = _first_day(shop, params["days_back"])
    begin = since or (_last_change(context, shop) if params.get("mode") == "incremental" else None)
    oldest = min(first_day, begin.astimezone(shop.zone).date()) if begin else first_day
    boards_may_fall_short = since is None or oldest < first_day
    board = params.get("board", "ALL")
    found = _boards(shop, list(BOARDS) if board == "ALL" else [board], oldest, since)
    if boards_may_fall_short and board != "ACTIVE":
        found.append(_listing(shop, _report(shop, oldest), REPORT, _of_report))
    if since is None and board == "ALL":
        found.append(Listing(None, Single(), shop_id, named=_not_posted(context, shop)))
    return found


def _boards(shop: Shop, names: list[str], oldest: date, since: datetime | None) -> list[Listing]:
    """Return the lists of the boards. ACTIVE is also read in columns, which may show more orders."""
    found = []
    for name in names:
        listing = _listing(shop, _board(shop, name, "list", "NONE", size=100), BOARD, _young(shop, name, oldest))
        newest = NewestOnly(since, BOARDS[name].holds) if since else None
        found.append(replace(listing, newest=newest, deleted=_deleted(shop)))
    if "ACTIVE" in names:
        request = _board(shop, "ACTIVE", "column", "ROSTATUS")
        listing = _listing(shop, request, COLUMNS, _young(shop, "ACTIVE", oldest))
        found.append(replace(listing, deleted=_deleted(shop)))
    return found


def _last_change(context: MirrorContext, shop: Shop) -> datetime | None:
    """Return when the order of the copy changed that changed last; None if the copy has none of the shop."""
    query = sql.SQL("SELECT max(updated_date) FROM {} WHERE deleted_at IS NULL AND shop_id = {}")
    return context.conn.execute(query.format(tables.REPAIR_ORDERS.sql, sql.Literal(shop.tm_id))).fetchone()[0]


def _first_day(shop: Shop, days_back: int) -> date:
    """Return the shop's day that is `days_back` days ago; for 0 a day before any order."""
    return _days_ago(datetime.now(shop.zone).date(), days_back)


def _days_ago(today: date, days: int) -> date:
    """Return the day so many days ago, but none before BEGINNING; BEGINNING for 0."""
    return today - timedelta(days=min(days, (today - BEGINNING).days)) if days else BEGINNING


def _listing(shop: Shop, request: Request, paginator: Any, shape: Callable[[Record], Record | None]) -> Listing:
    return Listing(request, paginator, str(shop.tm_id), {"shop_id": shop.tm_id}, shape)


def _board(shop: Shop, name: str, view: str, group: str, **more: int) -> Request:
    return Request(f"/shop/{shop.tm_id}/job-board-group-by", {"view": view, "board": name, "groupBy": group, **more})


def _report(shop: Shop, oldest: date) -> Request:
    """Return the request for orders posted since that day, in the shop's time zone."""
    start = datetime.combine(oldest, time.min, shop.zone)
    end = datetime.combine(datetime.now(shop.zone).date() + timedelta(days=1), time.min, shop.zone)
    span = {"start": start.isoformat(), "end": end.isoformat(), "timezone": shop.timezone, "shopIds": shop.tm_id}
    return Request(
        "/reporting/profit-details-report",
        {**span, "size": 100, "sortBy": "POSTED_DATE", "sortOrder": "ASC"},
        check=answers.of_shop(shop.tm_id),
    )


def _not_posted(context: MirrorContext, shop: Shop) -> list[Record]:
    """Return the keys of the copy's orders that are within the run's days and not posted."""
    query = sql.SQL(
        "SELECT shop_id, tm_id FROM {} t WHERE deleted_at IS NULL AND posted_at IS NULL AND shop_id = {} AND {}"
    ).format(tables.REPAIR_ORDERS.sql, sql.Literal(shop.tm_id), within(context))
    return [{"shop_id": shop_id, "tm_id": tm_id} for shop_id, tm_id in context.conn.execute(query)]


def _brief(row: Record) -> Record:
    """Return what a row of a board says: the order's key, dates and total."""
    dates = {"updated_date": row.get("updatedDate"), "posted_at": row.get("postedDate")}
    return {"tm_id": row.get("id"), **dates, "total": row.get("total")}


def _of_report(row: Record) -> Record:
    """Return what a row of the report says: the order's key and its date of posting."""
    return {"tm_id": row.get("repairOrderId"), "posted_at": row.get("postedDate")}


def _young(shop: Shop, board: str, oldest: date) -> Callable[[Record], Record | None]:
    """Return the function that drops an order if it changed, and came to the board, before `oldest`.

    An order without any date is kept. One that the board shows as deleted is dropped (see `_deleted`).
    """

    def shape(row: Record) -> Record | None:
        if _says_deleted(row):
            return None
        days = [day_of(shop, row.get(name)) for name in (BOARDS[board].date, "updatedDate")]
        known = [day for day in days if day]
        return _brief(row) if not known or max(known) >= oldest else None

    return shape


def _deleted(shop: Shop) -> Callable[[Record], Record | None]:
    """Return the function that names an order which a board shows as deleted. Its own address has to say so too."""
    return lambda row: {"shop_id": shop.tm_id, "tm_id": row.get("id")} if _says_deleted(row) else None


def _says_deleted(row: Record) -> bool:
    try:
        return answers.is_deleted(row)
    except RefuseData:
        return False


def contradiction(brief: Record, order: Record) -> str:
    """Say why a board's row contradicts the order in full; empty if it doesn't.

    What the two totals include is not documented, so they are not compared. But if the board says that the order comes
    to something, its estimate is not empty.
    """
    try:
        total = values.cents(brief.get("total")) or 0
    except ValueError:
        return ""
    empty = not order["jobs"] and (values.cents(order.get("potential_total")) or 0) <= answers.CENTS
    if not empty or total <= answers.CENTS:
        return ""
    return "its board says that it comes to something, but its estimate is empty"


def day_of(shop: Shop, value: Any) -> date | None:
    """Return the day of an instant in the shop's time zone, None if the value is no instant."""
    try:
        moment = instant(value)
        return moment and moment.astimezone(shop.zone).date()
    except (ValueError, OverflowError):
        return None


def within(context: MirrorContext) -> sql.Composable:
    """Return the condition on rows `t` of the copy that a scan compares.

    These are orders posted within the run's days, or changed within them if they are not posted, or without any date.
    """
    oldest = _days_ago(datetime.now(UTC).date(), context.params["days_back"])
    return sql.SQL("coalesce(t.posted_date, t.updated_date::date, t.created_date::date, 'infinity') > {}").format(
        sql.Literal(oldest)
    )


def partial(context: MirrorContext) -> bool:
    """Return whether a run reads only one order or one board, so that it has not seen all changes."""
    return bool(context.params.get("ro_id")) or context.params.get("board", "ALL") != "ALL"
