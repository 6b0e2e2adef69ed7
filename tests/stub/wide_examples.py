"""Examples of the records of `wide`, as a new source has them in tests/contract/."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.contract.stubbed import stubbed

UPDATED = {"updated": "2026-03-01T08:00:00Z"}
CARGO = [{"code": "a", "what": "tea", "kg": 1.5}, {"code": "b", "what": "silk", "kg": 1}]
EXAMPLES = {
    "piers": [{"id": "p", "name": "North", **UPDATED}],
    "ships": [{"id": "s", "pier": {"id": "p"}, "name": "Ann", "revision": 3, "cargo": CARGO, **UPDATED}],
    "notes": [{"id": 1, "ship_id": "s", "note": "late", **UPDATED}],
    "prices": [{"id": 1, "what": "mooring", **UPDATED}],
    "crew": [{"id": "c", "name": "Ann", "joined": 1772355600}],
    "log": [{"id": 1, "what": "opened", **UPDATED}],
}


def event(kind: str, record: Mapping[str, Any], moment: datetime) -> Mapping[str, Any]:
    return {"id": f"event-{moment.isoformat()}", "type": kind, "object": record}


Account, opened = stubbed("wharf", EXAMPLES, events={"crew": event})
