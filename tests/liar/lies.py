"""Lies about JSON, by kind: each makes a false answer of a true one, whatever the vendor.

A lie knows of an answer only its shape: lists of objects, the objects in them, and which fields all of those have.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from email.utils import formatdate, parsedate_to_datetime
from random import Random
from time import time
from typing import Any
from uuid import UUID

from tests.liar.wire import INSTANT, SURROGATE, Ask, Asked, Reply

# Fields by which answers say how much there is, and whether more follows.
TOTALS = ("total_entries", "total_pages", "totalPages", "totalElements", "numberOfElements", "total")
MORE = {"cursor": None, "nextKeys": None, "hasNext": False, "last": True}
# What a lie about a record's content leaves alone: with it the record would be another one, or a later one.
CHANGED = ("updated_at", "updatedDate", "version", "calculated_at", "postedDate")
IDENTITY = ("id", "uid", "version", "version_token")
MESSAGES = (
    {"errors": [{"category": "API_ERROR", "code": "INTERNAL_SERVER_ERROR", "detail": "temporarily unavailable"}]},
    {"errors": ["temporarily unavailable"]},
    {"errors": "temporarily unavailable"},
    {"message": "temporarily unavailable"},
    {"error": "temporarily unavailable"},
    {"success": False, "message": ["temporarily unavailable"]},
    {"exceptionMessage": "temporarily unavailable"},
    {"status": 500, "error": "Internal Server Error", "path": "/"},
    {"type": "ERROR", "message": "temporarily unavailable", "data": None},
    {"code": 503, "msg": "temporarily unavailable"},
    {"status": "error"},
    {"result": None},
)
NOTHING = (None, "", {}, [])
STATUSES = (400, 401, 403, 404, 405, 409, 410, 422, 429, 500, 502, 503, 504)


# A field of a record by its name.
Field = str


@dataclass(frozen=True)
class Telling:
    """What a lie may draw on.

    `random` is of this request, `of_run` of the whole run. `earlier`: what the same question was answered before.
    `others` are requests for other things of the same family, `elsewhere` those of other ones. `always`: the fields
    that every record of the family has, by the name of the list inside a record; "" for the records themselves.
    `count`: how often this very question was asked before. `first_page`: the number of a list's first page.
    """

    random: Random
    of_run: Random
    earlier: Sequence[Reply]
    asked: Asked
    ask: Ask
    others: Collection[Asked]
    elsewhere: Sequence[Asked]
    always: Mapping[str, Collection[Field]]
    count: int
    first_page: int


Lie = Callable[[Telling, Reply], Awaitable[Reply]]


def rows_of(data: Any) -> list[dict] | None:
    """The list of objects that an answer is about: the one that lies least deep. None where it is about one object."""
    level = [data]
    while level:
        for each in filter(_are_objects, level):
            return each
        level = [inner for each in level if isinstance(each, dict) for inner in each.values() if _is_tree(inner)]
        if any(is_record(each) for each in level):
            return next(filter(_are_objects, level), None)
    return None


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _is_tree(value: Any) -> bool:
    return isinstance(value, dict | list)


def is_record(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 3


def records_of(data: Any) -> list[dict]:
    """The objects that an answer is about, be it one."""
    rows = rows_of(data)
    if rows is not None:
        return rows
    if isinstance(data, dict):
        inner = [value for value in data.values() if is_record(value)]
        return inner if len(data) <= 2 and inner else [data]
    return []


def lists_in(record: Any) -> Iterator[list]:
    """The lists of objects inside a record, at any depth."""
    return (found for _, found in named_lists(record))


def named_lists(record: Any) -> Iterator[tuple[str, list]]:
    """The same with the names of the fields in which they are."""
    if isinstance(record, dict):
        for name, value in record.items():
            if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
                yield name, value
            yield from named_lists(value)
    elif isinstance(record, list):
        for each in record:
            yield from named_lists(each)


def by_list(data: Any) -> list[tuple[str, list[dict]]]:
    """An answer's records, those in lists inside them, and the answer itself (`.`) where it is a record with lists."""
    records = records_of(data)
    found = [("", records), *(each for record in records for each in named_lists(record))]
    if isinstance(data, dict) and "id" in data and all(data is not record for record in records):
        found.append((".", [data]))
    return [(name, rows) for name, rows in found if rows]


def filled(record: Mapping[str, Any]) -> set[Field]:
    """The fields of a record that say something."""
    return {name for name, value in record.items() if value not in (None, "")}


def owner_of(data: Any, wanted: Any) -> dict | None:
    """The object in which the list lies."""
    if isinstance(data, dict):
        for value in data.values():
            if value is wanted:
                return data
            found = owner_of(value, wanted)
            if found is not None:
                return found
    return None


def everywhere(data: Any) -> Iterator[dict]:
    """All objects of the frame around the rows."""
    if isinstance(data, dict):
        yield data
        for value in data.values():
            if isinstance(value, dict):
                yield from everywhere(value)


def differing(true: Any, false: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where a false answer differs from the true one, with the false value.

    Whatever says nothing is the same, and so is a number however it is written.
    """
    if false in NOTHING or not (type(true) is type(false) and isinstance(true, dict | list)):
        true, false = (None if each in NOTHING else as_number(each) for each in (true, false))
        if true != false:
            yield path, "" if false is None else str(false)
        return
    if isinstance(true, list):
        true, false = (dict(enumerate(each)) for each in (true, false))
    for name in true.keys() | false.keys():
        yield from differing(true.get(name), false.get(name), f"{path}/{name}")


def as_number(value: Any) -> Any:
    """A number without its float's noise and in its shortest form, also if it is text; anything else as it is."""
    if isinstance(value, bool):
        return value
    try:
        number = Decimal(str(value))
        return round(number, 4).normalize() if number.is_finite() else value
    except InvalidOperation:
        return value


def recount(data: Any, change: Callable[[int], Any]) -> None:
    """Change every total that the frame shows."""
    for frame in everywhere(data):
        for name in TOTALS:
            if isinstance(frame.get(name), int):
                frame[name] = change(frame[name])


def end(data: Any) -> None:
    """Let nothing follow this page."""
    for frame in everywhere(data):
        for name, value in MORE.items():
            if name in frame:
                frame[name] = value
        if isinstance(frame.get("page"), int) and "total_pages" in frame:
            frame["total_pages"] = frame["page"]
        if isinstance(frame.get("number"), int) and "totalPages" in frame:
            frame["totalPages"] = frame["number"] + 1


async def empty(telling: Telling, truth: Reply) -> Reply:
    """Nothing in place of something."""
    data, random = deepcopy(truth.data), telling.random
    rows, inside = rows_of(data), [each for record in records_of(data) for each in lists_in(record)]
    owner = owner_of(data, rows)
    ways = ["{}", "[]", "null"]
    ways += ["rows", "zero", "end"] * 2 * bool(rows)
    ways += ["gone", "no list"] * bool(rows and owner)
    ways += ["inside", "all inside"] * 2 * bool(inside)
    ways += ["record"] * (rows is None and isinstance(data, dict) and any(map(is_record, data.values())))
    match random.choice(ways):
        case "{}":
            data = {}
        case "[]":
            data = []
        case "null":
            data = None
        case "rows":
            rows.clear()
        case "zero":
            rows.clear()
            recount(data, lambda _: 0)
            end(data)
        case "end":
            rows.clear()
            end(data)
        case "gone":
            owner.pop(next(name for name, value in owner.items() if value is rows))
        case "no list":
            owner[next(name for name, value in owner.items() if value is rows)] = None
        case "inside":
            random.choice(inside).clear()
        case "all inside":
            for each in inside:
                each.clear()
        case "record":
            name = random.choice([name for name, value in data.items() if is_record(value)])
            data[name] = random.choice([{}, None])
    return truth.saying(data)


async def short(telling: Telling, truth: Reply) -> Reply:
    """Some rows left out, of the list or inside a record, or the pages that follow."""
    data, random = deepcopy(truth.data), telling.random
    rows, inside = rows_of(data), [each for record in records_of(data) for each in lists_in(record)]
    ways = ["rows", "counted", "cut"] * bool(rows) + ["inside"] * 2 * bool(inside)
    if not ways:
        return truth
    way = random.choice(ways)
    if way == "inside":
        some = random.choice(inside)
        _leave_out(some, random)
    elif way == "cut":
        end(data)
        if random.random() < 0.5:
            _leave_out(rows, random)
            recount(data, lambda _: None)
    else:
        gone = _leave_out(rows, random)
        if way == "counted":
            recount(data, lambda total: max(0, total - gone))
    return truth.saying(data)


def _leave_out(rows: list, random: Random) -> int:
    gone = random.randint(1, max(1, len(rows) // 2))
    for _ in range(gone):
        rows.pop(random.randrange(len(rows)))
    return gone


async def stale(telling: Telling, truth: Reply) -> Reply:
    """What was true before the change."""
    return await telling.ask(telling.asked, "old")


async def lagging(telling: Telling, truth: Reply) -> Reply:
    """What was true before the change, to the first who ask."""
    return await telling.ask(telling.asked, "old") if telling.count < telling.of_run.randint(1, 3) else truth


async def earlier(telling: Telling, truth: Reply) -> Reply:
    """The answer that the same question had before in this run."""
    return telling.random.choice(telling.earlier) if telling.earlier else truth


async def torn(telling: Telling, truth: Reply) -> Reply:
    """Some of the rows, or some fields of a record, as they were before the change."""
    old, random = await telling.ask(telling.asked, "old"), telling.random
    if not old.is_good or not _is_tree(truth.data) or not _is_tree(old.data):
        return random.choice([old, truth])
    rows, before = rows_of(truth.data), rows_of(old.data)
    data = deepcopy(truth.data)
    if rows is None or before is None:
        return truth.saying(_mixed(old.data, truth.data, random))
    names = {key_of(row): row for row in before}
    mixed = []
    for row in rows:
        known = names.pop(key_of(row), None)
        if known is None:
            mixed += [row] * (random.random() < 0.5)
        else:
            mixed.append(random.choice([row, known, _mixed(known, row, random)]))
    mixed += [row for row in names.values() if random.random() < 0.5]
    rows_of(data)[:] = mixed
    return truth.saying(data)


def key_of(row: Mapping[str, Any]) -> str:
    """What names a row, as text; a count of goods has no id."""
    if "catalog_object_id" in row and "uid" not in row:
        return ":".join(str(row.get(name)) for name in ("catalog_object_id", "location_id", "state"))
    return str(next((row[name] for name in ("id", "uid", "lineItemId", "repairOrderId") if name in row), row))


def promised(data: Any) -> int:
    """How many rows a list says that it has; 0 where it says nothing."""
    told = [frame[name] for frame in everywhere(data) for name in ("total_entries", "totalElements") if name in frame]
    return max((each for each in told if isinstance(each, int)), default=0)


def _mixed(old: Any, new: Any, random: Random) -> Any:
    """Each field as it was or as it is; lists as a whole."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return random.choice([old, new])
    return {name: _mixed(old[name], value, random) if name in old else value for name, value in new.items()}


async def swapped(telling: Telling, truth: Reply) -> Reply:
    """The answer to another question of the same kind."""
    others = [each for each in telling.others if each.identity != telling.asked.identity]
    return await telling.ask(telling.random.choice(others)) if others else truth


async def astray(telling: Telling, truth: Reply) -> Reply:
    """The answer to a question of another kind."""
    others = [each for each in telling.elsewhere if each.method == telling.asked.method]
    return await telling.ask(telling.random.choice(others)) if others else truth


async def mixed_up(telling: Telling, truth: Reply) -> Reply:
    """Rows of another question's answer among the right ones."""
    others = [each for each in telling.others if each.identity != telling.asked.identity]
    data = deepcopy(truth.data)
    rows = rows_of(data)
    if not others or rows is None:
        return truth
    strange = rows_of((await telling.ask(telling.random.choice(others))).data) or []
    if strange:
        rows.insert(telling.random.randint(0, len(rows)), telling.random.choice(strange))
    return truth.saying(data)


async def enveloped(telling: Telling, truth: Reply) -> Reply:
    """A message of failure with status 200, beside the data or in its place."""
    data, random = deepcopy(truth.data), telling.random
    message = deepcopy(random.choice(MESSAGES))
    rows = rows_of(data)
    match random.choice(["instead", "beside", "beside less"]):
        case "beside" if isinstance(data, dict):
            return truth.saying({**data, **{name: value for name, value in message.items() if name not in data}})
        case "beside less" if isinstance(data, dict) and rows:
            _leave_out(rows, random)
            return truth.saying({**data, **message})
    return truth.saying([message] if isinstance(data, list) and random.random() < 0.5 else message)


async def filtered(telling: Telling, truth: Reply) -> Reply:
    """A list as if another filter were on: what it leaves out is left out on all pages, and not counted."""
    return await telling.ask(telling.asked, "filtered")


async def stranger(telling: Telling, truth: Reply) -> Reply:
    """The answer of another account."""
    return await telling.ask(telling.asked, "stranger")


async def refused(telling: Telling, truth: Reply) -> Reply:
    """A refusal, as the vendor would word it, or as a proxy would."""
    random = telling.random
    status = telling.of_run.choice(STATUSES)
    if random.random() < 0.2:
        return Reply(status, b"<html><body>nginx</body></html>", {"content-type": "text/html"})
    headers = {"date": truth.headers["date"]} if "date" in truth.headers else {}
    return Reply(status, b"", headers).saying(random.choice(MESSAGES))


async def poorer(telling: Telling, truth: Reply) -> Reply:
    """A field that every record has is gone or null, in one record or in all."""
    data, random = deepcopy(truth.data), telling.random
    lists = [(name, rows) for name, rows in by_list(data) if telling.always.get(name)]
    if not lists:
        return truth
    name, records = random.choice(lists)
    always = sorted(telling.always[name])
    fields = random.sample(always, random.choice([1, 1, 1, min(3, len(always))]))
    for record in records if random.random() < 0.4 else [random.choice(records)]:
        for field in fields:
            if random.random() < 0.5:
                record.pop(field, None)
            elif field in record:
                record[field] = random.choice([None, None, ""])
    return truth.saying(data)


async def bare(telling: Telling, truth: Reply) -> Reply:
    """A stub in place of a record: its id, and little else."""
    data, random = deepcopy(truth.data), telling.random
    records = [record for record in records_of(data) if "id" in record]
    for record in records if random.random() < 0.3 else records[:1]:
        kept = {name: record[name] for name in ("id", "type", "version") if name in record}
        record.clear()
        record.update(kept | random.choice([{}, {"deleted": True}, {"deleted": True}, {"disabled": True}]))
    return truth.saying(data)


async def repeated(telling: Telling, truth: Reply) -> Reply:
    """Rows twice, in another order, or those of another page."""
    data, random = deepcopy(truth.data), telling.random
    rows, page = rows_of(data), telling.asked.params.get("page")
    if not rows:
        return truth
    ways = ["twice", "turned"]
    if page is not None:
        ways += ["page before", "page after", "shuffled", "shuffled"]
    match random.choice(ways):
        case "twice":
            rows += deepcopy(random.sample(rows, random.randint(1, len(rows))))
        case "turned":
            random.shuffle(rows)
        case "page before":
            rows[:] = await _page(telling, max(0, int(page) - 1), rows)
        case "page after":
            rows[:] = await _page(telling, int(page) + 1, rows)
        case "shuffled":
            whole = await _whole(telling, rows)
            size, number = len(whole[0]), int(page) - telling.first_page
            together = [row for each in whole for row in each]
            random.shuffle(together)
            rows[:] = together[number * size : (number + 1) * size]
    return truth.saying(data)


async def _page(telling: Telling, number: int, default: list) -> list:
    found = await telling.ask(telling.asked.on_page("page", number))
    return rows_of(found.data) or default


async def _whole(telling: Telling, rows: list) -> list[list]:
    """All pages of the list, from the first."""
    pages = []
    for number in range(telling.first_page, 50):
        found = rows_of((await telling.ask(telling.asked.on_page("page", number))).data)
        if not found:
            break
        pages.append(found)
    return pages or [rows]


async def doubled(telling: Telling, truth: Reply) -> Reply:
    """A record twice, the second time otherwise."""
    data, random = deepcopy(truth.data), telling.random
    rows = rows_of(data)
    some = [each for record in records_of(data) for each in lists_in(record)]
    target = random.choice([each for each in (rows, *some) if each] or [None])
    if target is None:
        return truth
    other = deepcopy(random.choice(target))
    _alter(other, random)
    target.insert(random.randint(0, len(target)), other)
    return truth.saying(data)


async def altered(telling: Telling, truth: Reply) -> Reply:
    """A record with another value in a field, and nothing that says it has changed."""
    data, random = deepcopy(truth.data), telling.random
    records = records_of(data)
    if not records or not _alter(random.choice(records), random):
        return truth
    return truth.saying(data)


def _alter(record: dict, random: Random) -> bool:
    names = [name for name, value in record.items() if _alterable(name, value)]
    if not names:
        return False
    name = random.choice(names)
    value = record[name]
    if isinstance(value, bool):
        record[name] = not value
    elif isinstance(value, str):
        record[name] = str(int(value) + 1) if value.isdecimal() else value[::-1] + "x"
    else:
        record[name] = value + 1
    return True


def _alterable(name: str, value: Any) -> bool:
    plain = isinstance(value, bool | int | str) and value != ""
    return plain and name not in IDENTITY and not (isinstance(value, str) and INSTANT.fullmatch(value))


async def redated(telling: Telling, truth: Reply) -> Reply:
    """Records with a wrong version or a wrong time of change."""
    data, random = deepcopy(truth.data), telling.random
    lists = [[record for record in rows if not record.keys().isdisjoint(CHANGED)] for _, rows in by_list(data)]
    records = random.choice([rows for rows in lists if rows] or [[]])
    if not records:
        return truth
    for record in records if random.random() < 0.4 else [random.choice(records)]:
        name = random.choice([name for name in CHANGED if name in record])
        record[name] = _moved(record[name], random)
    return truth.saying(data)


def _moved(value: Any, random: Random) -> Any:
    if isinstance(value, int):
        return value + random.choice([-1, 1, 10**6, -(10**6)])
    year = random.choice([2001, 2026, 2099])
    return random.choice([f"{year}-12-30T00:00:00.000Z", f"{year}-12-30T00:00:00", None])


async def mistyped(telling: Telling, truth: Reply) -> Reply:
    """A value of another type than ever: an id as text, a list as an object, an object as its name."""
    data, random = deepcopy(truth.data), telling.random
    records = [record for record in records_of(data) if record]
    if not records:
        return truth
    record = random.choice(records)
    name = random.choice(sorted(record))
    value = record[name]
    if name in ("id", "uid"):
        record[name] = random.choice([str(value), [value], {"id": value}, 0, "", None, True])
    elif isinstance(value, list):
        record[name] = random.choice([{str(at): each for at, each in enumerate(value)}, value[:1], "", None])
    elif isinstance(value, dict):
        record[name] = random.choice([[value], str(value), {}])
    else:
        record[name] = random.choice(
            [[value], {"value": value}, f"{value}\0", SURROGATE, "NaN", "1E+999", 10**30, [], {}]
        )
    return truth.saying(data)


async def mangled(telling: Telling, truth: Reply) -> Reply:
    """Answers that do not come from the API, and cut ones."""
    random, kept = telling.random, {"date": truth.headers["date"]} if "date" in truth.headers else {}
    json = {**truth.headers, "content-type": "application/json"}
    ways = {
        "html": Reply(
            200, b"<!DOCTYPE html><html><body>We'll be back soon</body></html>", {"content-type": "text/html"}
        ),
        "nothing": Reply(200, b"", json),
        "no content": Reply(204, b"", kept),
        "half": Reply(200, truth.body[: len(truth.body) // 2], json),
        "cut": Reply(200, truth.body, json, cut=True),
        "packed": Reply(200, truth.body, {**json, "content-encoding": "gzip"}),
        "wide": Reply(200, truth.body.decode(errors="replace").encode("utf-16"), json),
        "plain": Reply(200, truth.body, {**kept, "content-type": "text/plain"}),
        "more": Reply(200, truth.body + b"]}", json),
        "text": Reply(200, b'"ok"', json),
        "true": Reply(200, b"true", json),
        "accepted": Reply(202, b"{}", json),
        "partial": Reply(206, truth.body, json),
        "moved": Reply(302, b"", {**kept, "location": "/login"}),
        "not modified": Reply(304, b"", kept),
        "dropped": Reply(0),
        "wrapped": truth.saying({"data": truth.data}),
        "listed": truth.saying([truth.data]),
    }
    return ways[random.choice(sorted(ways))]


async def miscounted(telling: Telling, truth: Reply) -> Reply:
    """Totals that don't fit the rows."""
    data, random = deepcopy(truth.data), telling.random
    frames = [frame for frame in everywhere(data) if any(name in frame for name in (*TOTALS, *MORE))]
    if not frames:
        return truth
    frame = random.choice(frames)
    name = random.choice(sorted(name for name in frame if name in TOTALS or name in MORE))
    value = frame[name]
    if name in TOTALS and isinstance(value, int):
        frame[name] = random.choice([0, value + 1, max(0, value - 1), 2 * value + 3, None, str(value), -1])
    elif isinstance(value, bool):
        frame[name] = not value
    else:
        frame.pop(name)
        if random.random() < 0.5 and telling.asked.params.get(name):
            # The page leads to itself.
            frame[name] = telling.asked.params[name]
    return truth.saying(data)


async def misdated(telling: Telling, truth: Reply) -> Reply:
    """An answer whose clock is wrong, or that has none."""
    shift = telling.of_run.choice([3600, 86_400, -3600, -86_400, 366 * 86_400, None])
    headers = {name: value for name, value in truth.headers.items() if name != "date"}
    if shift is not None:
        told = parsedate_to_datetime(truth.headers["date"]).timestamp() if truth.headers.get("date") else time()
        headers["date"] = formatdate(told + shift, usegmt=True)
    else:
        headers["date"] = ""
    return Reply(truth.status, truth.body, headers)


KINDS: Mapping[str, Lie] = {
    each.__name__: each
    for each in (
        empty,
        short,
        stale,
        earlier,
        torn,
        swapped,
        astray,
        mixed_up,
        enveloped,
        filtered,
        lagging,
        refused,
        poorer,
        bare,
        repeated,
        doubled,
        altered,
        redated,
        mistyped,
        mangled,
        miscounted,
        misdated,
        stranger,
    )
}


async def undone(telling: Telling, truth: None) -> Reply:
    """A success, and nothing was done."""
    made = str(UUID(int=telling.random.getrandbits(128), version=4))
    if telling.asked.method == "DELETE":
        return Reply(204)
    return Reply(200).saying(telling.random.choice([{"id": made}, {"lineItemId": made}, {"success": True}, {}]))


async def broken_off(telling: Telling, truth: None) -> Reply:
    """A refusal or no answer at all, though it was done."""
    await telling.ask()
    status = telling.random.choice([0, 200, 202, 400, 403, 404, 408, 409, 429, 500, 502, 503, 504])
    return Reply(status) if status == 0 else Reply(status, b"").saying(telling.random.choice([{}, *MESSAGES]))


async def done_twice(telling: Telling, truth: None) -> Reply:
    """Done two times by one request."""
    first = await telling.ask()
    await telling.ask()
    return first


async def misplaced(telling: Telling, truth: None) -> Reply:
    """Done for another question than the one that is answered."""
    others = [each for each in telling.others if each.identity != telling.asked.identity]
    return await telling.ask(telling.random.choice(others)) if others else await telling.ask()


# Lies about writes: what is done is another thing than what is asked for. They ask for themselves.
WRITES: Mapping[str, Lie] = {each.__name__: each for each in (undone, broken_off, done_twice, misplaced)}
# Those of the others that a write can be answered with, once it was done.
OF_WRITES = ("empty", "enveloped", "refused", "bare", "mangled", "misdated")
