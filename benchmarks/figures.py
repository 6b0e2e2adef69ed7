"""The table of figures: several rounds in one, on the screen and as Markdown with plots."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.measure import Measured

NUMBERS = ("rows/s", "requests", "wall s", "min to max", "CPU s", "Postgres CPU s", "peak MB", "writer stands s")
HEADINGS = ("what", *NUMBERS, "ratio", "aim", "remark")


@dataclass(frozen=True)
class Ratio:
    """Values in words. `text`: a format string, such as `{:.1f} x our time`."""

    text: str
    values: tuple[float, ...]

    def __str__(self) -> str:
        return self.text.format(*self.values)


@dataclass(frozen=True)
class Aim:
    """What is wanted of a value, in words (`text`) and as a limit: it is to be `at_most` or `at_least` so much."""

    text: str
    value: float
    at_most: float = float("inf")
    at_least: float = float("-inf")

    @property
    def met(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        return f"{self.text} {'met' if self.met else 'MISSED'}"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    - `rows`: rows that were worked on; `requests`: those that it took
    - `stands`: seconds for which the writer was stopped
    - `ratio`: how it is beside another line; `aim`: what is wanted; `remark`: what the figures don't say
    - `peer`: another road than ours, so that two versions of ours needn't be compared in it
    - `walls`: the shortest and the longest wall time of all rounds, in seconds; None for a single round
    """

    what: str
    measured: Measured | None = None
    rows: int | None = None
    requests: int | None = None
    stands: float | None = None
    ratio: Ratio | None = None
    aim: Aim | None = None
    remark: str = ""
    peer: bool = False
    walls: tuple[float, float] | None = None

    @property
    def rate(self) -> float | None:
        """Rows a second; None if there is nothing to count."""
        return self.rows / self.measured.wall if self.measured and self.rows else None

    def cells(self) -> tuple[str, ...]:
        """The cells under HEADINGS; what was not measured is empty."""
        ratio, aim = ("" if value is None else str(value) for value in (self.ratio, self.aim))
        return (self.what, *self._numbers(), ratio, aim, self.remark)

    def _numbers(self) -> tuple[str, ...]:
        took = self.measured or Measured(None, None, None)
        spread = "{:.2f} to {:.2f}".format(*self.walls) if self.walls else ""
        return (
            _cell(self.rate, ",.0f"),
            _cell(self.requests, ",.0f"),
            _cell(took.wall, ".2f"),
            spread,
            _cell(took.cpu, ".2f"),
            _cell(took.postgres_cpu, ".2f"),
            _cell(took.memory, ".0f"),
            _cell(self.stands, ".2f"),
        )


@dataclass(frozen=True)
class Section:
    """A part of the table, with what one has to know to read it."""

    title: str
    note: str
    figures: Sequence[Figure]

    def grid(self) -> list[tuple[str, ...]]:
        """The headings and the lines under them, without the columns that are empty."""
        lines = [figure.cells() for figure in self.figures]
        columns = zip(HEADINGS, *lines, strict=True)
        return list(zip(*(column for column in columns if any(column[1:])), strict=True))


def merged(rounds: Sequence[Sequence[Section]]) -> list[Section]:
    """Return the sections with the medians of all rounds, which have the same lines in the same order."""
    return [
        replace(sections[-1], figures=[_median(lines) for lines in zip(*(s.figures for s in sections), strict=True)])
        for sections in zip(*rounds, strict=True)
    ]


def _median(lines: Sequence[Figure]) -> Figure:
    """Return a line of several rounds as one: each number is the median of its own."""
    last = lines[-1]
    took = [line.measured for line in lines if line.measured]
    ratios = [line.ratio.values for line in lines if line.ratio]
    aims = [line.aim.value for line in lines if line.aim]
    requests = _middle([line.requests for line in lines])
    return replace(
        last,
        measured=_measured(took) if took else None,
        walls=(min(each.wall for each in took), max(each.wall for each in took)) if len(took) > 1 else None,
        requests=None if requests is None else round(requests),
        stands=_middle([line.stands for line in lines]),
        ratio=replace(last.ratio, values=tuple(map(median, zip(*ratios, strict=True)))) if last.ratio else None,
        aim=replace(last.aim, value=median(aims)) if last.aim else None,
    )


def _measured(took: Sequence[Measured]) -> Measured:
    names = ("wall", "cpu", "postgres_cpu", "memory")
    return replace(took[-1], **{name: _middle([getattr(each, name) for each in took]) for name in names})


def _middle(values: Sequence[float | None]) -> float | None:
    """Return the median, None if a value is not known."""
    return None if None in values else median(values)


def markdown(sections: Sequence[Section], machine: str, rounds: int, minutes: float) -> str:
    """Return the whole report. `minutes`: what all rounds took."""
    lines = [
        "# Results",
        "",
        f"Written by `make bench` on {machine}, in {minutes:.0f} minutes: {rounds} rounds, in each of which everything",
        "is measured once, ours beside its peers. Each number is the median of the rounds; `min to max` is the spread",
        "of the wall time.",
        "",
        "Wall time depends on what else the machine does; the CPU time of the measured process and of all of Postgres",
        "stands beside it. `peak MB` is the resident memory of the measured process above where it stood before the",
        "work, its libraries loaded. `writer stands s` is the time from the stop of the writer until it runs again.",
        "The simulator's own work is in the wall time only.",
    ]
    for section in sections:
        headings, *rows = section.grid()
        lines += ["", f"## {section.title}", "", section.note, ""]
        lines += map(_row, (headings, ["---"] * len(headings), *rows))
        lines += plot(section)
    return "\n".join(lines) + "\n"


def plot(section: Section) -> list[str]:
    """Return a plot of rows a second as Mermaid code, for a section in which a peer was measured; else nothing."""
    bars = [(figure.what.replace('"', ""), figure.rate) for figure in section.figures if figure.rate]
    if len(bars) < 2 or not any(figure.peer and figure.rate for figure in section.figures):
        return []
    names, rates = ", ".join(f'"{name}"' for name, _ in bars), ", ".join(f"{rate:.0f}" for _, rate in bars)
    return [
        "",
        "```mermaid",
        "xychart-beta horizontal",
        f'    title "{section.title}: rows a second, more is better"',
        f"    x-axis [{names}]",
        f"    bar [{rates}]",
        "```",
    ]


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
