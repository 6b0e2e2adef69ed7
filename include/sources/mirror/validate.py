"""Validation: is the copy sound in itself, whole, and what the source shows? It writes nothing but its findings.

Three kinds of checks: the source's invariants; for each table the count of its rows against the whole list, key by key;
and for each entity a sample of rows, field by field, against what the source answers for just these.

It costs the requests of a nightly scan (a request a page of every list) and one for each row of the samples. A list is
read whole since no source tells a total that proves anything; partition by partition where the entity has them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import Connection, sql

from include.api.errors import TryLater
from include.api.paginators import Page
from include.confidence import integrity
from include.confidence.integrity import Finding, Severity
from include.confidence.policy import Trend
from include.confidence.summary import MAX_EXAMPLES
from include.sources.base import IntegrityFailed, ScanRefused
from include.sources.mirror.entity import Context, Entity, Forensics, Invariant
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up
from include.sources.mirror.read import read_whole
from include.sources.mirror.scan import find_possibly_alive, plan_suspects
from include.sources.mirror.second_look import second_look
from include.warehouse import compare, sync_log
from include.warehouse.staging import Stage
from include.warehouse.table import identifiers

log = logging.getLogger(__name__)

# Rows of each entity that are compared field by field.
SAMPLE = 20


@dataclass(frozen=True)
class Violations:
    """The invariants of an entity as figures of its scans."""

    invariants: tuple[Invariant, ...]
    others: Forensics | None = None

    def __call__(self, conn: Connection, plan: sql.Identifier) -> Mapping[str, int]:
        found = self.others(conn, plan) if self.others else {}
        return {**found, **{each.metric: _broken(conn, each).actual for each in self.invariants}}


def guarded(entity: Entity, invariants: Sequence[Invariant]) -> Entity:
    """The entity with those of the invariants that are its own among its scans' figures; the errors are gates too."""
    own = tuple(each for each in invariants if each.entity == entity.name)
    gates = tuple(Trend(each.metric) for each in own if each.severity is Severity.ERROR)
    return replace(entity, forensics=Violations(own, entity.forensics), gates=entity.gates + gates) if own else entity


def validate(context: Context) -> list[Finding]:
    """Make every check and keep the findings in confidence.integrity_check.

    Raises IntegrityFailed if one of severity error failed, and ScanRefused where the copy was never filled.
    """
    source, conn = context.source, context.conn
    _require_synced(context)
    findings = [_broken(conn, each) for each in source.checks]
    for entity in source.entities:
        findings += _counts(context, entity)
        findings.append(_sampled(context, entity))
    integrity.record(conn, source.name, context.run, findings)
    for finding in findings:
        log.log(logging.WARNING if finding.failed else logging.INFO, "%s %s", finding.severity, finding)
    errors = [finding for finding in findings if finding.failed and finding.severity is Severity.ERROR]
    if errors:
        raise IntegrityFailed(
            f"{len(errors)} of {len(findings)} checks of {source.name} failed: {'; '.join(map(str, errors))}."
            f" All are in confidence.integrity_check (run {context.run}). Run {source.name}_sync once more and validate"
            f" again; what stays is for {source.name}_reconcile"
        )
    return findings


def _require_synced(context: Context) -> None:
    name, conn = context.source.name, context.conn
    never = [e.name for e in context.source.entities if sync_log.oldest_watermark(conn, name, e.name) is None]
    if never:
        raise ScanRefused(
            f"never synced, so there is nothing to validate yet: {', '.join(never)} of {name}. Run {name}_sync first"
        )


def _broken(conn: Connection, invariant: Invariant) -> Finding:
    rows = conn.execute(
        sql.SQL("SELECT count(*) OVER (), q.* FROM ({}) q ORDER BY q LIMIT {}").format(
            invariant.query, sql.Literal(MAX_EXAMPLES)
        )
    ).fetchall()
    count = rows[0][0] if rows else 0
    return Finding(invariant.name, invariant.severity, 0, count, tuple(_named(key) for _, *key in rows))


def _counts(context: Context, entity: Entity) -> list[Finding]:
    """The rows of an entity's tables against the whole list, but for what the next sync brings.

    A row that seems missing or surplus is looked up once more; what that does not refute counts.
    """
    extract = read_whole(context, entity, "validate", context.run)
    possibly_alive = find_possibly_alive(context, extract)
    with context.conn.transaction():
        plan_suspects(context, extract, possibly_alive=possibly_alive)
    second_look(context, extract)
    findings = [_count(stage) for stage in extract.stages]
    extract.drop()
    return findings


def _count(stage: Stage) -> Finding:
    live, counts = compare.live_rows(stage), compare.plan_counts(stage)
    wrong = {op: counts[op, "confirmed"] + counts[op, "unproven"] for op in ("insert", "delete")}
    examples = [
        f"{what} {_named(key if isinstance(key, list) else [key])}"
        for what, operation in (("missing", "insert"), ("surplus", "delete"))
        for key in compare.plan_examples(stage, operation)
    ]
    expected = live + wrong["insert"] - wrong["delete"]
    return Finding(f"{stage.table.name}_count", Severity.ERROR, expected, live, tuple(examples))


def _sampled(context: Context, entity: Entity) -> Finding:
    """Rows that the source shows otherwise, of some that the run's name chooses, with the parts of each.

    What changed at the source after the sync's watermark does not count: the next sync brings it. Of a history the
    source shows but the newest rows, and what it shows of those otherwise is kept as it was: a warning.
    """
    table, sample = entity.table, _sample(context, entity)
    records = _looked_up(context, entity, sample)
    extract = Extract.open(context, entity, "sample", context.run).restart(context)
    extract.append(Page(None, records, None), None)
    for stage in extract.stages:
        compare.drop_repeats(stage)
    keys = context.conn.execute(
        sql.SQL("SELECT {} FROM {}").format(identifiers(table.key), extract.stage.sql)
    ).fetchall()
    absent = [] if entity.history else [f"{_named(key)}: surplus" for key in sorted(sample.keys() - set(keys))]
    differing = _differing(context, extract)
    extract.drop()
    severity = Severity.WARNING if entity.history else Severity.ERROR
    mismatches = (*absent, *differing)
    return Finding(f"{entity.name}_sample", severity, 0, len(mismatches), mismatches)


def _sample(context: Context, entity: Entity) -> dict[tuple, tuple]:
    """Some of the live rows: key -> values to look up by. The same for the same run."""
    by, key = entity.lookup.by, entity.table.key
    rows = context.conn.execute(
        sql.SQL(
            "SELECT {by}, {key} FROM {target} WHERE deleted_at IS NULL AND ({by}) IS NOT NULL"
            " ORDER BY hashtextextended(concat_ws('/', {key}), hashtextextended(%s, 0)) LIMIT %s"
        ).format(by=identifiers(by), key=identifiers(key), target=entity.table.sql),
        [context.run, SAMPLE],
    ).fetchall()
    return {row[len(by) :]: row[: len(by)] for row in rows}


def _looked_up(context: Context, entity: Entity, sample: Mapping[tuple, tuple]) -> list[Mapping[str, Any]]:
    """What the source has of the sample; what could not be looked up is raised."""
    records = []
    for _, look in look_up(context, entity.table, entity.lookup, dict.fromkeys(sample.values())):
        if look.unknown:
            raise TryLater(look.unknown)
        records += [record for record in look.rows if entity.table.key_of(record) in sample]
    return records


def _differing(context: Context, extract: Extract) -> list[str]:
    """The rows, those of parts with their table, each with the columns in which it differs."""
    entity, table = extract.entity, extract.entity.table
    watermark = sync_log.oldest_watermark(context.conn, context.source.name, entity.name)
    settled = sql.SQL("coalesce({} <= {}, true)").format(
        sql.Identifier(table.moment) if table.moment else sql.NULL, sql.Literal(watermark)
    )
    of_record = sql.SQL("({}) IN (SELECT {} FROM {} WHERE {})")
    whole = of_record.format(identifiers(table.key), identifiers(table.key), extract.stage.sql, settled)
    found = [f"{_named(key)}: {', '.join(columns)}" for columns, *key in _unlike(extract.stage, whole)]
    for part, stage in extract.parts:
        within = of_record.format(identifiers(part.by), identifiers(table.key), extract.stage.sql, settled)
        rows = _unlike(stage, within)
        found += [f"{part.table.name} {_named(key)}: {', '.join(columns)}" for columns, *key in rows]
    return found


def _unlike(stage: Stage, within: sql.Composable) -> list[tuple]:
    """(columns that differ, *key) of the rows that staged and live differ in; `missing` or `surplus` for a column."""
    table = stage.table
    return stage.conn.execute(
        sql.SQL(
            "SELECT CASE WHEN t.sync_id IS NULL THEN '{{missing}}' WHEN s._page IS NULL THEN '{{surplus}}'"
            " ELSE d.columns END, {key} FROM (SELECT * FROM {stage} WHERE {within}) s"
            " FULL JOIN (SELECT * FROM {target} WHERE deleted_at IS NULL AND {within}) t USING ({key})"
            " CROSS JOIN LATERAL (SELECT array_remove(ARRAY[{columns}], NULL) AS columns) d"
            " WHERE t.sync_id IS NULL OR s._page IS NULL OR d.columns <> '{{}}' ORDER BY {key}"
        ).format(
            key=identifiers(table.key),
            stage=stage.sql,
            target=table.sql,
            within=within,
            columns=sql.SQL(", ").join(
                sql.SQL("CASE WHEN s.{0} IS DISTINCT FROM t.{0} THEN {1} END").format(
                    sql.Identifier(name), sql.Literal(name)
                )
                for name in table.compared
            ),
        )
    ).fetchall()


def _named(key: Sequence[Any]) -> str:
    return "/".join(map(str, key))
