"""The hand on a running simulator: its clock, habits, faults, changes and truth, over its control API."""

from dataclasses import asdict
from decimal import Decimal
from typing import Any

import msgspec
import requests

from include.simulators.square.assortment import Row
from include.simulators.square.changes import Mutation
from include.simulators.square.config import Config
from include.simulators.square.faults import Fault
from include.simulators.square.seller import Counters, Trigger
from include.simulators.square.store import Kind

_encoder = msgspec.json.Encoder(decimal_format="number")


class Control:
    """Orders to the simulator at a URL. An order that makes no sense raises ValueError with the reason."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_control"

    def set(self, **fields: Any) -> Config:
        """Change fields of the seller's Config (not its sizes, seed or `now`) from the next request on."""
        return msgspec.convert(self._send("PATCH", "config", fields), Config)

    def mutate(self, *mutations: Mutation) -> list[str]:
        """Change rows, all at one instant; returns the ids of the rows, in order. A clock that stands still
        moves on by a second before."""
        return self._send("POST", "mutations", [asdict(mutation) for mutation in mutations])

    def on_page(self, endpoint: str, page: int, *mutations: Mutation) -> None:
        """Order mutations for once, as soon as that page of a crawl of the endpoint has been served."""
        self._send("POST", "triggers", asdict(Trigger(endpoint, page, mutations)))

    def fault(self, *faults: Fault) -> None:
        """Order misbehaviour."""
        self._send("POST", "faults", [asdict(fault) for fault in faults])

    def expire_cursors(self) -> None:
        """Make all cursors bad that were given out so far."""
        self._send("DELETE", "cursors")

    def clear(self) -> None:
        """Drop all open faults and orders for after a page."""
        self._send("DELETE", "orders")

    def now(self) -> str:
        """The seller's present instant, as the vendor writes it."""
        return self._send("GET", "clock")

    def advance(self, seconds: float) -> str:
        """Put the seller's clock forward; returns the new present."""
        return self._send("POST", "clock", seconds)

    def counters(self) -> Counters:
        """What was asked so far."""
        return msgspec.convert(self._send("GET", "counters"), Counters)

    def reset_counters(self) -> None:
        """Start counting anew."""
        self._send("DELETE", "counters")

    def totals(self) -> dict[str, int]:
        """Live rows by kind; of the catalog those that are not deleted."""
        return self._send("GET", "totals")

    def ids(self, kind: Kind) -> list[str]:
        """Ids of the live rows of a kind, ascending. A count's is `variation:location:state`."""
        return self._send("GET", f"ids/{kind}")

    def row(self, kind: Kind, row_id: str) -> Row | None:
        """A row as the API shows it, be it a tombstone; None where there is none."""
        return self._send("GET", f"rows/{kind}/{row_id}")

    def _send(self, method: str, path: str, content: Any = None) -> Any:
        body = None if method == "GET" else _encoder.encode(content)
        response = requests.request(method, f"{self._url}/{path}", data=body, timeout=60)
        if response.status_code == 422:
            raise ValueError(response.text)
        response.raise_for_status()
        return msgspec.json.Decoder(float_hook=Decimal).decode(response.content)
