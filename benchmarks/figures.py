"""The table of figures: on the screen while it grows, as Markdown at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Measured

NUMBERS = ("rows/s", "requests", "wall s", "CPU s", "Postgres CPU s", "peak MB")
HEADINGS = ("what", *NUMBERS, "ratio", "aim", "remark")


@dataclass(frozen=True)
class Figure:
    """One line of the table. `rows`: rows that were worked on; `requests`: those that it took; `ratio`: beside which
    other line, and how many times as long (or as much); `aim`: what is wanted, and whether it was `met`; `remark`: what
    the figures don't say."""

    what: str
    measured: Measured | None = None
    rows: int | None = None
    requests: int | None = None
    ratio: str = ""
    aim: str = ""
    met: bool | None = None
    remark: str = ""

    def cells(self) -> tuple[str, ...]:
        """The cells under HEADINGS; what was not measured is empty."""
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return (self.what, *self._numbers(), self.ratio, f"{self.aim} {verdict}".strip(), self.remark)

    def _numbers(self) -> tuple[str, ...]:
        took = self.measured
        if took is None:
            return ("",) * len(NUMBERS)
        rate = f"{self.rows / took.wall:,.0f}" if self.rows else ""
        seconds = ("" if value is None else f"{value:.2f}" for value in (took.wall, took.cpu, took.postgres_cpu))
        requests = "" if self.requests is None else f"{self.requests:,}"
        return (rate, requests, *seconds, "" if took.memory is None else f"{took.memory:.0f}")


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


def markdown(sections: Sequence[Section], machine: str) -> str:
    """The whole report."""
    lines = [
        "# Results",
        "",
        f"Written by `make bench` on {machine}.",
        "",
        "Wall time depends on what else the machine does; the CPU time of the measured process and of all of Postgres",
        "stands beside it. `peak MB` is the resident memory of the measured process above where it stood before the",
        "work, its libraries loaded. The simulator's own work is in the wall time only.",
    ]
    for section in sections:
        headings, *rows = section.grid()
        lines += ["", f"## {section.title}", "", section.note, ""]
        lines += map(_row, (headings, ["---"] * len(headings), *rows))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
