"""The figures of the sources in Prometheus' text format."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from include.confidence.glossary import explain
from include.confidence.policy import SEVERITY
from include.confidence.queries.scans import Scan
from include.sources import get_source
from plugins.pages.status import HealthFigures, SourceStatus

PREFIX = "sync_confidence"
SOURCE, TABLE = ["source"], ["source", "table"]

Sample = tuple[Sequence[str], float | None]


class _Families(Collector):
    """A collector of figures that were read before."""

    def __init__(self, families: Iterable[Metric]):
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def exposition(
    statuses: Sequence[SourceStatus],
    health: Mapping[str, HealthFigures | None],
    scans: Mapping[str, Sequence[Scan]],
    unproven: Sequence[tuple[str, str, int, datetime]] = (),
) -> bytes:
    """Return the figures as text. A figure that is not known yet has no line.

    `scans`: the last scans of each source. `unproven`: (source, table, rows that no scan could prove, since when).
    """
    # A new registry: Prometheus' default one has figures of the web server's process.
    registry = CollectorRegistry()
    registry.register(_Families([*_states(statuses), *_health(health), *_scans(scans), *_unproven(unproven)]))
    return generate_latest(registry)


def _states(statuses: Sequence[SourceStatus]) -> Iterator[GaugeMetricFamily]:
    def each(name: str, text: str, value) -> GaugeMetricFamily:
        return _gauge(name, text, SOURCE, [((status.source,), value(status)) for status in statuses])

    yield each("writer_stopped", "1 while the writer is stopped.", lambda s: s.writer.stopped)
    yield each("writer_held", "1 while a hold keeps the writer stopped.", lambda s: s.writer.hold_reason is not None)
    yield each(
        "writer_since_timestamp_seconds",
        "Since when the writer runs, or is stopped.",
        lambda s: s.writer.since.timestamp(),
    )
    yield each("decision_open", "1 while a hold waits for a person's answer.", lambda s: s.airflow.decision is not None)
    yield each(
        "verdict",
        "Of the last judged run: 0 pass, 1 warn, 2 hold.",
        lambda s: None if s.verdict is None else SEVERITY[s.verdict],
    )
    yield each("scan_timestamp_seconds", "When that run scanned.", lambda s: s.scanned_at and s.scanned_at.timestamp())
    yield each(
        "oldest_proof_timestamp_seconds",
        "When the entity was scanned whose newest proof is oldest; missing while one was never proven.",
        lambda s: _when(s.proofs[0].proven_at),
    )
    yield each(
        "put_off", "Entities that were left to a later night since their newest proof.", lambda s: len(s.put_off)
    )
    yield each(
        "sync_success",
        "1 if the last sync succeeded, 0 if it failed; missing while a sync runs.",
        lambda s: None if s.last_sync is None or s.last_sync.state == "running" else s.last_sync.state == "success",
    )
    yield each(
        "sync_timestamp_seconds",
        "When the last sync began.",
        lambda s: s.last_sync and s.last_sync.started_at.timestamp(),
    )
    yield each("findings", "What confidence_watch finds wrong now.", lambda s: len(s.findings))
    yield each(
        "watch_timestamp_seconds",
        "When confidence_watch has last looked.",
        lambda s: s.watched_at and s.watched_at.timestamp(),
    )


def _when(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _health(health: Mapping[str, HealthFigures | None]) -> Iterator[GaugeMetricFamily]:
    known = {source: figures for source, figures in health.items() if figures}
    tables = [(source, table) for source, figures in known.items() for table in figures.tables]

    def each(name: str, text: str, value) -> GaugeMetricFamily:
        return _gauge(name, text, SOURCE, [((source,), value(figures)) for source, figures in known.items()])

    def each_table(name: str, text: str, value) -> GaugeMetricFamily:
        return _gauge(name, text, TABLE, [((source, table.table), value(table)) for source, table in tables])

    yield each("sync_seconds", "What the last successful sync took.", lambda f: f.seconds)
    yield each("requests", "Requests to the source within a day.", lambda f: f.requests)
    yield each("request_errors", "Requests to the source within a day that failed.", lambda f: f.request_errors)
    yield each("alerts", "Figures of the syncs that are above their limits.", lambda f: len(f.alerts))
    yield each_table("freshness_seconds", "How far the table is behind its source.", lambda t: t.freshness_seconds)
    yield each_table("discrepancies", "Rows that the last whole scan planned to change.", lambda t: t.discrepancies)


def _scans(scans: Mapping[str, Sequence[Scan]]) -> Iterator[Metric]:
    labels = ["source", "entity", "scope"]
    last = [((source, scan.entity, scan.scope), scan) for source, found in scans.items() for scan in found]
    yield _gauge("rows", "Rows on both sides in the last scan.", labels, [(names, scan.rows) for names, scan in last])
    yield _gauge(
        "rows_proven", "Rows that the last scan has proven.", labels, [(names, scan.proven) for names, scan in last]
    )
    figures = [((*names, metric), value) for names, scan in last for metric, value in scan.metrics.items()]
    text = "A figure of the last scan. sync_confidence_forensic_metric_info says what each metric means."
    yield _gauge("forensic", text, [*labels, "metric"], figures)
    yield _meanings({(names[0], metric) for (*names, metric), _ in figures})


def _meanings(metrics: Iterable[tuple[str, str]]) -> InfoMetricFamily:
    """Return what each metric of a source means. HELP can't say it, as it is about all of `forensic`."""
    text = "What a metric of a source's scans means."
    family = InfoMetricFamily(f"{PREFIX}_forensic_metric", text, labels=["source", "metric"])
    for source, metric in sorted(metrics):
        meaning = explain(metric, get_source(source).metric_texts)
        if meaning:
            family.add_metric([source, metric], {"meaning": meaning})
    return family


def _unproven(tables: Sequence[tuple[str, str, int, datetime]]) -> Iterator[GaugeMetricFamily]:
    counts = [((source, table), count) for source, table, count, _ in tables]
    since = [((source, table), first_seen.timestamp()) for source, table, _, first_seen in tables]
    yield _gauge("unproven", "Rows that no scan could prove.", TABLE, counts)
    yield _gauge("unproven_since_timestamp_seconds", "Since when the oldest of them waits.", TABLE, since)


def _gauge(name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for values, figure in samples:
        if figure is not None:
            family.add_metric(values, float(figure))
    return family
