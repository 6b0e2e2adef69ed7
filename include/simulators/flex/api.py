"""The vendor's API over one account: each endpoint as status and body."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal
from uuid import UUID

import msgspec

from include.simulators.answers import HTML
from include.simulators.flex.account import Account
from include.simulators.flex.protocol import NOTHING, Answer, Call, Refused, error, ok
from include.simulators.flex.rows import name_of
from include.simulators.flex.store import Line

_ITEM_KEYS = ("children", "lineItems", "data.children")
_LIST_KEYS = ("children", "items", "data.children")


def answer(account: Account, call: Call) -> Answer:
    """Carry out a request that was let through."""
    try:
        if call.endpoint not in _ENDPOINTS:
            raise Refused(404, "Not found")
        methods = _ENDPOINTS[call.endpoint]
        if call.method not in methods:
            raise Refused(405, f"Request method '{call.method}' not supported")
        return methods[call.method](account, call)
    except Refused as refused:
        return error(refused)


def endpoint_of(path: str) -> tuple[str, dict[str, UUID]]:
    """The endpoint that a path below /f5/api means, and the ids in it; the path itself where it is none."""
    for name, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(path):
            return name, {key: UUID(text) for key, text in match.groupdict().items()}
    return path, {}


def _rows(account: Account, call: Call) -> Answer:
    lines, parent_id = _node(account, call)
    codes = call.query.get("codeList", ())
    return ok(account.shapes.rows(lines, parent_id, codes, account.config.headers))


def _positions(account: Account, call: Call) -> Answer:
    return ok(account.shapes.positions(*_node(account, call)))


def _item(account: Account, call: Call) -> Answer:
    node_id = call.ids["id"]
    try:
        lines, parent_id = _node(account, call)
    except Refused:
        return _gone_line(account)
    items = account.shapes.items(lines, parent_id, _ITEM_KEYS, account.config.records, account.config.headers)
    return ok({"id": node_id, **account.shapes.nested(node_id, items, _ITEM_KEYS)})


def _gone_line(account: Account) -> Answer:
    """What the address of a line answers that isn't there, by the account's habit."""
    match account.config.gone:
        case "page":
            return Answer(404, HTML, {}, "text/html; charset=utf-8")
        case "null":
            return ok(None)
        case "empty":
            return ok({})
    raise Refused(int(account.config.gone), "Line item not found")


def _children(account: Account, call: Call) -> Answer:
    items = account.shapes.items(*_node(account, call), _LIST_KEYS)
    return ok(account.shapes.wrapped(call.ids["id"], items))


def _element_items(account: Account, call: Call) -> Answer:
    items = account.shapes.items(_element(account, call), None, _LIST_KEYS)
    return ok(account.shapes.wrapped(call.ids["id"], items))


def _contact(account: Account, call: Call) -> Answer:
    """Whatever id is asked for, there is such a contact."""
    return ok({"id": call.ids["id"], "name": name_of(call.ids["id"])})


def _add(account: Account, call: Call) -> Answer:
    """Every call makes another line."""
    _element(account, call)
    if account.ignoring:
        return ok(account.shapes.added(account.store.new_id()))
    element_id, form = account.added_to(call.ids["id"]), call.form()
    if form.get("managedResourceLineItemType", ["contact"]) != ["contact"]:
        raise Refused(400, "managedResourceLineItemType must be contact")
    try:
        parent_id = UUID(form["parentLineItemId"][0]) if "parentLineItemId" in form else None
        if parent_id and account.store.line(parent_id).kind != "header":
            raise ValueError
        line = account.store.add(element_id, "contact", call.ids["resource"], parent_id=parent_id)
    except (KeyError, ValueError):
        raise Refused(400, "parentLineItemId is no header of this element") from None
    account.wrote("add", element_id, line)
    return ok(account.shapes.added(line.id))


class _Field(msgspec.Struct):
    lineItemId: UUID
    fieldType: Literal["business-role"]
    payloadValue: UUID


def _set_field(account: Account, call: Call) -> Answer:
    _element(account, call)
    try:
        wanted = msgspec.json.decode(call.body, type=_Field)
    except msgspec.MsgspecError as misfit:
        raise Refused(400, f"JSON parse error: {misfit}") from None
    line = account.store.elements[call.ids["id"]].get(wanted.lineItemId)
    if line is None:
        raise Refused(404, "Line item not found")
    if line.kind != "contact" or wanted.payloadValue not in account.config.roles:
        raise Refused(400, "business-role can't have this value")
    if account.ignoring:
        return ok({"success": True})
    changed = replace(line, role_id=wanted.payloadValue)
    account.store.put(call.ids["id"], changed)
    account.wrote("role", call.ids["id"], changed)
    return ok({"success": True})


def _delete(account: Account, call: Call) -> Answer:
    _line(account, call.ids["id"])
    if not account.ignoring:
        _gone(account, call.ids["id"])
    return NOTHING


def _delete_many(account: Account, call: Call) -> Answer:
    """All or none, by the one parameter that is meant."""
    name, form = account.config.bulk_delete, call.form()
    if name is None:
        raise Refused(405, "Request method 'DELETE' not supported")
    if name not in form:
        raise Refused(400, f"Required parameter '{name}' is not present")
    try:
        line_ids = dict.fromkeys(UUID(text) for value in form[name] for text in value.split(","))
    except ValueError:
        raise Refused(400, f"{name} must be ids") from None
    lines = [_line(account, line_id) for line_id in line_ids]
    for line in lines:
        # A line goes with its header, too.
        if line.parent_id not in line_ids:
            _gone(account, line.id)
    return NOTHING


def _gone(account: Account, line_id: UUID) -> None:
    for line in account.store.delete(line_id):
        account.wrote("delete", account.store.home[line_id], line)


def _line(account: Account, line_id: UUID) -> Line:
    try:
        return account.store.line(line_id)
    except KeyError:
        raise Refused(404, "Line item not found") from None


def _element(account: Account, call: Call) -> list[Line]:
    try:
        return account.store.lines(call.ids["id"])
    except KeyError:
        raise Refused(404, "Element not found") from None


def _node(account: Account, call: Call) -> tuple[list[Line], UUID | None]:
    """The lines of the element that is meant, and the line on it that is, or None for itself; as they are shown."""
    node_id = call.ids["id"]
    if node_id in account.store.elements:
        return account.shown(node_id), None
    shown = account.shown(account.store.home[node_id]) if node_id in account.store.home else []
    if all(line.id != node_id for line in shown):
        raise Refused(404, "Line item not found")
    return shown, node_id


_ENDPOINTS: Mapping[str, Mapping[str, Callable[[Account, Call], Any]]] = {
    "line-item/{id}/row-data": {"GET": _rows, "POST": _set_field},
    "line-item/{id}/row-data/findRowData": {"GET": _positions},
    "line-item/{id}": {"GET": _item, "DELETE": _delete},
    "line-item/{id}/children": {"GET": _children},
    "line-item/{id}/add-resource/{resource}": {"POST": _add},
    "line-item": {"DELETE": _delete_many},
    "element/{id}/line-items": {"GET": _element_items},
    "contact/{id}/key-info": {"GET": _contact},
}
_ID = r"[\da-fA-F]{8}(?:-[\da-fA-F]{4}){3}-[\da-fA-F]{12}"
_PATTERNS = {
    name: re.compile(re.sub(r"\{(\w+)\}", lambda found: f"(?P<{found[1]}>{_ID})", name)) for name in _ENDPOINTS
}
