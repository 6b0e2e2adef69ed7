"""The API's protocol as values: a request, an answer, and a refusal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import msgspec

from include.simulators.answers import Answer


class Refused(Exception):
    """A request that isn't carried out: status and reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Call:
    """A request: `path` is that below /f5/api without a slash at its end, `endpoint` the same with `{id}` and
    `{resource}` for the ids in it, which `ids` has by these names."""

    method: str
    path: str
    endpoint: str
    ids: Mapping[str, UUID]
    query: Mapping[str, Sequence[str]]
    body: bytes

    @property
    def name(self) -> str:
        """Method and endpoint, as counters have them."""
        return f"{self.method} {self.endpoint}"

    def form(self) -> dict[str, list[str]]:
        """The fields of a form in the body; none where there is no body. Raises Refused for what is no text."""
        try:
            return parse_qs(self.body.decode())
        except UnicodeDecodeError:
            raise Refused(400, "The body is no form") from None


NOTHING = Answer(204)


def ok(content: Any) -> Answer:
    """A successful answer."""
    return Answer(200, msgspec.json.encode(content))


def error(refused: Refused) -> Answer:
    """The answer to a refused request."""
    return Answer(refused.status, msgspec.json.encode({"exceptionMessage": refused.message}))
