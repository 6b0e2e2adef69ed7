"""Validation: check the copy in itself and against the source. It writes nothing but its findings.

There are these checks:

- the invariants of the source
- for each table, the number of rows, compared with the whole list key by key, and what of that can't be proven
- for each entity, a sample of rows, compared field by field with what the source answers for them

It costs as many requests as a nightly scan, and one for each row of the samples. Lists are read as a whole, because the
totals of the sources prove nothing.
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
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity, Forensics
from include.sources.mirror.evidence import count_unseen, doubts
from include.sources.mirror.extract import Extract
from include.sources.mirror.invariant import Invariant
from include.sources.mirror.lookup import look_up
from include.sources.mirror.read import read_whole
from include.sources.mirror.scan import find_possibly_alive, plan_suspects
from include.sources.mirror.second_look import second_look
from include.warehouse import compare, sync_log
from include.warehouse.sql_fragments import identifiers
from include.warehouse.staging import Stage
from include.warehouse.table import key_text

log = logging.getLogger(__name__)

# The number of rows of each entity that are compared field by field.
SAMPLE = 20


@dataclass(frozen=True)
class InvariantMetrics:
    """Compute the metrics of an entity's invariants, and those of `others`. A `Forensics` for the entity."""

    invariants: tuple[Invariant, ...]
    others: Forensics | None = None

    def __call__(self, conn: Connection, plan: sql.Identifier) -> Mapping[str, int]:
        others = self.others(conn, plan) if self.others else {}
        return {**others, **{each.metric: _check_invariant(conn, each).actual for each in self.invariants}}


def with_invariants(entity: Entity, invariants: Sequence[Invariant]) -> Entity:
    """Return the entity with its own invariants among the metrics of its scans.

    Invariants of severity ERROR also become gates. Those of other entities are ignored.
    """
    own = tuple(each for each in invariants if each.entity == entity.name)
    gates = tuple(Trend(each.metric) for each in own if each.severity is Severity.ERROR)
    if not own:
        return entity
    return replace(entity, forensics=InvariantMetrics(own, entity.forensics), gates=entity.gates + gates)


def validate(context: MirrorContext) -> list[Finding]:
    """Make all checks, save the findings in confidence.integrity_check and return them.

    Raises IntegrityFailed where a check of severity ERROR failed, ScanRefused where an entity was never synced, and
    TryLater where a row of a sample could not be looked up.
    """
    source, conn = context.source, context.conn
    _require_synced(context)
    findings = [_check_invariant(conn, each) for each in source.checks]
    for entity in source.entities:
        findings += _check_counts(context, entity)
        findings.append(_check_sample(context, entity))
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


def _require_synced(context: MirrorContext) -> None:
    """Raise ScanRefused if an entity was never synced."""
    name, conn = context.source.name, context.conn
    never = [e.name for e in context.source.entities if sync_log.oldest_watermark(conn, name, e.name) is None]
    if never:
        raise ScanRefused(
            f"never synced, so there is nothing to validate yet: {', '.join(never)} of {name}. Run {name}_sync first"
        )


def _check_invariant(conn: Connection, invariant: Invariant) -> Finding:
    """Count the rows that break an invariant. None is expected."""
    rows = conn.execute(
        sql.SQL("SELECT count(*) OVER (), q.* FROM ({}) q ORDER BY q LIMIT {}").format(
            invariant.query, sql.Literal(MAX_EXAMPLES)
        )
    ).fetchall()
    count = rows[0][0] if rows else 0
    return Finding(invariant.name, invariant.severity, 0, count, tuple(key_text(key) for _, *key in rows))


def _check_counts(context: MirrorContext, entity: Entity) -> list[Finding]:
    """Count the rows of an entity's tables and compare with the whole list, without what the next sync brings.

    A row that seems missing or surplus is looked up, and counts if the look-up confirms it. What can't be told or
    stored is a finding of its own.
    """
    extract = read_whole(context, entity, "validate", context.run)
    possibly_alive = find_possibly_alive(context, extract)
    with context.conn.transaction():
        plan_suspects(context, extract, possibly_alive=possibly_alive)
    second_look(context, extract)
    findings = [_count_finding(stage) for stage in extract.stages]
    findings += [_unproven_finding(extract, stage) for stage in extract.stages]
    extract.drop()
    return findings


def _count_finding(stage: Stage) -> Finding:
    """Return the finding of a table's count, from its plan after the second look."""
    live, counts = compare.live_rows(stage), compare.plan_counts(stage)
    missing, surplus = (counts[operation, "confirmed"] for operation in ("insert", "delete"))
    examples = [
        f"{what} {key_text(key if isinstance(key, list) else [key])}"
        for what, operation in (("missing", "insert"), ("surplus", "delete"))
        for key in compare.plan_examples(stage, operation, proven=True)
    ]
    expected = live + missing - surplus
    return Finding(f"{stage.table.name}_count", Severity.ERROR, expected, live, tuple(examples))


def _unproven_finding(extract: Extract, stage: Stage) -> Finding:
    """Return the finding of what nobody can tell of a table: listed or not, in the copy or not."""
    found = doubts(stage)
    examples = [f"{key_text(key)}: {why.rstrip('.')}" for key, why in found[:MAX_EXAMPLES]]
    unseen = count_unseen(extract) if stage is extract.stage else 0
    if unseen:
        examples.append(f"{unseen} rows that the lists count but do not show")
    return Finding(f"{stage.table.name}_unproven", Severity.ERROR, 0, len(found) + unseen, tuple(examples))


def _check_sample(context: MirrorContext, entity: Entity) -> Finding:
    """Compare a sample of records and their nested rows with the source, field by field.

    Changes after the watermark don't count: the next sync brings them. For a history a difference is only a warning,
    because the copy keeps older rows as they were.
    """
    table, sample = entity.table, _sample(context, entity)
    records = _look_up_sample(context, entity, sample)
    extract = Extract.open(context, entity, "sample", context.run).restart(context)
    extract.append(Page(None, records, None), None)
    for stage in extract.stages:
        compare.drop_repeats(stage)
    keys = context.conn.execute(
        sql.SQL("SELECT {} FROM {}").format(identifiers(table.key), extract.stage.sql)
    ).fetchall()
    absent = [] if entity.history else [f"{key_text(key)}: surplus" for key in sorted(sample.keys() - set(keys))]
    differing = _differing_rows(context, extract)
    extract.drop()
    severity = Severity.WARNING if entity.history else Severity.ERROR
    mismatches = (*absent, *differing)
    return Finding(f"{entity.name}_sample", severity, 0, len(mismatches), mismatches)


def _sample(context: MirrorContext, entity: Entity) -> dict[tuple, tuple]:
    """Return some live rows as {key: values to look up by}. The sample is the same for the same run."""
    by, key = entity.lookup.by, entity.table.key
    rows = context.conn.execute(
        sql.SQL(
            "SELECT {by}, {key} FROM {target} WHERE deleted_at IS NULL AND ({by}) IS NOT NULL"
            " ORDER BY hashtextextended(concat_ws('/', {key}), hashtextextended(%s, 0)) LIMIT %s"
        ).format(by=identifiers(by), key=identifiers(key), target=entity.table.sql),
        [context.run, SAMPLE],
    ).fetchall()
    return {row[len(by) :]: row[: len(by)] for row in rows}


def _look_up_sample(context: MirrorContext, entity: Entity, sample: Mapping[tuple, tuple]) -> list[Mapping[str, Any]]:
    """Return the records that the source has of the sample. Raises TryLater where one could not be looked up."""
    records = []
    for _, look in look_up(context, entity.table, entity.lookup, dict.fromkeys(sample.values())):
        if look.unknown:
            raise TryLater(look.unknown)
        records += [record for record in look.rows if entity.table.key_of(record) in sample]
    return records


def _differing_rows(context: MirrorContext, extract: Extract) -> list[str]:
    """Return a text for each row that differs: its table if it is a nested row, its key and the differing columns.

    Records that changed after the watermark are left out, with their nested rows.
    """
    entity, table = extract.entity, extract.entity.table
    watermark = sync_log.oldest_watermark(context.conn, context.source.name, entity.name)
    before_watermark = sql.SQL("coalesce({} <= {}, true)").format(
        sql.Identifier(table.moment) if table.moment else sql.NULL, sql.Literal(watermark)
    )
    of_record = sql.SQL("({}) IN (SELECT {} FROM {} WHERE {})")
    within = of_record.format(identifiers(table.key), identifiers(table.key), extract.stage.sql, before_watermark)
    found = [f"{key_text(key)}: {', '.join(columns)}" for columns, *key in _differing_columns(extract.stage, within)]
    for part, stage in extract.parts:
        within = of_record.format(identifiers(part.by), identifiers(table.key), extract.stage.sql, before_watermark)
        rows = _differing_columns(stage, within)
        found += [f"{part.table.name} {key_text(key)}: {', '.join(columns)}" for columns, *key in rows]
    return found


def _differing_columns(stage: Stage, within: sql.Composable) -> list[tuple]:
    """Return (differing columns, *key) for each row in which stage and copy differ, `within` a condition.

    If only one side has the row, the columns are ["missing"] (in the copy) or ["surplus"].
    """
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
