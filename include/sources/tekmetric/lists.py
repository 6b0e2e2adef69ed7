"""Where repair orders are listed: boards show what is in work and what changed last, the report what was posted.

No list shows an order whole, and none shows all. Orders that nobody has posted stand on no list for good, so a whole
reading also asks for each of those that the copy has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from psycopg import sql

from include.api.client import Answer, Request, decode_json
from include.api.errors import RefuseData
from include.api.paginators import FRESH, Crawl, Cursor, Page, Position, Single, SpringPage
from include.sources.mirror.entity import Context, Listing, NewestOnly
from include.sources.tekmetric import answers, tables
from include.sources.tekmetric.shops import Shop, shops_of
from include.warehouse.table import Table, instant

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Board:
    """A board: the date by which an order is on it, and the condition on rows `t` of the copy that are."""

    date: str
    holds: str


# What was completed a while ago leaves ACTIVE, nobody knows when.
BOARDS = {
    "ACTIVE": Board("updatedDate", "t.status_id IN (1, 2)"),
    "POSTED": Board("postedDate", "t.status_id IN (5, 6)"),
    "COMPLETE": Board("completedDate", "t.status_id = 3"),
}
# Before any order was posted.
BEGINNING = date(2000, 1, 1)
# The report doesn't show when an order changed, only since when it has been posted.
SHOWN = Table(
    tables.SCHEMA,
    "repair_orders",
    tuple(each for each in tables.REPAIR_ORDERS.columns if each.name in (*tables.OF_SHOP, "updated_date", "posted_at")),
    key=tables.REPAIR_ORDERS.key,
    version="updated_date",
    changed="posted_at",
)
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class NextKeys(Cursor):
    """The report's pages. `nextKeys` go back as they came: a text as it is, of a list each item as a parameter.

    A position is their JSON.
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


def _plain(key: Any) -> bool:
    return isinstance(key, str | int | Decimal) and not isinstance(key, bool)


BOARD, COLUMNS = SpringPage(), Single()
REPORT = NextKeys(rows="content", param="nextKeys", token="nextKeys", more="hasNext")


def lists(context: Context, shop_id: str, since: datetime | None) -> list[Listing]:
    """One order, if the run names it; else the boards, and where they may not reach back so far also the rest.

    That is the report, and what the copy has and nobody has posted.
    """
    shop, params = shops_of(context)[int(shop_id)], context.params
    if params.get("ro_id"):
        named = {"shop_id": shop.tm_id, "tm_id": params["ro_id"]}
        return [Listing(None, Single(), shop_id, named=[named])]
    start = _first_day(shop, params["days_back"])
    far = since is None or since.astimezone(shop.zone).date() < start
    oldest = min(start, since.astimezone(shop.zone).date()) if since else start
    board = params.get("board", "ALL")
    found = _boards(shop, list(BOARDS) if board == "ALL" else [board], oldest, since)
    if far and board != "ACTIVE":
        found.append(_listing(shop, _report(shop, oldest), REPORT, _of_report))
    if since is None and board == "ALL":
        found.append(Listing(None, Single(), shop_id, named=_not_posted(context, shop)))
    return found


def _boards(shop: Shop, names: list[str], oldest: date, since: datetime | None) -> list[Listing]:
    """The boards; that of what is in work in columns too, which may show more."""
    found = []
    for name in names:
        listing = _listing(shop, _board(shop, name, "list", "NONE", size=100), BOARD, _young(shop, name, oldest))
        newest = NewestOnly(since, BOARDS[name].holds) if since else None
        found.append(replace(listing, newest=newest))
    if "ACTIVE" in names:
        request = _board(shop, "ACTIVE", "column", "ROSTATUS")
        found.append(_listing(shop, request, COLUMNS, _young(shop, "ACTIVE", oldest)))
    return found


def _first_day(shop: Shop, days_back: int) -> date:
    """The shop's day with which a run begins that looks back for so many days; 0: before all of them."""
    return datetime.now(shop.zone).date() - timedelta(days=days_back) if days_back else BEGINNING


def _listing(shop: Shop, request: Request, paginator: Any, shape: Callable[[Record], Record | None]) -> Listing:
    return Listing(request, paginator, str(shop.tm_id), {"shop_id": shop.tm_id}, shape)


def _board(shop: Shop, name: str, view: str, group: str, **more: int) -> Request:
    return Request(f"/shop/{shop.tm_id}/job-board-group-by", {"view": view, "board": name, "groupBy": group, **more})


def _report(shop: Shop, oldest: date) -> Request:
    """Posted orders from that day on, by the shop's clock, whatever its offset on either day."""
    start = datetime.combine(oldest, time.min, shop.zone)
    end = datetime.combine(datetime.now(shop.zone).date() + timedelta(days=1), time.min, shop.zone)
    span = {"start": start.isoformat(), "end": end.isoformat(), "timezone": shop.timezone, "shopIds": shop.tm_id}
    return Request(
        "/reporting/profit-details-report",
        {**span, "size": 100, "sortBy": "POSTED_DATE", "sortOrder": "ASC"},
        check=answers.of_shop(shop.tm_id),
    )


def _not_posted(context: Context, shop: Shop) -> list[Record]:
    """The orders of the copy that the run looks back to and that are not posted, each by its key."""
    query = sql.SQL(
        "SELECT shop_id, tm_id FROM {} t WHERE deleted_at IS NULL AND posted_at IS NULL AND shop_id = {} AND {}"
    ).format(tables.REPAIR_ORDERS.sql, sql.Literal(shop.tm_id), within(context))
    return [{"shop_id": shop_id, "tm_id": tm_id} for shop_id, tm_id in context.conn.execute(query)]


def _brief(row: Record) -> Record:
    return {"tm_id": row.get("id"), "updated_date": row.get("updatedDate"), "posted_at": row.get("postedDate")}


def _of_report(row: Record) -> Record:
    return {"tm_id": row.get("repairOrderId"), "posted_at": row.get("postedDate")}


def _young(shop: Shop, board: str, oldest: date) -> Callable[[Record], Record | None]:
    """Leaves out what changed before that day and is on the board since longer; what has no date to tell is kept."""

    def shape(row: Record) -> Record | None:
        days = [day_of(shop, row.get(name)) for name in (BOARDS[board].date, "updatedDate")]
        known = [day for day in days if day]
        return _brief(row) if not known or max(known) >= oldest else None

    return shape


def day_of(shop: Shop, value: Any) -> date | None:
    """The shop's day of an instant; None where it is none."""
    try:
        moment = instant(value)
        return moment and moment.astimezone(shop.zone).date()
    except (ValueError, OverflowError):
        return None


def within(context: Context) -> sql.Composable:
    """The condition on rows `t` of the copy that a scan compares: posted or, if not posted, changed in its days.

    An order without any date is compared too.
    """
    days_back = context.params["days_back"]
    oldest = datetime.now(UTC).date() - timedelta(days=days_back) if days_back else BEGINNING
    return sql.SQL("coalesce(t.posted_date, t.updated_date::date, t.created_date::date, 'infinity') > {}").format(
        sql.Literal(oldest)
    )


def partial(context: Context) -> bool:
    """A run that looks at one order or one board has not seen what else has changed."""
    return bool(context.params.get("ro_id")) or context.params.get("board", "ALL") != "ALL"
