"""The summary of a scan: its metrics, account and examples, and why it is no evidence if it is none."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from include.confidence import unproven
from include.confidence.account import Account
from include.confidence.field_figures import FieldFigures, lost_fields
from include.confidence.summary import ForensicSummary, Plan
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.evidence import account, too_many_unlisted
from include.sources.mirror.extract import Extract
from include.sources.mirror.scope import Scope
from include.sources.mirror.second_look import BUDGET_SPENT, LookCounts
from include.warehouse import compare


def summarize(
    context: MirrorContext,
    scope: Scope,
    extract: Extract,
    figures: Mapping[str, Any],
    scan_id: str,
    epoch: int,
    looks: LookCounts,
    fields: FieldFigures,
) -> ForensicSummary:
    """Return the summary of a scan after the second look. `figures` are those that the comparison has kept."""
    accounts = {
        stage.table.name: account(
            context, extract, stage, figures["compared"][stage.table.name], surplus=scope.not_in_api
        )
        for stage in extract.stages
    }
    return ForensicSummary(
        source=context.source.name,
        entity=extract.entity.name,
        scope=str(scope),
        scan_id=scan_id,
        run=context.run,
        epoch=epoch,
        metrics={**_metrics(context, scope, extract, figures), **fields.metrics},
        telemetry=_telemetry(scope, extract, figures),
        plan=_total_plan([compare.plan_counts(stage) for stage in extract.stages]),
        live_rows=sum(each.looked_at for each in accounts.values()),
        examples=_examples(context, extract, figures, fields),
        accounts=accounts,
        incomplete=_incomplete(context, extract, accounts, looks, fields),
    )


def _metrics(context: MirrorContext, scope: Scope, extract: Extract, figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metrics of the glossary. None for those that the scan could not tell."""
    counts, pull = compare.plan_counts(extract.stage), extract.stage.pull
    confirmed = _total_plan([counts])
    scanned = pull.rows_read - pull.rows_refused
    repeats = figures["identical"] + figures["differing"]
    found_surplus = scope.not_in_api and not extract.entity.history
    metrics = {
        "api_rows_scanned": scanned,
        "api_unique_ids": scanned - repeats,
        "api_duplicate_rows": repeats,
        "api_duplicate_rows_differing": figures["differing"],
        "db_total_rows": figures["live_rows"],
        "api_unique_not_in_db": figures["missing"],
        "confirmed_missing": confirmed.insert,
        "db_not_in_api_unique": figures["surplus"] if found_surplus else None,
        "confirmed_deleted": confirmed.delete if found_surplus else None,
        "rows_differing": confirmed.update,
        "feed_noise": sum(n for (_, status), n in counts.items() if status == "noise"),
        "rows_young": sum(n for (_, status), n in counts.items() if status == "young"),
        "rows_due": sum(n for (_, status), n in counts.items() if status == "due"),
        "rows_refused": pull.rows_refused,
        **unproven.metrics(context.conn, context.source.name, _table_names(extract)),
        **figures["forensics"],
    }
    if extract.parts:
        nested = _total_plan([compare.plan_counts(stage) for _, stage in extract.parts])
        metrics["nested_rows_drifted"] = nested.rows
    for part, stage in extract.parts:
        name, changes = part.table.name, _total_plan([compare.plan_counts(stage)])
        metrics |= {
            f"{name}_missing": changes.insert,
            f"{name}_surplus": changes.delete,
            f"{name}_differing": changes.update,
        }
    return metrics


def _telemetry(scope: Scope, extract: Extract, figures: Mapping[str, Any]) -> Mapping[str, Any]:
    total = extract.stage.pull.total_entries
    return {
        "page_start": scope.first,
        "page_end": scope.final_page(extract.stage),
        "api_reported_total_entries": total,
        "gap_vs_api_reported_total": None if total is None else total - figures["live_rows"],
        "partitions_asked": len(extract.partitions) if extract.entity.partitions else None,
    }


def _examples(
    context: MirrorContext, extract: Extract, figures: Mapping[str, Any], fields: FieldFigures
) -> Mapping[str, list]:
    """Return the examples of the summary: keys of rows, and lost fields.

    Missing rows are those that the list showed, before the second look; all other rows are those after it.
    """
    stage = extract.stage
    return fields.examples | {
        "missing_examples": figures["missing_examples"],
        **{f"{operation}_examples": compare.plan_examples(stage, operation) for operation in ("update", "delete")},
        **unproven.examples(context.conn, context.source.name, _table_names(extract)),
    }


def _table_names(extract: Extract) -> list[str]:
    return [stage.table.name for stage in extract.stages]


def _incomplete(
    context: MirrorContext, extract: Extract, accounts: Mapping[str, Account], looks: LookCounts, fields: FieldFigures
) -> str:
    """Return why the scan is no evidence; empty if it is evidence."""
    entity, name = extract.entity, extract.entity.name
    if looks.all_unknown:
        return f"{name}: none of the {looks.asked} requests for a second look got a usable answer"
    nested = [part.table.name for part in entity.parts]
    why = entity.unproven.no_evidence(accounts, nested) or too_many_unlisted(extract, accounts[name])
    advice = [*lost_fields(fields.lost), *_beyond_budget(context, extract)]
    return ". ".join([why, *advice]) if why else ""


def _beyond_budget(context: MirrorContext, extract: Extract) -> list[str]:
    """Say what to do about the suspects that the scan had no requests left for, if a sync can look them up.

    No later scan gets further by itself if each finds as many of them. A sync looks up only what its list shows.
    """
    query = sql.SQL("SELECT count(*) FROM {} WHERE _why = {} AND _listed")
    conn, plan = context.conn, extract.stage.plan
    (count,) = conn.execute(query.format(plan, sql.Literal(BUDGET_SPENT))).fetchone()
    if not count:
        return []
    return [
        f"{count} of them were not looked up, since {BUDGET_SPENT}: trigger {context.source.name}_sync with mode full,"
        " which looks up all of them, then clear scan with downstream"
    ]


def _total_plan(counts: Sequence[Mapping[tuple[str, str], int]]) -> Plan:
    """Return the numbers of confirmed changes in all the plans together."""
    return Plan(*(sum(c[operation, "confirmed"] for c in counts) for operation in ("insert", "update", "delete")))
