"""The report of posted orders: the only list that reaches back, page by page behind opaque keys."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec

from include.simulators.clock import instant, seconds_of
from include.simulators.tekmetric import rows
from include.simulators.tekmetric.account import Account
from include.simulators.tekmetric.orders import Order
from include.simulators.tekmetric.people import Row
from include.simulators.tekmetric.protocol import Call, Refused

_PARAMETERS = ("timezone", "shopIds", "start", "end", "sortBy", "sortOrder")
_SEAL = 12  # bytes


def page(account: Account, call: Call) -> Row:
    """GET reporting/profit-details-report: orders posted from `start` to `end`, both included.

    A page goes on behind the last order of the page before, wherever that is by now. Raises Refused for parameters
    that make no sense, and for `nextKeys` of another query.
    """
    store = account.store
    call.one_of("sortBy", "POSTED_DATE")
    newest_first = call.one_of("sortOrder", "DESC", "ASC") == "DESC"
    _zone(call.text("timezone"))
    shop_ids = _shop_ids(account, call.text("shopIds"))
    found = store.posted(shop_ids, _bound(call, "start", up=True), _bound(call, "end", up=False))
    if newest_first:
        found.reverse()
    size = min(call.number("size", 100, least=1), account.config.list_size)
    found = found[_start(found, call, newest_first=newest_first) :]
    shown, more = found[:size], len(found) > size
    return {
        "content": [store.shown("report", order.id, rows.report_row(store, order)) for order in shown],
        "hasNext": more,
        "nextKeys": _keys(account, call, _key(shown[-1])) if more else None,
    }


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError):
        raise Refused(400, "timezone is unknown") from None


def _shop_ids(account: Account, text: str) -> set[int]:
    ids = {int(part) for part in text.split(",") if part.strip().isdecimal()}
    if not ids or ids - account.store.shops.keys():
        raise Refused(403)
    return ids


def _bound(call: Call, name: str, *, up: bool) -> str:
    """An instant of the query as the store's whole seconds, rounded into the window."""
    try:
        seconds = seconds_of(call.text(name))
    except ValueError:
        raise Refused(400, f"{name} must be an instant with an offset") from None
    return instant(int(-(-seconds // 1) if up else seconds // 1))


def _key(order: Order) -> tuple[str, int]:
    return order.posted or "", order.id


def _start(found: Sequence[Order], call: Call, *, newest_first: bool) -> int:
    """How many of the orders lie before the page."""
    if "nextKeys" not in call.query:
        return 0
    last = _opened(call)
    return sum(_key(order) >= last if newest_first else _key(order) <= last for order in found)


def _keys(account: Account, call: Call, key: tuple[str, int]) -> str | list[str | int]:
    """The `nextKeys` of the following page. In the form of a text they are valid for the same query only."""
    if account.config.next_keys == "list":
        return list(key)
    content = msgspec.json.encode(key)
    return base64.urlsafe_b64encode(_seal(call, content) + content).decode().rstrip("=")


def _opened(call: Call) -> tuple[str, int]:
    """The key of the last order before the page, from the request's `nextKeys` in any of their forms."""
    keys = call.all("nextKeys")
    try:
        if len(keys) > 1:
            return msgspec.convert(keys, tuple[str, int], strict=False)
        if keys[0].startswith("["):
            return msgspec.json.decode(keys[0], type=tuple[str, int])
        sealed = base64.urlsafe_b64decode(keys[0] + "=" * (-len(keys[0]) % 4))
    except (binascii.Error, ValueError):
        raise Refused(400, "nextKeys is invalid") from None
    if sealed[:_SEAL] != _seal(call, sealed[_SEAL:]):
        raise Refused(400, "nextKeys is invalid")
    return msgspec.json.decode(sealed[_SEAL:], type=tuple[str, int])


def _seal(call: Call, content: bytes) -> bytes:
    """A checksum of keys and query, so that the keys of one query are refused in another."""
    query = msgspec.json.encode([call.query.get(name) for name in _PARAMETERS])
    return hashlib.blake2b(query + content, digest_size=_SEAL).digest()
