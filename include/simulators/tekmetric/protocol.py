"""The API's protocol as values: a request, an answer, and a refusal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from include.simulators.answers import Answer

encoder = msgspec.json.Encoder(decimal_format="number")
_WITHOUT_BODY = frozenset({401, 403, 429})


class Refused(Exception):
    """A request that isn't carried out: status and reason."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Call:
    """A request: `path` is that below /api, `endpoint` the same with `{shop}` and `{id}` for the numbers in `ids`.

    `pairs` is its query as it came, in which a name may come several times.
    """

    method: str
    path: str
    endpoint: str
    ids: Mapping[str, int]
    pairs: Sequence[tuple[str, str]]

    @property
    def query(self) -> Mapping[str, str]:
        """The query by name; of a name that comes several times the last."""
        return dict(self.pairs)

    def all(self, name: str) -> list[str]:
        """All that the query has under a name."""
        return [value for each, value in self.pairs if each == name]

    def number(self, name: str, default: int, least: int = 0) -> int:
        """A whole number from the query. Raises Refused for what is none."""
        text = self.query.get(name, str(default))
        if not text.isdecimal() or int(text) < least:
            raise Refused(400, f"{name} must be a whole number from {least}")
        return int(text)

    def one_of(self, name: str, *allowed: str) -> str:
        """A word from the query, the first of those allowed where there is none. Raises Refused for any other."""
        word = self.query.get(name, allowed[0])
        if word not in allowed:
            raise Refused(400, f"{name} must be one of {', '.join(allowed)}")
        return word

    def text(self, name: str) -> str:
        """A text that the query must have. Raises Refused where it hasn't."""
        if not self.query.get(name):
            raise Refused(400, f"{name} is required")
        return self.query[name]


def ok(content: Any) -> Answer:
    """A successful answer."""
    return Answer(200, encoder.encode(content))


def error(refused: Refused) -> Answer:
    """The answer to a refused request; that to a wrong token says nothing."""
    if refused.status in _WITHOUT_BODY:
        return Answer(refused.status)
    body = {"type": "ERROR", "message": refused.message, "data": None, "details": None}
    return Answer(refused.status, encoder.encode(body))
