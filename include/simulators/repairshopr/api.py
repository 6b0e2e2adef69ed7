"""The vendor's API over one account: lists, single rows and writes, each as status and body."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from include.simulators.answers import Answer
from include.simulators.repairshopr import lies, lists
from include.simulators.repairshopr.account import Account
from include.simulators.repairshopr.config import SINGULAR
from include.simulators.repairshopr.data import LINE_PARENTS
from include.simulators.repairshopr.faults import Call, ErrorBody, Fault, error_body
from include.simulators.repairshopr.store import Store
from include.simulators.repairshopr.values import Row, decimal_text, totals, whole

_WRITABLE = ("customers", "invoices", "tickets", "estimates")
_REQUIRED = {
    "customers": "business_name",
    "invoices": "customer_id",
    "tickets": "subject",
    "estimates": "customer_id",
}
_REFUSAL: Mapping[str, ErrorBody] = {
    "customers": "messages",
    "invoices": "message",
    "tickets": "record",
    "estimates": "errors_object",
}
_DECIMALS = ("price", "cost", "quantity")

encoder = msgspec.json.Encoder(decimal_format="number")
decoder = msgspec.json.Decoder(float_hook=Decimal)


def answer(account: Account, call: Call, fault: Fault | None) -> Answer:
    """Carry out a request that was let through; `fault` spoils what it reads."""
    if call.resource not in account.store.tables:
        return error(404)
    if call.is_list:
        return _list(account, call, fault)
    row = _find(account, call)
    if call.method == "GET":
        return error(404) if row is None or call.rest else _single(account, call.resource, row, fault)
    if call.resource not in _WRITABLE or (row is None and call.item is not None):
        return error(404)
    try:
        fields = decoder.decode(call.body or b"{}")
    except msgspec.DecodeError:
        return error(400)
    return _write(account, call, row, fields)


def error(status: int, form: ErrorBody = "error") -> Answer:
    """An error answer in one of the vendor's shapes."""
    body, content_type = error_body(form)
    return Answer(status, body, content_type=content_type)


def _ok(content: Mapping[str, Any]) -> Answer:
    return Answer(200, encoder.encode(content), content_type="application/json; charset=utf-8")


def _list(account: Account, call: Call, fault: Fault | None) -> Answer:
    page = call.page
    if fault and fault.kind == "same_page":
        page = fault.value or max(1, page - 1)
    rows, meta = _page(account, call, page)
    beside: Mapping[str, Any] = {}
    if meta:
        meta["page"] = call.page
    if fault:
        rows = lies.told(account.shown.tables[call.resource], rows, fault)
        meta, beside = lies.told_meta(meta, fault), lies.beside(fault)
    account.served(call)
    return _ok({call.resource: rows, **beside} | ({} if meta is None else {"meta": meta}))


def _page(account: Account, call: Call, page: int) -> tuple[list[Row], Row | None]:
    """The rows of a page and its `meta`. If pages were scripted for a list, those are shown, but not for filters."""
    script = account.scripts.get(call.resource)
    if script is not None and not any(call.params.get(name) for name in LINE_PARENTS.values()):
        rows = list(script[page - 1]) if page <= len(script) else []
        meta = lists.meta(call.resource, page, max(1, *map(len, script)), sum(map(len, script)))
        return rows, meta and meta | {"total_pages": len(script)}
    size = account.config.page_size(call.resource)
    chosen = lists.select(account.shown, account.config, call.resource, call.params)
    table = account.shown.tables[call.resource]
    last = max(1, -(-len(chosen.ids) // size))
    if page > last and account.config.past_end != "empty":
        page = last if account.config.past_end == "last" else 1
    rows = [table.row(row_id) for row_id in chosen.page(page, size)]
    return rows, lists.meta(call.resource, page, size, len(chosen.ids))


def _find(account: Account, call: Call) -> Row | None:
    """The row that a path names: by id, invoices also by number."""
    store = account.shown if call.method == "GET" else account.store
    row_id = whole(call.item)
    row = None if row_id is None else store.tables[call.resource].get(row_id)
    if row is None and call.resource == "invoices":
        return store.invoice_numbered(call.item or "")
    return row


def _single(account: Account, resource: str, row: Row, fault: Fault | None = None) -> Answer:
    if resource in LINE_PARENTS:
        row = row | {
            "customer": account.shown.tables["customers"].get(row["customer_id"]),
            "line_items": account.embedded.lines_of(resource, row["id"]),
        }
    if resource == "invoices":
        row = row | {"payments": account.shown.payments_of(row["id"])}
    if fault is None:
        return _ok({SINGULAR[resource]: row})
    told = lies.told(account.shown.tables[resource], [row], fault)
    return _ok(({SINGULAR[resource]: told[0]} if told else {}) | lies.beside(fault))


def _write(account: Account, call: Call, row: Row | None, fields: Row) -> Answer:
    store, resource = account.store, call.resource
    match call.method, row, call.rest:
        case "POST", None, ():
            return _create(account, resource, fields)
        case "PUT", dict(), ():
            store.update(resource, row["id"], _own(store, resource, fields), bump=True)
            return _single(account, resource, store.tables[resource].row(row["id"]))
        case "DELETE", dict(), ():
            # The vendor says the same whether it deleted the invoice or not.
            if not (resource == "invoices" and account.config.invoice_delete_fails):
                store.delete(resource, row["id"], bump=True)
            return _ok({"message": f"{row['id']}: We deleted it."})
        case _, dict(), ("line_items", *line) if resource in LINE_PARENTS:
            return _write_line(account, call, row["id"], line, fields)
    return error(404)


def _create(account: Account, resource: str, fields: Row) -> Answer:
    if not fields.get(_REQUIRED[resource]):
        return error(422, _REFUSAL[resource])
    empty = totals(()) if resource in LINE_PARENTS else {}
    row_id = account.store.insert(resource, _own(account.store, resource, empty | fields), bump=True)
    return _single(account, resource, account.store.tables[resource].row(row_id))


def _own(store: Store, resource: str, fields: Row) -> Row:
    """The fields that a write may set; nested lines and made-up names are ignored, as the vendor does."""
    shape = store.shape(resource)
    return {name: value for name, value in fields.items() if name in shape and name != "id"}


def _write_line(account: Account, call: Call, parent_id: int, line: Sequence[str], fields: Row) -> Answer:
    """Create, change or delete a line; the answer is the recalculated invoice or estimate."""
    store, bump = account.store, account.config.line_edit_bumps_parent
    line_id = whole(line[0]) if len(line) == 1 else None
    known = line_id in store.lines.of(call.resource, parent_id)
    fields = {
        name: decimal_text(Decimal(str(value))) if name in _DECIMALS else value
        for name, value in _own(store, "line_items", fields).items()
    }
    match call.method:
        case "POST" if not line and not fields.get("name"):
            return error(422, "errors_list")
        case "POST" if not line:
            store.insert("line_items", fields | {LINE_PARENTS[call.resource]: parent_id}, bump=bump)
        case "PUT" if known:
            store.update("line_items", line_id, fields, bump=bump)
        case "DELETE" if known:
            store.delete("line_items", line_id, bump=bump)
        case _:
            return error(404)
    return _single(account, call.resource, account.store.tables[call.resource].row(parent_id))
