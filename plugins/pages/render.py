"""Templates, and the filters that format figures and times for them. All values are escaped."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from math import floor, inf
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from include.confidence.glossary import explain
from include.confidence.holds import NOBODY
from include.confidence.policy import SEVERITY, Gate, Verdict
from include.confidence.queries.nights import Night
from include.confidence.queries.scans import Scan
from include.confidence.queries.syncs import SyncRow
from include.confidence.queries.trends import Series, TotalDrift
from include.confidence.question import OPTIONS
from include.confidence.sides import Sides
from include.sources import get_source
from plugins.deciders import needed
from plugins.pages.history import row_query
from plugins.pages.plan import values

FOLDER = Path(__file__).parent
# The plot library comes from its Python package, so browsers load nothing from another host.
PLOTLY = Path(find_spec("plotly").submodule_search_locations[0]) / "package_data" / "plotly.min.js"
STATIC = {path.name: path for path in [*sorted((FOLDER / "static").iterdir()), PLOTLY]}
# Scripts are our files and nothing else. Styles may be inline: the plots need that.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NONE = "\N{EN DASH}"
# Ids that Airflow makes: `manual__2026-03-08T03:00:00.123456+00:00`.
MADE_ID = re.compile(r"(\w+?)__(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)")
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def page(request: Request, template: str, *, code: int = 200, **values: Any) -> HTMLResponse:
    """Render a template. It also gets `home` (where the pages are mounted), `airflow` (where the UI is) and `now`."""
    home = request.scope.get("root_path", "").rstrip("/")
    places = {"home": home, "airflow": home.rpartition("/")[0], "now": datetime.now(UTC)}
    defaults = {"here": None, "sources": (), "decider": False}
    return HTMLResponse(TEMPLATES.get_template(template).render(defaults | places | values), code, HEADERS)


def clock(at: datetime, precision: str = "seconds") -> str:
    """Format a time in UTC, to the second or to another `timespec` of `isoformat`."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(' ', precision)} UTC"


def iso(at: datetime) -> str:
    """Format a time in UTC for machines."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


@lru_cache(maxsize=4096)
def moment(at: datetime | None) -> str:
    """Return an element with a time in UTC. The plots of a page have the same times, each many times."""
    return Markup('<time datetime="{}">{}</time>').format(iso(at), clock(at)) if at else NONE


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago a time was, such as "2 h 5 min ago"."""
    return f"{span(max(now - at, timedelta(0)))} ago"


def span(time: float | timedelta | None) -> str:
    """Format a duration (seconds, if a number) by its two largest units, such as "2 h 5 min"."""
    if time is None:
        return NONE
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    left = round(seconds)
    if left < 1:
        return "under 1 s"
    parts = []
    for unit, size in UNITS:
        parts.append((left // size, unit))
        left %= size
    first = next(place for place, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def minutes(time: float | None) -> str:
    """Format a duration in seconds, rounded to minutes if it is longer than one."""
    return span(time if time is None or time < 60 else 60 * round(time / 60))


def roughly(time: float | None) -> str:
    """Format a measured duration in seconds by a round number: of 5 minutes from 10 on, of 30 from 2 hours on."""
    step = next(step for most, step in ((600, 60), (7200, 300), (inf, 1800)) if (time or 0) < most)
    return span(time if time is None or time < 60 else step * round(time / step))


def meaning(metric: str, source: str | None) -> str:
    """Return what a metric of a source's scans means, in a sentence; empty if nothing is known."""
    return explain(metric, get_source(source).metric_texts) if source else ""


def sides(source: str) -> Sides:
    """Return what people call the two sides of a source."""
    return get_source(source).sides


def is_fine(scan: Scan) -> bool:
    """Return whether a scan has passed, is evidence, and has planned nothing."""
    return scan.verdict == Verdict.PASS and not scan.incomplete and not scan.plan.rows


def nights_said(nights: Sequence[Night]) -> str:
    """Return in words how many nights ended how."""
    counts = Counter(night.kind for night in nights)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def newest(scans: Sequence[Scan], entity: str) -> Scan | None:
    """Return the newest of these scans that is of the entity, of whatever scope; None if there is none."""
    return max((scan for scan in scans if scan.entity == entity), key=lambda scan: scan.scanned_at, default=None)


def worst_first(gates: Sequence[Gate]) -> list[Gate]:
    """Return the gates in the order in which a question names their figures."""
    return sorted(gates, key=lambda gate: SEVERITY[gate.verdict], reverse=True)


def number(figure: float | None) -> str:
    """Format a number with thousands separators, and with decimals only if it has a fraction."""
    if figure is None:
        return NONE
    return f"{figure:,.0f}" if figure == int(figure) else f"{figure:,.2f}"


def percent(share: float) -> str:
    """Format a share, rounded down: what is not the whole must not look like it."""
    return f"{floor(share * 1000) / 10:.1f} %"


def said(value: Any) -> str:
    """Format a JSON value of the warehouse in one line: an object as "name value, ...", a list as "a / b"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(part)}" for name, part in value.items())
    if isinstance(value, list):
        return " / ".join(map(said, value))
    return value if isinstance(value, str) else json.dumps(value)


def quoted(text: str) -> str:
    """Quote a text for a part of a path or query."""
    return quote(text, safe="")


def dag_id(run: str) -> str:
    """Return the first part of a run's name `dag_id/run_id`."""
    return run.partition("/")[0]


def run_id(run: str) -> str:
    """Return the second part of a run's name `dag_id/run_id`."""
    return run.partition("/")[2] or run


def run_short(run: str) -> str:
    """Return type, day and time of an id that Airflow made; any other id as it is."""
    made = MADE_ID.match(run_id(run))
    return " ".join(made.groups()) if made else run_id(run)


def run_ui(run: str | None) -> str:
    """Return the path of the run in Airflow's UI."""
    return f"/dags/{quoted(dag_id(run or ''))}/runs/{quoted(run_id(run or ''))}"


def changed_rows(row: SyncRow) -> bool:
    """Return whether the sync has changed rows, or may have: a failed one has no counts."""
    return row.state == "failed" or any((row.counts.inserted, row.counts.updated, row.counts.deleted))


def option(decision: str) -> str:
    """Return the option of the question that stands for a decision about a hold."""
    return next(words for words, of in OPTIONS.items() if of == decision)


def undoable(row: SyncRow) -> bool:
    """Return whether the sync can be rolled back. A failed one can: it may have committed some of its rows."""
    return row.state != "running" and row.undone_by is None


def judged(series: Series) -> bool:
    """Return whether a gate has judged the metric, or would."""
    return any(point.verdict or point.limit is not None for point in series.points)


def plot_time(at: datetime) -> str:
    """Format a time in UTC as the plot library needs it, without a zone."""
    return iso(at).removesuffix("Z")


def points(series: Series) -> list[dict[str, Any]]:
    """Return the points of a series for its plot."""
    return [
        {
            "at": plot_time(point.scanned_at),
            "value": point.value,
            "baseline": point.baseline,
            "limit": point.limit,
            "verdict": point.verdict,
            "accepted": point.accepted,
        }
        for point in series.points
    ]


def spoken(series: Series) -> str:
    """Return a text in place of a plot, for those who can't see it."""
    last = series.points[-1]
    scans = f"{series.scans} scan{'' if series.scans == 1 else 's'}"
    return (
        f"Plot of {series.metric} over {scans}. Last, {clock(last.scanned_at)}: {number(last.value)}, baseline"
        f" {number(last.baseline)}, limit {number(last.limit)}, {last.verdict or 'not judged'}."
        " The table below has all."
    )


def drift_points(drift: TotalDrift) -> list[dict[str, Any]]:
    """Return the points of the total drift for its plot."""
    names = ("insert", "update", "delete", "unproven")
    return [
        {"at": plot_time(point.scanned_at)} | {name: getattr(point, name) for name in names} for point in drift.points
    ]


def drift_spoken(drift: TotalDrift) -> str:
    """Return a text in place of the plot of the total drift, for those who can't see it."""
    last = drift.points[-1]
    runs = f"{drift.runs} run{'' if drift.runs == 1 else 's'}"
    return (
        f"Plot of the total drift over {runs}. Last, {clock(last.scanned_at)}:"
        f" {number(last.insert)} to insert, {number(last.update)} to update, {number(last.delete)} to delete,"
        f" {number(last.unproven)} not proven. The table below has all."
    )


def _environment() -> Environment:
    loader = FileSystemLoader(FOLDER / "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    words = (ago, clock, dag_id, iso, judged, number, points, quoted, run_id, run_short, run_ui, said, span, spoken)
    words = (*words, changed_rows, drift_points, drift_spoken, meaning, minutes, nights_said, percent)
    words = (*words, moment, newest, option, roughly, sides, undoable, values, worst_first)
    made.filters |= {word.__name__: word for word in words}
    made.tests["fine"] = is_fine
    # If a file changes, its address does too; so browsers may keep files.
    files = b"".join(path.read_bytes() for path in STATIC.values() if path is not PLOTLY)
    made.globals |= {"version": f"{crc32(files):x}", "plotly": version("plotly")}
    made.globals |= {"needed": needed, "nobody": NOBODY, "row_query": row_query}
    return made


TEMPLATES = _environment()
