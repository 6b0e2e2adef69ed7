"""The table of figures: on the screen while it grows, as Markdown at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Measured

HEADINGS = ("what", "rows/s", "wall s", "CPU s", "Postgres CPU s", "peak MB", "ratio", "aim", "")


@dataclass(frozen=True)
class Figure:
    """One line of the table. `rows`: rows that were worked on; `ratio`: beside which other line, and how many times as
    long (or as much); `aim`: what is wanted, and whether it was `met`; `remark`: what the figures don't say."""

    what: str
    measured: Measured | None = None
    rows: int | None = None
    ratio: str = ""
    aim: str = ""
    met: bool | None = None
    remark: str = ""

    @property
    def rate(self) -> float:
        """Rows a second of wall time."""
        return self.rows / self.measured.wall

    def cells(self) -> tuple[str, ...]:
        """The cells under HEADINGS; what was not measured is empty."""
        took = self.measured
        figures = (
            (f"{took.wall:.2f}", f"{took.cpu:.2f}", f"{took.postgres_cpu:.2f}", f"{took.memory:.0f}")
            if took
            else ("",) * 4
        )
        rate = f"{self.rate:,.0f}" if took and self.rows else ""
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return (self.what, rate, *figures, self.ratio, f"{self.aim} {verdict}".strip(), self.remark)


@dataclass(frozen=True)
class Section:
    """A part of the table, with what one has to know to read it."""

    title: str
    note: str
    figures: Sequence[Figure]


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
        lines += ["", f"## {section.title}", "", section.note, "", _row(HEADINGS), _row(["---"] * len(HEADINGS))]
        lines += [_row(figure.cells()) for figure in section.figures]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
