"""Business roles: the ids in the Flex account for the codes of our assignments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec

from include.api.errors import FixConfiguration

Tier = Literal["responsible", "specialist", "technician"]
# In the order in which they are looked for. A code may hold several of them.
MARKS: Mapping[str, Tier] = dict(zip(("-R", "-E", "-T"), get_args(Tier), strict=True))
EXAMPLE = '{"business_roles": {"sound": {"responsible": "<uuid>", "specialist": "<uuid>", "technician": "<uuid>"}}}'


@dataclass(frozen=True)
class Role:
    """The role of a code in a department: its id, or None and one line that says why it is skipped."""

    role_id: UUID | None
    diagnostic: str | None = None


@dataclass(frozen=True)
class Roles:
    """The account's roles by department and tier."""

    ids: Mapping[str, Mapping[Tier, UUID]]

    def role(self, department: str, code: str) -> Role:
        """Return the role of an assignment's code, such as `FOH-R`. A code without a known role is no error."""
        if department not in self.ids:
            return Role(None, f"{department}: business roles skipped, connection 'flex' names none for it")
        tier = tier_of(code)
        if tier is None:
            return Role(None, f"{department}: business role skipped, code {code!r} has none of {', '.join(MARKS)}")
        if tier not in self.ids[department]:
            return Role(None, f"{department}: business role skipped, connection 'flex' names none for a {tier}")
        return Role(self.ids[department][tier])


def roles_of(settings: Mapping[str, Any]) -> Roles:
    """Return the roles in a connection's extra, none if it names none. Raises FixConfiguration."""
    try:
        return Roles(msgspec.convert(settings.get("business_roles", {}), dict[str, dict[Tier, UUID]]))
    except msgspec.ValidationError as error:
        raise FixConfiguration(
            f"connection 'flex' names no usable business roles ({error}): its extra has to be like {EXAMPLE}"
        ) from None


def tier_of(code: str) -> Tier | None:
    """Return the tier whose mark is anywhere in the code, None if there is none."""
    return next((tier for mark, tier in MARKS.items() if mark in code), None)
