"""Recorded answers of `wide`, as a new source has them in tests/contract/."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.contract.recorded import Recorded
from tests.contract.stubbed import stubbed

UPDATED = {"updated": "2026-03-01T08:00:00Z"}
CARGO = [{"code": "a", "what": "tea", "kg": 1.5}, {"code": "b", "what": "silk", "kg": 1}]
PIER = {"id": "p", "name": "North", **UPDATED}
SHIP = {"id": "s", "pier": {"id": "p"}, "name": "Ann", "revision": 3, "cargo": CARGO, **UPDATED}
NOTE = {"id": 1, "ship_id": "s", "note": "late", **UPDATED}
PRICE = {"id": 1, "what": "mooring", **UPDATED}
MATE = {"id": "c", "name": "Ann", "joined": 1772355600}
BERTH = {"id": "b", "name": "One", "changed": 1772355600}
ENTRY = {"id": 1, "what": "opened", **UPDATED}
REBATE = {"id": "r-1", "price": {"id": 1}, "for_whom": "regulars"}
REBATES = {"value": [REBATE], "@odata.count": 2, "@odata.nextLink": "https://wharf.example/prices/1/rebates?$skip=1"}
NOTES = {"content": [NOTE], "totalPages": 2, "totalElements": 2, "last": False}


def event(kind: str, record: Mapping[str, Any], moment: datetime) -> Mapping[str, Any]:
    return {"id": f"event-{moment.isoformat()}", "type": kind, "object": record}


ANSWERS = {
    "piers": Recorded(listing=[PIER], lookup={"item": PIER}),
    "ships": Recorded(listing={"items": [SHIP], "next": "b"}, lookup={"items": [SHIP]}, witness={"item": SHIP}),
    "notes": Recorded(listing=NOTES, lookup=NOTES),
    "prices": Recorded(listing={"prices": [PRICE], "meta": {"total_pages": 2}}, lookup={"item": PRICE}),
    "rebates": Recorded(listing=REBATES, lookup=REBATES),
    "crew": Recorded(
        listing={"data": [MATE], "has_more": True},
        lookup={"item": MATE},
        feed={"data": [{"id": "e", "type": "created", "object": MATE}], "has_more": True},
    ),
    "berths": Recorded(
        listing={"data": [BERTH], "has_more": True},
        lookup={"item": BERTH},
        feed={"page": {"list": [{"berth": BERTH}], "after": "b"}, "end_of_stream": False},
        deletes={"data": [{"id": "e", "object": {"id": "b", "deleted": True}}], "has_more": True},
    ),
    "flags": Recorded(listing={"object": "list", "data": [{"name": "late", "colour": "red"}]}),
    "log": Recorded(listing={"log": [ENTRY], "meta": {"total": 2}}, lookup={"item": ENTRY}),
}

Account, opened = stubbed(
    "wharf",
    ANSWERS,
    events={"crew": event, "berths": lambda kind, record, moment: None if kind == "deleted" else record},
    deletes={"berths": lambda record, moment: {"id": f"event-{moment.isoformat()}", "object": {"id": record["id"]}}},
)
