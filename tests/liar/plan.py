"""What a seed stands for: who lies, how, how often, and in which verbs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.liar.lies import Field
from tests.liar.stage import Vendor
from tests.liar.wire import Asked

VERBS = ("sync", "scan", "repair", "verify")
DOSES = ("for good", "once", "some", "about some")
# The verbs in which the lies of a run are told, by what the night after the syncs does; "" for no night.
TOLD_IN: Mapping[str, Sequence[Sequence[str]]] = {
    "": [("sync",)],
    "scan": [("scan",), ("sync", "scan")],
    "repair": [("scan",), ("scan",), ("sync", "scan"), ("repair",), ("verify",), ("scan", "verify"), VERBS],
}


@dataclass(frozen=True)
class Liar:
    """A kind of lie, the family of requests that is answered with it, and how often.

    `for good`: each request; `once`: each question when it is first asked; `some`: more than half of the requests by
    chance; `about some`: as many of the questions, whenever they are asked.
    """

    kind: str
    family: str
    dose: str

    def strikes(self, random: Random, count: int, meant: Random) -> bool:
        """Whether this request is answered with a lie.

        `random` is the request's own, `meant` that of its question, which was asked `count` times before.
        """
        match self.dose:
            case "once":
                return count == 0
            case "some":
                return random.random() < 0.6
            case "about some":
                return meant.random() < 0.6
        return True

    def __str__(self) -> str:
        return f"{self.kind} ({self.dose}) by {self.family}"


@dataclass(frozen=True)
class Plan:
    """A run: changes at the source and in the copy, syncs, and a night.

    `night`: "scan" or "repair", or "" for none. `synced`: whether a sync comes before it, though no lies are told in
    one. `whole`: whether it is about every entity, or only about those that the liars talk of.
    """

    seed: int
    liars: tuple[Liar, ...] = ()
    verbs: Sequence[str] = VERBS
    changed: bool = True
    synced: bool = True
    night: str = "repair"
    whole: bool = True

    def random(self, *what: object) -> Random:
        """The randomness of one thing in the run, whatever else happens in it."""
        return Random(f"{self.seed} {' '.join(map(str, what))}")

    def __str__(self) -> str:
        night = f"a night that {self.night}s" if self.night else "no night"
        scope = "everything" if self.whole else "a part"
        return f"{' and '.join(map(str, self.liars))}, in {'+'.join(self.verbs)}; {night}; about {scope}"


@dataclass(frozen=True)
class Heard:
    """What honest runs have asked: families by verb, their questions, and the fields that records always have.

    Those are by the name of the records (`Vendor.records`) and of the list inside of them.
    """

    families: Mapping[str, Collection[str]]
    questions: Mapping[str, Sequence[Asked]]
    always: Mapping[str, Mapping[str, Collection[Field]]]

    def elsewhere(self, family: str) -> list[Asked]:
        """The first question of each other family."""
        return [asked[0] for name, asked in sorted(self.questions.items()) if name != family]


def draw(vendor: Vendor, heard: Heard, seed: int) -> Plan:
    """The plan of a seed; the same for what the same honest runs have asked."""
    random = Random(f"{vendor.source} {seed}")
    night = random.choice(["", "scan", "repair", "repair", "repair"])
    verbs = random.choice([each for each in TOLD_IN[night] if any(heard.families[verb] for verb in each)])
    families = sorted({family for verb in verbs for family in heard.families[verb]})

    def liar(family: str) -> Liar:
        return Liar(random.choice(sorted(vendor.kinds(family))), family, random.choice(DOSES))

    first, whole = liar(random.choice(families)), random.random() < 0.3
    liars = [first]
    if random.random() < 0.25:
        apart = [each for each in families if vendor.group(each) != vendor.group(first.family)]
        liars.append(liar(random.choice([first.family, *apart] if whole else [first.family])))
    return Plan(
        seed,
        tuple(liars),
        verbs,
        changed=random.random() < 0.8,
        synced=random.random() < 0.4,
        night=night,
        whole=whole,
    )
