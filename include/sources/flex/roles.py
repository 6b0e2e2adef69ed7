"""Business roles: from the codes of our assignments to the ids that the account has for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec

from include.api.errors import FixConfiguration

Tier = Literal["responsible", "specialist", "technician"]
# In the order in which they are looked for: a code may hold several.
MARKS: Mapping[str, Tier] = dict(zip(("-R", "-E", "-T"), get_args(Tier), strict=True))
EXAMPLE = '{"business_roles": {"sound": {"responsible": "<uuid>", "specialist": "<uuid>", "technician": "<uuid>"}}}'


@dataclass(frozen=True)
class Role:
    """What a code means in a department: an id, or None and why it is skipped, one line."""

    role_id: UUID | None
    diagnostic: str | None = None


@dataclass(frozen=True)
class Roles:
    """The account's roles by department and tier."""

    ids: Mapping[str, Mapping[Tier, UUID]]

    def role(self, department: str, code: str) -> Role:
        """The role of an assignment's code (`FOH-R`). One that can't be told is skipped, which is no failure."""
        if department not in self.ids:
            return Role(None, f"{department}: business roles skipped, connection 'flex' names none for it")
        tier = tier_of(code)
        if tier is None:
            return Role(None, f"{department}: business role skipped, code {code!r} has none of {', '.join(MARKS)}")
        if tier not in self.ids[department]:
            return Role(None, f"{department}: business role skipped, connection 'flex' names none for a {tier}")
        return Role(self.ids[department][tier])


def roles_of(settings: Mapping[str, Any]) -> Roles:
    """The roles in a connection's extra; no department has any where it names none. Raises FixConfiguration."""
    try:
        return Roles(msgspec.convert(settings.get("business_roles", {}), dict[str, dict[Tier, UUID]]))
    except msgspec.ValidationError as error:
        raise FixConfiguration(
            f"connection 'flex' names no usable business roles ({error}): its extra has to be like {EXAMPLE}"
        ) from None


def tier_of(code: str) -> Tier | None:
    """The tier that a code holds anywhere in it, None if it holds none."""
    return next((tier for mark, tier in MARKS.items() if mark in code), None)
