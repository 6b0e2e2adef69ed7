"""Read every crew call as the sync before ours did, one request after the other: who is there, then what may go."""

from collections.abc import Callable, Sequence
from typing import Any

import requests

# Until one of them shows something.
ITEMS = (
    "element/{}/line-items",
    "line-item/{}",
    "line-item/{}/children",
    "line-item/{}/row-data/",
    "line-item/{}/row-data/findRowData",
)
FIELDS = {"codeList": ["contact", "business-role"], "node": "root"}


def scan(start: Callable[[], None], *, url: str, token: str, elements: Sequence[str]) -> dict[str, int]:
    """Read the elements; returns the crew calls and contacts found, and the requests sent."""
    with requests.Session() as session:
        session.headers["X-Auth-Token"] = token
        start()
        contacts = sent = 0
        for element in elements:
            contacts += len(_contacts(_read(session, url, ITEMS[3], element)))
            sent += 1
            for path in ITEMS:
                sent += 1
                if _read(session, url, path, element):
                    break
    return {"crew_calls": len(elements), "contacts": contacts, "requests": sent}


def _read(session: requests.Session, url: str, path: str, element: str) -> Any:
    answer = session.get(f"{url}/f5/api/{path.format(element)}", params=FIELDS, timeout=60)
    answer.raise_for_status()
    return answer.json()


def _contacts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    nested = [found for row in rows for found in _contacts(row.get("children") or [])]
    return [row for row in rows if "contact" in (row.get("managedResourceLineItemType"), row.get("type"))] + nested
