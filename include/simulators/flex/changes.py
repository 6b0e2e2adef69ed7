"""Changes behind the API's back, as people make them in Flex."""

from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from include.simulators.flex.store import Line, Store


@dataclass(frozen=True)
class Mutation:
    """One change by hand to a crew call.

    - `add`: a contact, with `role` if given; `resource` is made where none is given; under `line` if one is named
    - `gear`: a line of gear, with `resource` and `line` as there
    - `exchange`: `resource` in place of the contact that `line` has
    - `delete`: the lines of `resource`, or the one named by `line`
    - `restore`: put the deleted `line` back
    - `role`: give these lines `role`, or none
    """

    op: Literal["add", "gear", "exchange", "delete", "restore", "role"]
    element: UUID
    resource: UUID | None = None
    line: UUID | None = None
    role: UUID | None = None


def apply(store: Store, mutation: Mutation) -> list[UUID]:
    """Carry out a change and return the ids of the lines that it made, changed or deleted.

    Raises KeyError if the element or the named line does not exist, ValueError if no line matches.
    """
    match mutation.op:
        case "add":
            resource = mutation.resource or store.new_id()
            return [store.add(mutation.element, "contact", resource, mutation.role, parent_id=mutation.line).id]
        case "exchange" if mutation.line is not None:
            line = replace(store.line(mutation.line), resource_id=mutation.resource)
            store.put(mutation.element, line)
            return [line.id]
        case "restore" if mutation.line is not None:
            return [store.restore(mutation.line).id]
        case "gear":
            resource = mutation.resource or store.new_id()
            return [store.add(mutation.element, "inventory", resource, parent_id=mutation.line).id]
    meant = _meant(store, mutation)
    for line in meant:
        if mutation.op == "delete":
            store.delete(line.id)
        else:
            store.put(mutation.element, replace(line, role_id=mutation.role))
    return [line.id for line in meant]


def _meant(store: Store, mutation: Mutation) -> list[Line]:
    lines = store.lines(mutation.element)
    if mutation.line is None and mutation.resource is None:
        raise ValueError(f"{mutation.op} needs a line or a resource")
    if mutation.line is None:
        return [line for line in lines if line.resource_id == mutation.resource]
    found = [line for line in lines if line.id == mutation.line]
    if not found:
        raise KeyError(f"element {mutation.element} has no line {mutation.line}")
    return found
