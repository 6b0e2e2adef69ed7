"""A shop's year, and what a scan of one entity counts in each of its nights: a model, all of it from a seed.

It has no rows, only their numbers. `tests.year.real` compares its summaries with those of real scans.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from math import exp, pi, sin
from random import Random
from typing import Any

from include.api.paginators import PageNumber, SpringPage
from include.confidence.policy import Limit, RepairShare
from include.confidence.summary import ForensicSummary, Plan
from include.sources import get_source
from include.sources.base import policies
from include.sources.mirror.changes import FullList
from include.sources.mirror.entity import Entity
from include.sources.mirror.second_look import SECOND_LOOKS

YEAR = 365
# Monday to Sunday, as shares of an ordinary day.
WEEK = (1.0, 0.9, 0.9, 1.0, 1.2, 0.6, 0.1)
SMALLEST, LARGEST = 300, 200_000
# Shares of a table's rows, on an ordinary day.
NEW, CHANGED = 0.0008, 0.003
# What happens in a year beside the ordinary. Each kind is about some of the lists, a third by chance.
IMPORT, STOCK_TAKING, PRICES = "bulk import", "stock-taking", "move of prices"
EVENTS = (*[IMPORT] * 2, *[STOCK_TAKING] * 2, *[PRICES] * 4)
CONCERNED = 1 / 3
# Rows that a list shows twice or leaves out, as shares of its rows: its order moves while it is read.
FEED_NOISE = 0.0001
# In that the list shows rows that the copy rightly lacks, leaves out rows, or shows some twice. The first is rare, as a
# new row is young.
SHOWN = (0.1, 1, 1)
# A list with a cursor moves less, and one moves more on a night with jobs of an event.
BY_CURSOR, ON_EVENTS = 0.2, 10
LINES_PER_RECORD = 4
DECLARED_FIELDS = 30
# How often one second look gets no answer, on an ordinary night and in one in which the vendor fails.
UNANSWERED, UNANSWERED_IN_OUTAGE, OUTAGES = 0.001, 0.3, 0.01


@dataclass(frozen=True)
class Drift:
    """Rows of one entity in which the copy is wrong, by kind.

    `older`: rows that differ although the source's version is not newer. `lines_...`: nested rows.
    """

    missing: int = 0
    surplus: int = 0
    differing: int = 0
    older: int = 0
    lines_missing: int = 0
    lines_surplus: int = 0
    lines_differing: int = 0
    fields_lost: int = 0

    def __add__(self, other: "Drift") -> "Drift":
        return Drift(*(mine + more for mine, more in zip(astuple(self), astuple(other), strict=True)))

    @property
    def rows(self) -> int:
        """How many rows are wrong, nested ones included."""
        return sum(astuple(self)) - self.fields_lost


@dataclass(frozen=True)
class Noise:
    """Rows of a list that is wrong for a moment; `missing` and `surplus` are explained by the second look."""

    missing: int = 0
    surplus: int = 0
    repeats: int = 0


@dataclass(frozen=True)
class Day:
    """What happens in a shop on a day: its pace as a share of an ordinary day, and what is out of the ordinary."""

    pace: float
    event: str = ""
    outage: bool = False


class Shop:
    """The days of a year, number 0 to 364, and the lists of a source."""

    def __init__(self, source: str, seed: str, nights: int = YEAR):
        self.source, self.seed, self.nights = source, seed, nights
        chance = Random(f"{seed} {source} days")
        days = range(nights)
        events = dict(zip(chance.sample(days, len(EVENTS)), EVENTS, strict=True))
        outages = {day for day in days if chance.random() < OUTAGES}
        first = chance.randrange(7)
        self.days = [
            Day(
                WEEK[(day + first) % 7] * (1 + 0.3 * sin(2 * pi * day / YEAR)) * (1 + 0.3 * day / YEAR),
                events.get(day, ""),
                day in outages,
            )
            for day in days
        ]

    @cached_property
    def lists(self) -> list["List"]:
        return [List(self, entity) for entity in get_source(self.source).entities]


class List:
    """One entity of a shop. Its size is from a few hundred rows to some hundred thousand, by chance."""

    def __init__(self, shop: Shop, entity: Any):
        self.shop, self.entity = shop, entity
        self.name, self.policies = entity.name, policies(entity)
        chance = self._chance("size")
        self.begin = round(SMALLEST * (LARGEST / SMALLEST) ** chance.random())
        self.is_mirror = isinstance(entity, Entity)
        self.keeps_history = self.is_mirror and entity.history
        self.has_lines = self.is_mirror and bool(entity.parts)
        # A sync reads the whole list, and so mends by itself what it lost.
        self.mends_itself = self.is_mirror and isinstance(entity.changes, FullList)
        numbered = self.is_mirror and isinstance(getattr(entity, "paginator", None), PageNumber | SpringPage)
        self.noise = FEED_NOISE * (1 if numbered else BY_CURSOR)
        self.events = {event for event in set(EVENTS) if self._chance(event).random() < CONCERNED}
        batch = entity.lookup.batch if self.is_mirror else LARGEST
        self.looks = SECOND_LOOKS * batch

    def _chance(self, about: object) -> Random:
        return Random(f"{self.shop.seed} {self.shop.source} {self.name} {about}")

    @cached_property
    def _new(self) -> list[int]:
        counts = []
        for number, day in enumerate(self.shop.days):
            bulk = self.begin // 20 if day.event == IMPORT and self.is_concerned(number) else 0
            counts.append(bulk + poisson(self._chance(f"new {number}"), self.begin * NEW * day.pace))
        return counts

    @cached_property
    def _rows(self) -> list[int]:
        rows, total = [], self.begin
        for new in self._new:
            total += new
            rows.append(total)
        return rows

    def rows(self, night: int) -> int:
        """How many rows the source has that night."""
        return self._rows[night]

    def is_concerned(self, night: int) -> bool:
        """Whether something out of the ordinary happens to the list that day."""
        return self.shop.days[night].event in self.events

    def new(self, night: int) -> int:
        """How many rows are new since the night before."""
        return self._new[night]

    def changed(self, night: int) -> int:
        """How many rows have changed since the night before."""
        many = self.is_concerned(night) and self.shop.days[night].event != IMPORT
        share = 0.5 if many else CHANGED * self.shop.days[night].pace
        return poisson(self._chance(f"changed {night}"), self.begin * share)

    def scan(self, night: int, drift: Drift = Drift(), since: int | None = None) -> ForensicSummary:
        """What the scan of that night counts if the copy has drifted so. `since`: the night in which that began."""
        chance, day, rows = self._chance(f"noise {night}"), self.shop.days[night], self.rows(night)
        # Half of an event's nightly jobs run into the scan.
        busy = ON_EVENTS if chance.random() < 0.5 and self.is_concerned(night) else 1
        missing, surplus, repeats = (
            poisson(chance, rows * share * self.noise * busy * exp(chance.gauss(0, 0.7))) for share in SHOWN
        )
        noise = Noise(missing, surplus, repeats)
        asked = missing + surplus + drift.surplus + drift.older
        lost = poisson(chance, min(asked, self.looks) * (UNANSWERED_IN_OUTAGE if day.outage else UNANSWERED))
        beyond = max(0, asked - self.looks)
        metrics = {gate: 0 for policy in self.policies for gate in _names(policy)}
        metrics |= self.figures(rows, drift, noise, beyond)
        metrics["unproven_overdue"] = beyond if since is not None and night > since else 0
        if drift.fields_lost or "declared_fields" in metrics:
            metrics |= {"declared_fields": DECLARED_FIELDS, "declared_fields_vanished": drift.fields_lost}
        deleted = drift.surplus + drift.lines_surplus
        updated = drift.differing + drift.older + drift.lines_differing
        plan = Plan(drift.missing + drift.lines_missing, updated, max(0, deleted - beyond))
        if self.shop.source == "storage":
            plan = Plan(0, drift.rows, 0)
        not_proven = beyond + lost
        incomplete = f"{not_proven} rows not proven" if self.entity.unproven.too_many(not_proven, rows) else ""
        return ForensicSummary(
            source=self.shop.source,
            entity=self.name,
            scope="all",
            scan_id=f"{self.name} {night}",
            run=f"night {night}",
            epoch=night + 1,
            metrics=metrics,
            telemetry={},
            plan=plan,
            live_rows=max(0, self._live(rows, drift) - not_proven),
            examples={"declared_fields_vanished_examples": [f"field {number}" for number in range(drift.fields_lost)]},
            incomplete=incomplete,
        )

    def figures(
        self,
        rows: int,
        drift: Drift,
        noise: Noise = Noise(),
        beyond: int = 0,
    ) -> Mapping[str, int | None]:
        """The figures of drift. `beyond`: suspects that the second look could not ask for."""
        return _FIGURES.get(self.shop.source, _mirror)(self, rows, drift, noise, beyond)

    def _live(self, rows: int, drift: Drift) -> int:
        lines = rows * LINES_PER_RECORD if self.has_lines else 0
        return rows + lines - drift.missing - drift.lines_missing + drift.surplus + drift.lines_surplus


def _names(policy: Any) -> list[str]:
    """The figures that a policy reads."""
    if isinstance(policy, RepairShare) or not hasattr(policy, "metric"):
        return []
    return [policy.metric, policy.of] if isinstance(policy, Limit) or hasattr(policy, "of") else [policy.metric]


def _mirror(table: List, rows: int, drift: Drift, noise: Noise, beyond: int) -> Mapping[str, int | None]:
    figures: dict[str, int | None] = {
        "api_duplicate_rows": noise.repeats,
        "api_unique_not_in_db": drift.missing + noise.missing,
        "confirmed_missing": drift.missing,
        "db_not_in_api_unique": None if table.entity.history else drift.surplus + noise.surplus,
        "confirmed_deleted": None if table.entity.history else max(0, drift.surplus - beyond),
        "rows_differing": drift.differing + drift.older,
    }
    if table.has_lines:
        name = table.entity.parts[0].table.name
        figures |= {
            "nested_rows_drifted": drift.lines_missing + drift.lines_surplus + drift.lines_differing,
            f"{name}_missing": drift.lines_missing,
            f"{name}_surplus": drift.lines_surplus,
            f"{name}_differing": drift.lines_differing,
        }
    return figures


def _storage(table: List, rows: int, drift: Drift, noise: Noise, beyond: int) -> Mapping[str, int]:
    missing = drift.missing + drift.surplus
    return {
        "missing_original": missing,
        "missing_staged": drift.differing + drift.older,
        "looked_at": rows,
        "looked_at_lately": rows,
        "missing_lately": drift.rows,
    }


def _flex(table: List, rows: int, drift: Drift, noise: Noise, beyond: int) -> Mapping[str, int]:
    return {
        "missing_in_flex": drift.missing,
        "undesired_owned": drift.surplus,
        "role_mismatch": drift.differing + drift.older,
    }


_FIGURES: Mapping[str, Callable[..., Mapping[str, int | None]]] = {"storage": _storage, "flex": _flex}


def poisson(chance: Random, mean: float) -> int:
    """A number of events, of which `mean` are to be expected."""
    if mean > 30:
        return max(0, round(chance.gauss(mean, mean**0.5)))
    limit, product, count = exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        count += 1
    return count
