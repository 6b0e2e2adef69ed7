"""Which entities a night scans if the writer may stand for a limited time only. Pure functions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf


@dataclass(frozen=True)
class Proof:
    """The newest proof of an entity: a scan of the usual scope that is evidence and was judged.

    - `proven_at`: when it was scanned; None if it never was
    - `seconds`: the longest of its last scans; None if that is not known
    """

    entity: str
    proven_at: datetime | None
    seconds: float | None = None


@dataclass(frozen=True)
class Choice:
    """What to do with the entities in one night.

    - `first`: to be scanned to the end, however long it takes
    - `fitting`: to be scanned as long as the time suffices
    - `put_off`: by entity, why it is left to a later night
    """

    first: tuple[str, ...]
    fitting: tuple[str, ...]
    put_off: Mapping[str, str]


def oldest_first(proofs: Sequence[Proof]) -> list[Proof]:
    """Return the proofs, the oldest first; those of entities that were never proven come before all others."""
    return sorted(proofs, key=lambda proof: proof.proven_at.timestamp() if proof.proven_at else -inf)


def choose(proofs: Sequence[Proof], refers_to: Mapping[str, Collection[str]], seconds: float) -> Choice:
    """Choose the entities for a night in which the scans may take so many seconds, the oldest proof first.

    `refers_to`: by entity, those to which its rows refer. An entity is scanned with all of them or not at all, since
    a repair of it alone could leave rows without the ones they belong to. The entity with the oldest proof, with
    those, is scanned in any case; so each of n entities has its turn within n nights.

    The durations of the last scans are added up, as if the scans came one after the other. An entity whose duration
    is not known counts as fitting: the clock tells.
    """
    places = {proof.entity: place for place, proof in enumerate(proofs)}
    known = {proof.entity: proof for proof in proofs}
    chosen: list[str] = []
    first: tuple[str, ...] = ()
    put_off: dict[str, str] = {}
    left = seconds
    for proof in oldest_first(proofs):
        group = sorted({proof.entity, *_referred(proof.entity, refers_to)} - set(chosen), key=places.__getitem__)
        needed = sum(known[entity].seconds or 0 for entity in group)
        if not chosen:
            first = tuple(group)
        elif needed > left:
            put_off[proof.entity] = _does_not_fit(proof.entity, group, needed, left)
            continue
        chosen += group
        left -= needed
    put_off = {entity: why for entity, why in put_off.items() if entity not in chosen}
    return Choice(first, tuple(entity for entity in chosen if entity not in first), put_off)


def waiting(entities: Collection[str], refers_to: Mapping[str, Collection[str]], put_off: Collection[str]) -> list[str]:
    """Return those of the entities that refer to one which was put off, directly or not."""
    return [entity for entity in entities if entity not in put_off and _referred(entity, refers_to) & set(put_off)]


def _referred(entity: str, refers_to: Mapping[str, Collection[str]]) -> set[str]:
    """Return all entities to which the entity refers, directly or through others."""
    found: set[str] = set()
    ahead = list(refers_to[entity])
    while ahead:
        other = ahead.pop()
        if other not in found:
            found.add(other)
            ahead += refers_to[other]
    return found - {entity}


def _does_not_fit(entity: str, group: Sequence[str], needed: float, left: float) -> str:
    others = [each for each in group if each != entity]
    of_others = f" and those of {', '.join(others)}, to which it refers," if others else ""
    return (
        f"its last scans{of_others} took up to {_minutes(needed)} min, and {_minutes(max(0, left))} min of the time"
        " for which the writer may stand are left for it"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}".removesuffix(".0")
