"""Rules for a simulator, such as faults, that apply to certain requests; and the rules still open."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Applies to matching requests from the `nth` on, `times` times (None: until cleared)."""

    nth: int = 1
    times: int | None = 1

    def matches(self, *request: Any) -> bool:
        """Whether it is meant for such a request, as the simulator describes one."""
        raise NotImplementedError


AnyRule = TypeVar("AnyRule", bound=Rule)


@dataclass
class _Open(Generic[AnyRule]):
    rule: AnyRule
    seen: int = 0
    struck: int = 0

    def due(self) -> bool:
        left = self.rule.times is None or self.struck < self.rule.times
        return left and self.seen >= self.rule.nth


class OpenRules(Generic[AnyRule]):
    """The rules that are not used up, the oldest first."""

    def __init__(self) -> None:
        self._open: list[_Open[AnyRule]] = []

    def add(self, rule: AnyRule) -> None:
        self._open.append(_Open(rule))

    def clear(self) -> None:
        self._open.clear()

    def strike(self, *request: Any) -> Iterator[AnyRule]:
        """Yield the rules that apply to this request. A rule not taken from the iterator waits for the next request."""
        matching = [each for each in self._open if each.rule.matches(*request)]
        for each in matching:
            each.seen += 1
        for each in filter(_Open.due, matching):
            each.struck += 1
            yield each.rule
