"""The vendor's API over one account: lists, single rows and writes, each as status and body."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from starlette.datastructures import QueryParams

from include.simulators.repairshopr import lists
from include.simulators.repairshopr.account import Account
from include.simulators.repairshopr.config import SINGULAR
from include.simulators.repairshopr.data import LINE_PARENTS, Row, decimal_text
from include.simulators.repairshopr.faults import Call, ErrorBody, Fault, error_body, spoil_ids

WRITABLE = ("customers", "invoices", "tickets", "estimates")
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
_NARROWING = tuple(LINE_PARENTS.values())
_DECIMALS = ("price", "cost", "quantity")

encoder = msgspec.json.Encoder(decimal_format="number")
decoder = msgspec.json.Decoder(float_hook=Decimal)


@dataclass(frozen=True)
class Answer:
    """Status and body of an answer."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=utf-8"


def answer(
    account: Account, call: Call, params: QueryParams, sub: Sequence[str], body: bytes, fault: Fault | None
) -> Answer:
    """Carry out a request that was let through. `sub` is the path behind the id, `fault` spoils a list."""
    store = account.store
    if call.resource not in store.tables or (
        sub and (call.resource not in LINE_PARENTS or sub[0] != "line_items")
    ):
        return error(404)
    if call.is_list:
        return _list(account, call, params, fault)
    if call.method == "GET":
        row = _find(account, call)
        return error(404) if row is None or sub else _single(account, call.resource, row)
    if call.resource not in WRITABLE:
        return error(404)
    fields = decoder.decode(body) if body else {}
    if call.method == "POST" and call.item is None:
        return _create(account, call.resource, fields)
    row = _find(account, call)
    if row is None:
        return error(404)
    if sub:
        return _write_line(account, call, row, sub[1:], fields)
    return _write(account, call, row, fields)


def error(status: int, form: ErrorBody = "error") -> Answer:
    """An error answer in one of the vendor's shapes."""
    return Answer(status, *error_body(form))


def _ok(content: Mapping[str, Any]) -> Answer:
    return Answer(200, encoder.encode(content))


def _list(account: Account, call: Call, params: QueryParams, fault: Fault | None) -> Answer:
    page = call.page
    if fault and fault.kind == "same_page":
        page = fault.value or max(1, page - 1)
    rows, meta = _page(account, call.resource, page, params)
    if meta:
        meta["page"] = call.page
    if fault:
        rows, meta = _spoil(fault, rows, meta)
    account.served(call)
    return _ok({call.resource: rows} | ({} if meta is None else {"meta": meta}))


def _page(account: Account, resource: str, page: int, params: QueryParams) -> tuple[list[Row], Row | None]:
    script = account.scripts.get(resource)
    if script is not None and not any(params.get(name) for name in _NARROWING):
        rows = list(script[page - 1]) if page <= len(script) else []
        size = max(1, *map(len, script))
        meta = lists.meta(resource, page, size, sum(map(len, script)))
        return rows, meta and meta | {"total_pages": len(script)}
    size = account.config.page_size(resource)
    chosen = lists.select(account, resource, params)
    table = account.store.tables[resource]
    rows = [table.row(row_id) for row_id in chosen.page(page, size)]
    return rows, lists.meta(resource, page, size, len(chosen.ids))


def _spoil(fault: Fault, rows: list[Row], meta: Row | None) -> tuple[list[Row], Row | None]:
    match fault.kind:
        case "empty_page":
            return [], meta
        case "ids":
            return spoil_ids(rows, fault), meta
        case "duplicate_rows":
            return rows + [row | fault.changes for row in rows[: fault.value or 1]], meta
        case "total_pages":
            kept = {key: value for key, value in (meta or {}).items() if key != "total_pages"}
            return rows, kept if fault.value is None else {"total_pages": fault.value} | kept
    return rows, meta


def _find(account: Account, call: Call) -> Row | None:
    """The row that a path names: by id, invoices also by number."""
    table = account.store.tables[call.resource]
    if not (call.item or "").isdecimal():
        return None
    row = table.get(int(call.item))
    if row is None and call.resource == "invoices":
        return account.store.invoice_numbered(call.item)
    return row


def _single(account: Account, resource: str, row: Row) -> Answer:
    if resource in LINE_PARENTS:
        row = row | {
            "customer": account.store.tables["customers"].get(row["customer_id"]),
            "line_items": account.store.lines_of(resource, row["id"]),
        }
    if resource == "invoices":
        row = row | {"payments": account.store.payments_of(row["id"])}
    return _ok({SINGULAR[resource]: row})


def _create(account: Account, resource: str, fields: Row) -> Answer:
    if not fields.get(_REQUIRED[resource]):
        return error(422, _REFUSAL[resource])
    fields = (
        {"subtotal": "0.0", "total": "0.0", "tax": "0.0"} | fields if resource in LINE_PARENTS else fields
    )
    return _single_of(
        account, resource, account.store.insert(resource, _own(account, resource, fields), bump=True)
    )


def _own(account: Account, resource: str, fields: Row) -> Row:
    """The fields that a write may set; nested lines and made-up ones are ignored, as the vendor does."""
    shape = account.store.shape(resource)
    return {name: value for name, value in fields.items() if name in shape and name != "id"}


def _write(account: Account, call: Call, row: Row, fields: Row) -> Answer:
    if call.method == "PUT":
        account.store.update(call.resource, row["id"], _own(account, call.resource, fields), bump=True)
        return _single_of(account, call.resource, row["id"])
    if not (call.resource == "invoices" and account.config.invoice_delete_fails):
        account.store.delete(call.resource, row["id"], bump=True)
    return _ok({"message": f"{row['id']}: We deleted it."})


def _write_line(account: Account, call: Call, parent: Row, path: Sequence[str], fields: Row) -> Answer:
    """Create, change or delete a line; the answer is the recalculated invoice or estimate."""
    store, bump = account.store, account.config.line_edit_bumps_parent
    fields = {
        name: decimal_text(Decimal(str(value))) if name in _DECIMALS else value
        for name, value in _own(account, "line_items", fields).items()
    }
    if call.method == "POST" and not path:
        if not fields.get("name"):
            return error(422, "errors_list")
        store.insert("line_items", fields | {LINE_PARENTS[call.resource]: parent["id"]}, bump=bump)
        return _single_of(account, call.resource, parent["id"])
    line_id = int(path[0]) if path and path[0].isdecimal() else None
    if line_id not in store.lines.of(call.resource, parent["id"]):
        return error(404)
    if call.method == "PUT":
        store.update("line_items", line_id, fields, bump=bump)
    else:
        store.delete("line_items", line_id, bump=bump)
    return _single_of(account, call.resource, parent["id"])


def _single_of(account: Account, resource: str, row_id: int) -> Answer:
    return _single(account, resource, account.store.tables[resource].row(row_id))
