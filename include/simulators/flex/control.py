"""The hand on a running simulator: its clock, habits, faults, changes and truth, over its control API."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

import msgspec
import requests

from include.simulators.flex.account import Counters, Write
from include.simulators.flex.changes import Mutation
from include.simulators.flex.config import Config
from include.simulators.flex.faults import Fault, Trigger
from include.simulators.flex.store import Line


class Control:
    """Orders to the simulator at a URL. An order that makes no sense raises ValueError with the reason."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_control"

    def set(self, **fields: Any) -> Config:
        """Change fields of the account's Config (not its seed, sizes or `now`) from the next request on."""
        return self._send("PATCH", "config", fields, Config)

    def create_element(self, element_id: UUID | None = None) -> UUID:
        """Make a crew call with this id, or with a new one: without crew, with a header and gear under it."""
        return self.create_elements([element_id])[0]

    def create_elements(self, element_ids: Iterable[UUID | None]) -> list[UUID]:
        """Make many crew calls."""
        return self._send("POST", "elements", list(element_ids), list[UUID])

    def elements(self) -> list[UUID]:
        """The ids of all crew calls, in the order in which they came."""
        return self._send("GET", "elements", kind=list[UUID])

    def lines(self, element_id: UUID) -> list[Line]:
        """What truly is on a crew call, in the order in which it came."""
        return self._send("GET", f"elements/{element_id}", kind=list[Line])

    def mutate(self, *mutations: Mutation) -> list[list[UUID]]:
        """Let people change lines; returns, for each change, the lines that it made, changed or deleted."""
        return self._send("POST", "mutations", [asdict(mutation) for mutation in mutations], list[list[UUID]])

    def before(self, path: str, nth: int, *mutations: Mutation, method: str = "*") -> None:
        """Order changes for once: before the `nth` request from now on that matches (see `Fault`)."""
        self._send("POST", "triggers", asdict(Trigger(mutations, path=path, method=method, nth=nth)))

    def fault(self, *faults: Fault) -> None:
        """Order misbehaviour."""
        self._send("POST", "faults", [asdict(fault) for fault in faults])

    def clear(self) -> None:
        """Drop all open faults and all orders for before a request."""
        self._send("DELETE", "orders")

    def now(self) -> str:
        """The account's present instant, as 2026-11-04T18:00:00Z."""
        return self._send("GET", "clock", kind=str)

    def advance(self, seconds: int) -> str:
        """Put the account's clock forward; returns the new present."""
        return self._send("POST", "clock", seconds, str)

    def counters(self) -> Counters:
        """What was asked so far."""
        return self._send("GET", "counters", kind=Counters)

    def reset_counters(self) -> None:
        """Start counting anew; the journal stays."""
        self._send("DELETE", "counters")

    def journal(self) -> list[Write]:
        """All writes that the API ever carried out, in order; what people did is not among them."""
        return self._send("GET", "journal", kind=list[Write])

    def _send(self, method: str, path: str, content: Any = None, kind: Any = None) -> Any:
        body = None if method == "GET" else msgspec.json.encode(content)
        response = requests.request(method, f"{self._url}/{path}", data=body, timeout=60)
        if response.status_code == 422:
            raise ValueError(response.text)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=kind)
