"""What goes wrong in a year: kinds of incidents, four sizes of each."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.year.shop import Drift, List, Shop, poisson

INCIDENTS = 40
# Incidents begin when there is a history, and end before the year does.
EARLIEST, LATEST = 21, 280
# An incident is loud if its first night makes so many rows wrong: both a share of the table and a number.
LOUD_SHARE, LOUD_ROWS = 0.01, 100

Effect = Callable[[List, int, int, float, Random], Drift]


@dataclass(frozen=True)
class Incident:
    """One incident. `effect` tells what each night adds to the drift of its list, from the night `begin` on."""

    kind: str
    size: float
    table: List
    begin: int
    seed: str

    def added(self, night: int) -> Drift:
        chance = Random(f"{self.seed} {self.kind} {self.size} {night}")
        return KINDS[self.kind][1](self.table, night, night - self.begin, self.size, chance)

    @property
    def loud(self) -> bool:
        """Whether a person would call it so, by the rows of its first night."""
        rows = self.added(self.begin).rows
        return rows >= LOUD_ROWS and rows >= LOUD_SHARE * self.table.rows(self.begin)

    def __str__(self) -> str:
        table = f"{self.table.shop.source}.{self.table.name}"
        return f"{self.kind} ({self.size:g}) of {table} from night {self.begin} of {self.seed}"


def _at_once(effect: Callable[[List, int, float], Drift]) -> Effect:
    """What happens in the first night only."""
    return lambda table, night, day, size, chance: effect(table, night, size) if day == 0 else Drift()


def _share(rows: int, share: float) -> int:
    return max(1, round(rows * share))


def _lost_days(table: List, night: int, days: float) -> Drift:
    nights = range(max(0, night - int(days)), night + 1)
    return Drift(missing=max(1, sum(map(table.new, nights))), differing=sum(map(table.changed, nights)))


def _restored(table: List, night: int, days: float) -> Drift:
    lost = _lost_days(table, night, days)
    return Drift(surplus=lost.missing, older=min(lost.differing, table.rows(night)))


def _strangers(table: List, night: int, share: float) -> Drift:
    rows = _share(table.rows(night), share)
    return Drift(surplus=rows, older=rows // 10)


def _hours(table: List, night: int, day: int, hours: float, chance: Random) -> Drift:
    share = hours / 24
    return Drift(
        missing=poisson(chance, table.new(night) * share), differing=poisson(chance, table.changed(night) * share)
    )


def _ties(table: List, night: int, day: int, size: float, chance: Random) -> Drift:
    return Drift(missing=poisson(chance, size * table.shop.days[night].pace))


# By kind: the sizes, and what each night adds. A page is 50 rows.
KINDS: dict[str, tuple[tuple[float, ...], Effect]] = {
    "lost pages": ((1, 2, 5, 20), _at_once(lambda t, n, pages: Drift(missing=round(50 * pages)))),
    "a gap while a token was expired, in days": ((1, 2, 5, 14), _at_once(_lost_days)),
    "a leak of new rows, a night": ((1, 3, 8, 20), lambda t, n, d, size, c: Drift(missing=round(size))),
    "a leak of changes, a night": ((1, 3, 8, 20), lambda t, n, d, size, c: Drift(differing=round(size))),
    "a mass deletion, as a share": (
        (0.002, 0.01, 0.06, 0.3),
        _at_once(lambda t, n, share: Drift(surplus=_share(t.rows(n), share))),
    ),
    "a mass loss in the copy, as a share": (
        (0.002, 0.01, 0.06, 0.3),
        _at_once(lambda t, n, share: Drift(missing=_share(t.rows(n), share))),
    ),
    "a vendor restored from a backup, in days": ((1, 2, 7, 30), _at_once(_restored)),
    "renamed fields": ((1, 2, 3, 6), _at_once(lambda t, n, fields: Drift(fields_lost=round(fields)))),
    "a second shop's data, as a share": ((0.001, 0.01, 0.1, 0.5), _at_once(_strangers)),
    "a sync that skips ties, a night": ((0.5, 2, 6, 15), _ties),
    "a wrong time zone, in hours": ((1, 2, 5, 10), _hours),
    "lost lines, as a share of their records": (
        (0.001, 0.01, 0.1, 0.5),
        _at_once(lambda t, n, share: Drift(lines_missing=_share(t.rows(n), share))),
    ),
    "a leak of lines, a night": ((1, 3, 10, 30), lambda t, n, d, size, c: Drift(lines_differing=round(size))),
}


def plant(shop: Shop, number: int = INCIDENTS, earliest: int = EARLIEST, latest: int = LATEST) -> list[Incident]:
    """So many incidents, of all kinds and sizes in turn, in lists and nights by chance."""
    chance = Random(f"{shop.seed} {shop.source} incidents")
    tables = [table for table in shop.lists if not table.mends_itself]
    pairs = [(kind, size) for kind, (sizes, _) in KINDS.items() for size in sizes]
    chance.shuffle(pairs)
    planted = []
    while len(planted) < number:
        for kind, size in pairs:
            possible = [table for table in tables if _fits(kind, table)]
            if possible and len(planted) < number:
                table, begin = chance.choice(possible), chance.randint(earliest, latest)
                planted.append(Incident(kind, size, table, begin, shop.seed))
    return planted


def _fits(kind: str, table: List) -> bool:
    """Whether that can happen to the list, and a scan of it looks for that kind of drift."""
    if "line" in kind:
        return table.has_lines
    if "field" in kind:
        return table.is_mirror
    return not (table.keeps_history and ("deletion" in kind or "backup" in kind or "second shop" in kind))
