"""docs/year.md, from the years that were played."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from tests.year.play import PATIENCE, Told, Year
from tests.year.real import Played
from tests.year.shop import YEAR

WITHIN = 14
MOST_WARNINGS, MOST_HOLDS = 6, 1
# Days for which rows of a table are kept, and what drops the older ones. Other tables keep theirs.
RETENTION = "by `confidence_retention`"
BOUNDS = {
    "confidence.change_log": (400, RETENTION),
    "confidence.field_change": (400, RETENTION),
    "confidence.forensic_run": (400, RETENTION),
    "confidence.integrity_check": (400, RETENTION),
    "confidence.notification": (400, RETENTION),
    "confidence.planned_change": (30, RETENTION),
    "confidence.quarantine": (400, RETENTION),
    "confidence.request_count": (2, "at each count"),
    "confidence.sync_log": (400, RETENTION),
    "confidence.writer_stop": (400, RETENTION),
    "flex.operation": (400, RETENTION),
    "storage.breaker": (30, RETENTION),
    "tekmetric.tm_raw_payloads": (7, RETENTION),
}
# Where a source keeps its sync log and change log for other days.
LOG_DAYS = {"tekmetric": 30}
LOGS = ("confidence.sync_log", "confidence.change_log")
MEGABYTE = 1e6


@dataclass(frozen=True)
class Results:
    """All that the report is made of. `without`: by policy, the years of the first seeds judged without it."""

    seeds: Sequence[str]
    years: Mapping[str, Sequence[Year]]
    without: Mapping[str, Sequence[Year]]
    real: Mapping[str, Played]
    real_nights: int
    seconds: float

    @property
    def told(self) -> list[Told]:
        return [told for years in self.years.values() for year in years for told in year.told]


def failures(results: Results) -> list[str]:
    """A line for each aim that is not met."""
    lines = [f"{told.what} was told {_nights(told)}" for told in results.told if is_late(told)]
    for source, years in results.years.items():
        for year in years:
            if len(year.warned) > MOST_WARNINGS or len(year.held) > MOST_HOLDS:
                lines.append(
                    f"{source}, {year.seed}: {len(year.warned)} warnings and {len(year.held)} holds of nothing"
                )
    return lines + [f"{source}: {line}" for source, played in results.real.items() for line in played.unlike]


def is_late(told: Told) -> bool:
    """Whether it was told too late, or never."""
    return told.nights is None or told.nights > (0 if told.loud else WITHIN)


def page(results: Results) -> str:
    """The whole page."""
    return TEXT.format(
        seeds=f"`{results.seeds[0]}` to `{results.seeds[-1]}`",
        years=len(results.seeds),
        seconds=round(results.seconds),
        aims=_aims(failures(results)),
        sources=_table(
            "source|incidents|loud: told the same night|creeping: told within 14|latest|never told"
            "|false warnings a year: mean, most|false holds|warnings after a mend",
            (_source(source, years) for source, years in results.years.items()),
        ),
        kinds=_table("incident|planted|loud|told after, median|latest|told first by", _kinds(results.told)),
        policies=_table("policy|told first|median nights|late or never told without it", _policies(results)),
        without=len(next(iter(results.without.values()), ())) // max(1, len(results.years)),
        real_nights=results.real_nights,
        check=_check(results.real),
        grows=_table("source|table|rows a night|bytes a night|MB after a year|what bounds it", _grows(results.real)),
        audited="; ".join(f"{source} {played.audited:.0f}" for source, played in results.real.items()),
        patience=PATIENCE,
    )


def _aims(missed: Sequence[str]) -> str:
    if not missed:
        return "All aims were met."
    return f"**{len(missed)} times an aim was missed:**\n\n" + "\n".join(f"- {line}" for line in missed)


def _check(real: Mapping[str, Played]) -> str:
    lines = [f"- {source}: {line}" for source, played in real.items() for line in played.unlike]
    return "\n".join(lines) if lines else f"No difference in {', '.join(real)}."


def _source(source: str, years: Sequence[Year]) -> list[object]:
    told = [each for year in years for each in year.told]
    loud = [each for each in told if each.loud]
    creeping = [each for each in told if not each.loud]
    warned = [len(year.warned) for year in years]
    return [
        source,
        len(told),
        f"{sum(each.nights == 0 for each in loud)} of {len(loud)}",
        f"{sum(not is_late(each) for each in creeping)} of {len(creeping)}",
        max((each.nights for each in told if each.nights is not None), default="-"),
        sum(each.nights is None for each in told),
        f"{mean(warned):.1f}, {max(warned)}",
        max(len(year.held) for year in years),
        sum(each.after for each in told),
    ]


def _kinds(told: Sequence[Told]) -> Iterable[list[object]]:
    kinds: dict[str, list[Told]] = {}
    for each in told:
        kinds.setdefault(each.kind, []).append(each)
    for kind, some in kinds.items():
        first = sorted({policy for each in some for policy in each.policies})
        yield [
            kind,
            len(some),
            sum(each.loud for each in some),
            *_spread(some),
            ", ".join(first),
        ]


def _policies(results: Results) -> Iterable[list[object]]:
    first: dict[str, list[Told]] = {policy: [] for policy in results.without}
    for each in results.told:
        for policy in each.policies:
            first.setdefault(policy, []).append(each)
    for policy, some in first.items():
        years = results.without.get(policy)
        late = sum(is_late(told) for year in years for told in year.told) if years else None
        of = sum(len(year.told) for year in years) if years else 0
        yield [policy, len(some), _spread(some)[0], "-" if late is None else f"{late} of {of}"]


def _grows(real: Mapping[str, Played]) -> Iterable[list[object]]:
    for source, played in real.items():
        for table, (rows, size) in played.grown.items():
            # What the next pull empties does not add up, and the copy follows its source.
            if table.startswith("staging.") or table in played.copy:
                continue
            days, by = BOUNDS.get(table, (YEAR, ""))
            if table in LOGS:
                days = LOG_DAYS.get(source, days)
            bound = f"{days} days, {by}" if by else "**nothing**"
            yield [
                source,
                f"`{table}`",
                f"{rows:.1f}",
                f"{size:.0f}",
                f"{size * min(days, YEAR) / MEGABYTE:.2f}",
                bound,
            ]


def _spread(told: Sequence[Told]) -> tuple[object, object]:
    nights = [each.nights for each in told if each.nights is not None]
    return (f"{median(nights):g}", max(nights)) if nights else ("-", "-")


def _nights(told: Told) -> str:
    return "never" if told.nights is None else f"after {told.nights} nights"


def _table(head: str, rows: Iterable[Sequence[object]]) -> str:
    names = head.split("|")
    lines = [names, ["---"] * len(names), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TEXT = """# A year of nights

What the policies tell, and what they tell without a reason, in a year. `make year` plays it and writes this page;
`make test` plays a few weeks of it. The figures are of {years} years of each source, seeds
{seeds}. Policies and model were calibrated on the seeds `calibrate 0`, `calibrate 1`, ...
All of it took {seconds} s.

{aims}

## What is told, and when

Each year has 40 incidents. Each is played by itself from its night on, with the history that the quiet year has until
then, until it is told. It counts as told by the first warning or hold, or failed scan, of its entity that the quiet
year does not have that night. Night 0 is the one whose scan is the first to see a wrong row. An incident is loud if its
first night makes 1 % of the table wrong, and 100 rows; all others are creeping. One that is not told within {patience}
nights counts as never told. Then it is mended, and the two weeks that follow should be silent: what is told in them is
counted under *warnings after a mend*.

The aims: no incident untold, the loud ones told the same night and the creeping ones within 14; at most one hold and
six warnings a source and year without an incident.

{sources}

{kinds}

## What each policy is good for

An incident that several policies tell in the same night counts for each of them. The last column is of the first
{without} seeds, judged by all policies but that one.

{policies}

## What is a model here

The policies of each entity, the judgement and the history by which it judges are the product's own. The nights come
from a model (`tests/year/shop.py`), which has numbers of rows but no rows. Its assumptions:

- A table begins with 300 to 200,000 rows, by chance, and grows by 0.08 % on an ordinary day; 0.3 % of its rows change.
  A day's pace follows the weekday (Sundays a tenth), the season (30 % to both sides) and a growth of 30 % in the year.
- Two bulk imports, two stock-takings and four moves of prices a year concern a third of the lists each.
- A list that is read by page numbers leaves out 0.01 % of its rows and shows as many twice; a list with a cursor a
  fifth of that. In half of the nights of an event it is ten times as many. These shares are assumed, not measured at a
  vendor, and the false warnings depend on them more than on anything else. In an earlier model events concerned every
  list, and lists showed rows that the copy rightly lacks as often as they left rows out: with it RepairShopr had six to
  nine false warnings a year.
- The vendor leaves 0.1 % of the second looks without an answer, and 30 % in one night of a hundred.
- Whatever is wrong stays wrong until it is mended. In fact a sync that reads whole lists mends it by itself, so
  entities with such lists have no incidents here. Nothing is repaired unattended (`dry_run`, the default).
- Rules inside the copy (`..._violations`) are never broken, so no incident is told by them. Crew calls and images have
  no feed noise.

The model is compared with {real_nights} nights of real syncs, scans and gates of each source against its simulator, in
which the copy drifts in every way that a repair mends: the plan, the figures that the gates read, and every verdict by
the history as the warehouse keeps it.

{check}

## What grows

What one night with one sync adds to the warehouse, measured in the same real nights: rows, and bytes of the rows
without indexes. The accounts are tiny, a sync finds nothing new, and a few rows stay wrong, so that each scan has a
plan. Each further sync of a day adds its row of `sync_log`. Staging tables are emptied by the next pull.

{grows}

A row of `confidence.change_log` has on average, in bytes: {audited}.
There is one for each row that a sync or a repair changes, so it grows with the changes of the shop and not with the
nights. They are kept as long as the sync log: [how long things are kept](operating.md#how-long-things-are-kept).
"""
