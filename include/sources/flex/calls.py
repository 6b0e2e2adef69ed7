"""The requests to Flex: three reads, and three writes. A write returns its outcome by the answer."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal
from uuid import UUID

from include.api.client import ApiClient
from include.api.errors import ApiError, FixConfiguration, NotFound, NotSent, TryLater
from include.api.request import Answer, Request
from include.sources.flex import rows
from include.sources.flex.rows import Item, Line, Unreadable

# Statuses that say that the write did not happen: all of HTTP's own refusals, except that a server has waited too long
# for the request (408), or doesn't want to be asked so early (425).
FINAL = frozenset(status.value for status in HTTPStatus if 400 <= status < 500) - {408, 425}
# Statuses that any other request to the crew call would get too.
STOPS = frozenset({401, 403})


@dataclass(frozen=True)
class Outcome:
    """What the answer to a write says. `unknown`: it may have happened. A read has to prove every outcome.

    `line_id` is the new line that the answer to an add names; an add that is `done` has one. `reason` says in one line
    why it is not `done`. A write that was not `sent` needs no proof.
    """

    kind: Literal["done", "refused", "unknown"]
    line_id: UUID | None = None
    reason: str | None = None
    sent: bool = True


class Stopped(FixConfiguration):
    """A write did not happen, because a right is missing or Flex can't be reached. Others would fail too."""


def lines(api: ApiClient, element_id: UUID, mapped: Collection[UUID], *, owed: bool = False) -> list[Line]:
    """Return the lines that the rows of a crew call show. `mapped` are the lines that are ours, `owed` as in `Request`.

    Raises Unreadable if the answer proves nothing, and whatever `ApiClient.send` raises.
    """
    params = {"_dc": _now(), "codeList": ["contact", "business-role"], "node": "root"}
    return rows.read(_read(api, Request(f"line-item/{element_id}/row-data/", params, owed=owed)), mapped)


def items(api: ApiClient, element_id: UUID, *, owed: bool = False) -> Mapping[UUID, Item]:
    """Return the lines in a crew call's own record, by their ids. Raises what `lines` raises."""
    return rows.items(_read(api, _record(element_id, owed)), element_id)


def exists(api: ApiClient, line_id: UUID) -> bool:
    """Return whether a line exists by its own address, on whatever crew call.

    Raises Unreadable if the answer proves neither, and whatever `ApiClient.send` raises.
    """
    try:
        rows.require_record(_read(api, _record(line_id, False)), line_id)
    except NotFound:
        return False
    return True


def add(api: ApiClient, element_id: UUID, resource_id: UUID) -> Outcome:
    """Add a line for a contact, even if it has one already. Raises Stopped."""
    answer = _write(api, Request(f"line-item/{element_id}/add-resource/{resource_id}", method="POST", idempotent=False))
    if isinstance(answer, Outcome):
        return answer
    line_id = _added(answer)
    if line_id is None:
        return Outcome("unknown", reason=f"{api.name}: the answer to an add on {element_id} names no new line")
    return Outcome("done", line_id)


def remove(api: ApiClient, line_id: UUID) -> Outcome:
    """Delete a line. If there is no such line, that is `done`. Raises Stopped."""
    answer = _write(api, Request(f"line-item/{line_id}", method="DELETE", idempotent=False), missing="done")
    return answer if isinstance(answer, Outcome) else Outcome("done")


def set_role(api: ApiClient, element_id: UUID, line_id: UUID, role_id: UUID) -> Outcome:
    """Write the business role of a line. Raises Stopped."""
    body = {"lineItemId": str(line_id), "fieldType": "business-role", "payloadValue": str(role_id)}
    request = Request(f"line-item/{element_id}/row-data/", method="POST", body=body, idempotent=False)
    answer = _write(api, request)
    return answer if isinstance(answer, Outcome) else Outcome("done")


def _read(api: ApiClient, request: Request) -> Any:
    """Return the answer's data. Raises Unreadable if Flex refuses only this request, so that others may go on."""
    try:
        return api.send(request).data
    except FixConfiguration as error:
        if error.status is None or error.status < 400 or error.status in STOPS:
            raise
        raise Unreadable(f"{api.name}: {request} answered {error.status}, which tells nothing of it") from None


def _record(thing_id: UUID, owed: bool) -> Request:
    return Request(f"line-item/{thing_id}", {"_dc": _now()}, owed=owed)


def _now() -> int:
    """Return a param that keeps caches from answering: only a fresh answer proves anything."""
    return time.time_ns() // 1_000_000


def _write(api: ApiClient, request: Request, missing: Literal["done", "refused"] = "refused") -> Answer | Outcome:
    """Send a write once. Return its answer if that is a success, else the outcome. `missing`: the outcome of a 404."""
    try:
        answer = api.send(request)
    except NotFound as error:
        return Outcome(missing, reason=None if missing == "done" else _refusal(api, request, error))
    except NotSent as error:
        return Outcome("refused", reason=str(error), sent=False)
    except FixConfiguration as error:
        # Without a status it was not sent: no trusted TLS connection, or no usable host.
        if error.status is None or error.status in STOPS:
            raise Stopped(str(error), status=error.status) from None
        return _judged(api, request, error)
    except TryLater as error:
        return _judged(api, request, error)
    if answer.status == 202:
        return Outcome("unknown", reason=f"{api.name}: {request} answered 202, which promises nothing")
    return answer


def _judged(api: ApiClient, request: Request, error: ApiError) -> Outcome:
    if error.status in FINAL:
        return Outcome("refused", reason=_refusal(api, request, error))
    return Outcome("unknown", reason=str(error))


def _refusal(api: ApiClient, request: Request, error: ApiError) -> str:
    return f"{api.name}: {request} answered {error.status}, nothing happened"


def _added(answer: Answer) -> UUID | None:
    """Return the id of the line that an add has made, in any known form of the answer; None unless it is one id."""
    told = answer.data
    if not isinstance(told, dict) or any(told.get(key) for key in rows.ERRORS):
        return None
    several = told.get("addedResourceLineIds")
    try:
        found = rows.named(told) | {UUID(each) for each in (several if isinstance(several, list) else [])}
    except (Unreadable, AttributeError, TypeError, ValueError):
        return None
    return found.pop() if len(found) == 1 else None
