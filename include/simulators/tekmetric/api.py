"""The vendor's API over one account: each endpoint as status and body."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from include.simulators.clock import instant
from include.simulators.tekmetric import report, rows
from include.simulators.tekmetric.account import Account
from include.simulators.tekmetric.orders import DELETED, WORK_IN_PROGRESS, Order
from include.simulators.tekmetric.people import Row
from include.simulators.tekmetric.protocol import Answer, Call, Refused, error, ok
from include.simulators.tekmetric.store import RECENTLY

_BOARD_SIZE, _LITE_SIZE = 25, 500
_PLAIN_MISSING = 3  # every third order in work lacks its plain form


def answer(account: Account, call: Call) -> Answer:
    """Carry out a request that was let through."""
    try:
        if call.method != "GET":
            raise Refused(405, "Request method is not supported")
        if call.endpoint not in _ENDPOINTS:
            raise Refused(404, "Not found")
        if "shop" in call.ids and call.ids["shop"] not in account.store.shops:
            raise Refused(403)
        return ok(_ENDPOINTS[call.endpoint](account, call))
    except Refused as refused:
        return error(refused)


def endpoint_of(path: str) -> tuple[str, dict[str, int]]:
    """The endpoint that a path below /api means, and the numbers in it; the path itself where it is none."""
    for name, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(path):
            return name, {key: int(text) for key, text in match.groupdict().items()}
    return path, {}


def _board(account: Account, call: Call) -> list[Row] | Row:
    """A page of a board, the last changed order first. An order that changes between two requests changes its page."""
    if call.query.get("view") == "column":
        return _columns(account, call)
    call.one_of("view", "list")
    call.one_of("groupBy", "NONE")
    store, recent = account.store, instant(account.clock.now() - RECENTLY)
    board = call.one_of("board", "ACTIVE", "POSTED", "COMPLETE")
    size = min(call.number("size", _BOARD_SIZE, least=1), account.config.board_size)
    start = call.number("page", 0) * size
    orders = store.on_board(board, call.ids["shop"], recent)
    orders = orders[: account.config.board_limit][start : start + size]
    content = [store.shown("board", order.id, rows.board_row(store, order)) for order in orders]
    return {"content": content} if account.config.wrapped_boards else content


def _columns(account: Account, call: Call) -> list[Row]:
    """The active board in the form of the vendor's own web page: one list without pages, sorted by status."""
    call.one_of("groupBy", "ROSTATUS")
    call.one_of("board", "ACTIVE")
    store, recent = account.store, instant(account.clock.now() - RECENTLY)
    orders = store.on_board("ACTIVE", call.ids["shop"], recent)[: account.config.column_limit]
    orders.sort(key=lambda order: order.status)
    return [store.shown("board", order.id, rows.board_row(store, order)) for order in orders]


def _head(account: Account, call: Call) -> Row:
    order = _order(account, call)
    return account.store.shown("head", order.id, rows.head(account.store, order))


def _plain(account: Account, call: Call) -> Row:
    """The head again, but missing for some orders in work."""
    order = _order(account, call)
    if order.status == WORK_IN_PROGRESS and order.id % _PLAIN_MISSING == 0:
        raise Refused(404, "Repair order not found")
    return account.store.shown("plain", order.id, rows.head(account.store, order))


def _estimate(account: Account, call: Call) -> Row:
    order = _order(account, call)
    return account.store.shown("estimate", order.id, rows.estimate(account.store, order))


def _profit(account: Account, call: Call) -> Row:
    order = _order(account, call)
    return account.store.shown("profit", order.id, rows.profit(account.store, order))


def _employees(account: Account, call: Call) -> list[Row]:
    found = [rows.employee_lite(row) for row in account.store.live("employees", call.ids["shop"])]
    if call.one_of("status", "ACTIVE", "ALL", "INACTIVE") != "ALL":
        found = [row for row in found if row["disabled"] == (call.query.get("status") == "INACTIVE")]
    return found[: call.number("size", _LITE_SIZE, least=1)]


def _employee(account: Account, call: Call) -> Row:
    return rows.employee(account.store, _person(account, call, "employees"))


def _customers(account: Account, call: Call) -> Row:
    return _page(account, call, account.store.live("customers", call.ids["shop"]))


def _customer(account: Account, call: Call) -> Row:
    return _person(account, call, "customers")


def _vehicles(account: Account, call: Call) -> Row:
    page = _page(account, call, account.store.live("vehicles", call.ids["shop"]))
    return page | {"content": [rows.vehicle(account.store, row, "vehicles") for row in page["content"]]}


def _vehicle(account: Account, call: Call) -> Row:
    return rows.vehicle(account.store, _person(account, call, "vehicles"), "vehicle")


def _order(account: Account, call: Call) -> Order:
    """The order that a path names. Raises Refused where there is none in the path's shop, or it is hidden."""
    order = account.store.orders.get(call.ids["id"])
    if (
        order is None
        or order.shop_id != call.ids.get("shop", order.shop_id)
        or (order.status == DELETED and order.hidden)
    ):
        raise Refused(404, "Repair order not found")
    return order


def _person(account: Account, call: Call, kind: str) -> Row:
    try:
        row = account.store.person(kind, call.ids["id"])
    except KeyError:
        raise Refused(404, "Not found") from None
    if row["shopId"] != call.ids["shop"]:
        raise Refused(404, "Not found")
    return row


def _page(account: Account, call: Call, found: Sequence[Row]) -> Row:
    """A page as Spring writes it; larger sizes are cut without a word."""
    size, number = min(call.number("size", 10, least=1), account.config.list_size), call.number("page", 0)
    shuffled = account.config.shuffled_pages
    if shuffled:
        found = account.random.sample(found, len(found))
    content = found[number * size : (number + 1) * size]
    pages = -(-len(found) // size)
    sort = {"sorted": not shuffled, "unsorted": shuffled, "empty": shuffled}
    return {
        "content": content,
        "pageable": {"sort": sort, "offset": number * size, "pageNumber": number, "pageSize": size, "paged": True},
        "totalPages": pages,
        "totalElements": len(found),
        "last": number >= pages - 1,
        "first": number == 0,
        "size": size,
        "number": number,
        "sort": sort,
        "numberOfElements": len(content),
        "empty": not content,
    }


_ENDPOINTS: Mapping[str, Callable[[Account, Call], Any]] = {
    "shop/{shop}/job-board-group-by": _board,
    "shop/{shop}/repair-order/{id}": _head,
    "repair-order/{id}": _plain,
    "repair-order/{id}/estimate": _estimate,
    "repair-order/{id}/profit/labor": _profit,
    "shop/{shop}/employees-lite": _employees,
    "shop/{shop}/employee/{id}": _employee,
    "shop/{shop}/customer": _customers,
    "shop/{shop}/customer/{id}": _customer,
    "shop/{shop}/vehicle": _vehicles,
    "shop/{shop}/vehicle/{id}": _vehicle,
    "reporting/profit-details-report": report.page,
}
_PATTERNS = {name: re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d{1,15})", name)) for name in _ENDPOINTS}
