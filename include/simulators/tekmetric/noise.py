"""The forms in which the vendor writes one and the same value."""

from decimal import Decimal
from random import Random
from typing import Any

_DUST = 1e-7  # what floating point leaves of a cent


class Noise:
    """Forms by chance, but the same ones for the same thing asked for again."""

    def __init__(self, seed: int, thing: str) -> None:
        self._chance = Random(f"{seed} {thing}").random

    def cents(self, value: int | None) -> Any:
        """An amount as a whole number, a float (at times short of it by a hair) or a text."""
        chance = self._chance()
        if value is None or chance < 0.6:
            return value
        if chance < 0.72:
            return float(value)
        if chance < 0.82:
            return f"{value}.0"
        if chance < 0.9 or value <= 0:
            return str(value)
        return value - _DUST

    def decimal(self, value: Decimal) -> Any:
        """A number of hours or pieces, or a share, as a number or as a text."""
        return value if self._chance() < 0.75 else str(value)

    def share(self, value: Decimal | None) -> Any:
        """A margin; there is none of nothing."""
        return "NaN" if value is None else self.decimal(value)

    def unless(self, probability: float, value: Any) -> Any:
        """The value, or at times null."""
        return None if self._chance() < probability else value

    def named(self, value: dict[str, Any] | str | None) -> Any:
        """A name with its id, or just the name."""
        return value["name"] if isinstance(value, dict) and self._chance() < 0.5 else value
