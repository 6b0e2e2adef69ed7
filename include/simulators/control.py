"""The hand on a running simulator, over its control API: habits, faults and counters, which all of them have."""

from dataclasses import asdict
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import requests

from include.simulators.account import Counters
from include.simulators.rules import Rule

encoder = msgspec.json.Encoder(decimal_format="number")


def decoded(body: bytes, kind: Any = Any) -> Any:
    """JSON as what it is meant for; numbers with places are Decimal unless that says otherwise. Raises ValueError."""
    return msgspec.json.Decoder(kind, float_hook=Decimal).decode(body)


class Control:
    """Commands to the simulator at a URL. A wrong command raises ValueError with the reason.

    `config` and `counting` are the simulator's dataclasses of habits and of counters.
    """

    config: ClassVar[type]
    counting: ClassVar[type[Counters]] = Counters

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_control"
        self._session = requests.Session()
        # It is on this machine: no proxy, no password of another's.
        self._session.trust_env = False

    def set(self, **fields: Any) -> Any:
        """Change fields of the Config from the next request on, but for those that are fixed; returns it."""
        return self._send("PATCH", "config", fields, self.config)

    def fault(self, *faults: Rule) -> None:
        """Order misbehaviour."""
        self._send("POST", "faults", [asdict(fault) for fault in faults])

    def clear(self) -> None:
        """Drop all that is open of what was ordered."""
        self._send("DELETE", "orders")

    def counters(self) -> Any:
        """What was asked so far."""
        return self._send("GET", "counters", kind=self.counting)

    def reset_counters(self) -> None:
        """Start counting anew."""
        self._send("DELETE", "counters")

    def _send(self, method: str, path: str, content: Any = None, kind: Any = Any) -> Any:
        body = None if method == "GET" else encoder.encode(content)
        response = self._session.request(method, f"{self._url}/{path}", data=body, timeout=60)
        if response.status_code == 422:
            raise ValueError(response.text)
        response.raise_for_status()
        return decoded(response.content, kind)


class TimedControl(Control):
    """Of a simulator with a clock of its own."""

    def now(self) -> str:
        """The present instant there, as the vendor writes it."""
        return self._send("GET", "clock")

    def advance(self, seconds: float) -> str:
        """Put the clock forward; returns the new present."""
        return self._send("POST", "clock", seconds)
