"""The control's HTTP side: what `control.Control` sends, carried out on the account."""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.account import Account, Counters
from include.simulators.control import decoded, encoder
from include.simulators.rules import Rule

_LOOPBACK = ("127.0.0.1", "::1")
_PREFIX = "/_control/"

Path = dict[str, Any]  # the path's parameters
Carry = Callable[[Path, bytes], Any]


class ControlApi:
    """One method for each control request, with the path's parameters and the body.

    `fault_kind`: the faults that can be ordered. Each simulator adds its own requests for clocks, rows and the like.
    """

    fault_kind: ClassVar[type[Rule]]

    def __init__(self, account: Account) -> None:
        self._account = account

    def routes(self) -> list[tuple[str, str, Carry]]:
        """Method and path below /_control of each."""
        return [
            ("GET", "health", self.health),
            ("PATCH", "config", self.configure),
            ("POST", "faults", self.fault),
            ("DELETE", "orders", self.clear),
            ("GET", "counters", self.counters),
            ("DELETE", "counters", self.reset_counters),
        ]

    def health(self, path: Path, body: bytes) -> dict[str, str]:
        return {"status": "ok"}

    def configure(self, path: Path, body: bytes) -> Any:
        self._account.change(decoded(body, dict))
        return self._account.config

    def fault(self, path: Path, body: bytes) -> None:
        for fault in decoded(body, list[self.fault_kind]):
            self._account.faults.add(fault)

    def clear(self, path: Path, body: bytes) -> None:
        self._account.clear_rules()

    def counters(self, path: Path, body: bytes) -> Counters:
        return self._account.counters()

    def reset_counters(self, path: Path, body: bytes) -> None:
        self._account.reset_counters()


class TimedControlApi(ControlApi):
    """Of an account with a clock."""

    def routes(self) -> list[tuple[str, str, Carry]]:
        return [*super().routes(), ("GET", "clock", self.now), ("POST", "clock", self.advance)]

    def now(self, path: Path, body: bytes) -> str:
        return self._account.clock.text()

    def advance(self, path: Path, body: bytes) -> str:
        self._account.clock.advance(decoded(body, float))
        return self._account.clock.text()


def beside(vendor: ASGIApp, control: ControlApi) -> ASGIApp:
    """The vendor's API, with the control under a path that the vendor does not have.

    A wrong command is answered 422 with the reason in plain text.
    """
    commands = Starlette(
        routes=[Route(_PREFIX + path, _endpoint(carry), methods=[method]) for method, path, carry in control.routes()]
    )

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await (commands if scope["path"].startswith(_PREFIX) else vendor)(scope, receive, send)

    return application


def _endpoint(carry: Carry) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.client is None or request.client.host not in _LOOPBACK:
            return Response("The control answers to its own machine only.", 403)
        try:
            result = carry(request.path_params, await request.body())
        except (KeyError, ValueError) as refused:  # what doesn't fit the types is a ValueError too
            return Response(str(refused.args[0]), 422)
        return Response(encoder.encode(result), media_type="application/json")

    return endpoint
