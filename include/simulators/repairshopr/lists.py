"""Which rows a list request selects: the documented filters and orders; all else is silently ignored."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil

from starlette.datastructures import QueryParams

from include.simulators.repairshopr.config import Config, Sort
from include.simulators.repairshopr.data import LINE_PARENTS
from include.simulators.repairshopr.store import Store
from include.simulators.repairshopr.table import Selection, Table
from include.simulators.repairshopr.values import Row, instant, whole

SORTABLE = ("customers", "products")
_MICROSECOND = timedelta(microseconds=1)
DATED = ("invoices", "tickets")  # know `since_updated_at`
_FULL_META = ("line_items", "customers")
_NO_META = ("products",)

Test = Callable[[Row, str], bool]


def _equals(field: str) -> Test:
    return lambda row, value: str(row[field]) == value


def _contains(*fields: str) -> Test:
    return lambda row, value: any(value.lower() in str(row[field] or "").lower() for field in fields)


def _at_or_after(field: str) -> Test:
    return lambda row, value: row[field] is not None and row[field] >= (_instant(value) or "")


_TESTS: Mapping[str, Mapping[str, Test]] = {
    "customers": {
        "query": _contains("fullname", "business_name", "email"),
        **{name: _equals(name) for name in ("firstname", "lastname", "business_name", "email")},
    },
    "invoices": {
        "paid": lambda row, value: row["is_paid"] or value != "true",
        "unpaid": lambda row, value: not row["is_paid"] or value != "true",
        "ticket_id": _equals("ticket_id"),
    },
    "payments": {"query": _contains("ref_num")},
    "products": {
        "sku": _equals("upc_code"),
        "name": _equals("name"),
        "id": _equals("id"),
        "query": _contains("name"),
    },
    "tickets": {
        **{name: _equals(name) for name in ("customer_id", "contact_id", "number", "status", "user_id")},
        "created_after": _at_or_after("created_at"),
        "resolved_after": _at_or_after("resolved_at"),
        "query": _contains("subject"),
    },
    "estimates": {"status": _equals("status")},
}


def select(store: Store, config: Config, resource: str, params: QueryParams) -> Selection:
    """The list that a request asks for, before paging."""
    sort = config.sort
    if resource == "line_items":
        return _lines(store, sort, params)
    table = store.tables[resource]
    if resource in SORTABLE and (asked := _asked_order(table, params.get("sort", ""))):
        chosen = asked
    elif resource in DATED and (since := _instant(params.get("since_updated_at", ""))):
        ids = table.since(since)
        chosen = store.ordered(ids if sort == "updated_at_desc" else sorted(ids), sort)
    else:
        chosen = store.default_list(resource, sort)
    hidden = {"customers": params.get("include_disabled") != "true", "products": not config.disabled_products_listed}
    return _filtered(table, chosen, params, disabled=not hidden.get(resource))


def meta(resource: str, page: int, size: int, entries: int) -> Row | None:
    """The `meta` object in the form that the resource has; None where it has none."""
    if resource in _NO_META:
        return None
    pages = ceil(entries / size)
    if resource in _FULL_META:
        return {"total_pages": pages, "total_entries": entries, "per_page": size, "page": page}
    return {"total_pages": pages, "page": page}


def _lines(store: Store, sort: Sort, params: QueryParams) -> Selection:
    for owner, name in LINE_PARENTS.items():
        if value := params.get(name):
            owner_id = whole(value)
            return store.ordered(() if owner_id is None else store.lines.of(owner, owner_id), sort)
    having = next((name for name in LINE_PARENTS.values() if params.get(f"{name}_not_null") == "true"), None)
    return store.ordered(store.lines.ids("updated_at" if sort == "updated_at_desc" else "id", having), sort)


def _asked_order(table: Table, sort: str) -> Selection | None:
    """The list as `sort=<field> ASC|DESC` asks; None when rows have no such plain field."""
    field, _, direction = sort.strip().partition(" ")
    first = next(iter(table), None)
    if first is None or isinstance(table.row(first).get(field, []), (dict, list)):
        return None
    return Selection(table.ids(field), backwards=direction.strip().upper() == "DESC")


def _filtered(table: Table, chosen: Selection, params: QueryParams, *, disabled: bool) -> Selection:
    tests = [(test, params[name]) for name, test in _TESTS[table.name].items() if params.get(name)]
    if not disabled:
        tests.append((lambda row, value: not row["disabled"], ""))
    wanted = set(params.getlist("id[]")) if table.name == "customers" else set()
    if not tests and not wanted:
        return chosen
    ids: Sequence[int] = chosen.page(1, len(chosen.ids))
    ids = [row_id for row_id in ids if not wanted or str(row_id) in wanted]
    return Selection([row_id for row_id in ids if all(test(table.row(row_id), value) for test, value in tests)])


def _instant(text: str) -> str | None:
    """A date-time parameter in the vendor's writing, rounded up to milliseconds; None if unreadable."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
    return instant(-(-microseconds // 1_000))
