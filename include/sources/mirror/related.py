"""What belongs to the records of a sync: their children, the records that they name, and what was not read of both."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from include.api.paginators import Page
from include.sources.base import entity_of
from include.sources.mirror.entity import Context, Entity, Need
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up
from include.sources.mirror.partitions import known_partitions
from include.sources.mirror.planning import mark_unreadable, plan_sync
from include.sources.mirror.second_look import second_look
from include.warehouse import compare, sync_log
from include.warehouse.staging import Stage, TooManyRefused
from include.warehouse.table import among, identifiers, pairs


@dataclass(frozen=True)
class Problem:
    """What could not be read or stored: its name, and why. `needs_person`: asking again would not change that."""

    name: str
    why: str
    needs_person: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.why.rstrip('.')})"


def never_synced(context: Context, entity: Entity) -> bool:
    """Whether the entity, or a part of it, waits for its first sync."""
    states = [
        sync_log.state(context.conn, context.source.name, entity.name, p) for p in known_partitions(context, entity)
    ]
    return not all(state.watermark for state in states)


def children_of(context: Context, extract: Extract) -> tuple[list[Extract], list[Problem]]:
    """Stage and plan the children of all parents that were listed, of each kind that has had its first full sync.

    Not of the changed parents alone: a source may show a parent before its children, so children get a second chance
    for as long as their parent is in the lookback. Also says whose children could not be read.
    """
    parents = extract.stage
    key = identifiers(extract.entity.table.key)
    listed = parents.conn.execute(sql.SQL("SELECT {0} FROM {1} ORDER BY {0}").format(key, parents.sql)).fetchall()
    found, problems = [], []
    for child in context.source.children(extract.entity):
        if never_synced(context, child):
            continue
        children, read = Extract.open(context, child, "sync", f"children of {parents.pull.ticket}"), []
        if children.stage.resumed:
            children = children.restart(context)
        for value, look in look_up(context, child.table, child.lookup, listed):
            if look.unknown:
                problems.append(Problem(f"{child.name} of {_text(value)}", look.unknown, look.needs_person))
            else:
                children.append(Page(None, list(look.rows), None), list(value))
                read.append(value)
        problems += _too_many_refused(children)
        _plan_set(context, children, read)
        second_look(context, children)
        found.append(children)
    return found, problems


def _too_many_refused(extract: Extract) -> list[Problem]:
    try:
        extract.check_refused()
    except TooManyRefused as error:
        return [Problem(extract.entity.name, str(error))]
    return []


def _plan_set(context: Context, children: Extract, parents: Sequence[tuple]) -> None:
    """Plan the children of these parents as a set: what it doesn't show any more wants a second look.

    A child that could not be read is not gone; one without a usable key may be any of those that seem to be.
    """
    stage = children.stage
    plan_sync(context, children)
    within = among(children.entity.lookup.by, parents, "t")
    compare.plan_deletes(stage, status="candidate", within=within)
    mark_unreadable(stage)


def skipped(extract: Extract) -> list[Problem]:
    """The records and partitions that could not be read, each with the reason."""
    return [
        *(Problem(each.name, each.reason, each.needs_person) for each in extract.skipped_records if each.failed),
        *(Problem(f"all of {partition}", why) for partition, why in extract.failed_partitions.items()),
        *(
            Problem(f"perhaps others of {partition}" if partition else "perhaps others", why)
            for partition, why in extract.short_partitions.items()
        ),
    ]


def unproven(extract: Extract) -> list[Problem]:
    """The rows that not even a second look could prove, each with the reason."""
    found = []
    for stage in extract.stages:
        query = sql.SQL("SELECT {}, coalesce(_why, '') FROM {} WHERE _status = 'unproven' ORDER BY 1")
        key = sql.SQL("concat_ws('/', {})").format(identifiers(stage.table.key))
        rows = stage.conn.execute(query.format(key, stage.plan)).fetchall()
        found += [Problem(f"{stage.table.name} {name}", why) for name, why in rows]
    return found


def needed_by(context: Context, extract: Extract) -> tuple[list[Stage], list[Problem]]:
    """Stage and plan what the records name and the copy lacks; also says what of that could not be read or stored.

    It keeps out none of the records, which are whole without it; but the sync fails by its name.
    """
    stages, problems = [], []
    for need in extract.entity.needs:
        entity = entity_of(context.source, need.entity)
        ticket = f"{context.run} {extract.stage.pull.attempt}"
        stage = Stage.open(context.conn, entity.table, context.source.name, "need", ticket)
        for value, look in look_up(context, entity.table, entity.lookup, _lacking(extract, need, entity)):
            if look.unknown:
                problems.append(Problem(f"{entity.name} {_text(value)}", look.unknown, look.needs_person))
            elif look.rows:
                stage.store(look.rows, next_position=list(value), page_info={})
        problems += [Problem(f"{entity.name} {_text(key)}", why) for key, why in stage.refusals()]
        compare.drop_repeats(stage)
        compare.plan_writes(stage)
        stages.append(stage)
    return stages, problems


def _text(key: Sequence) -> str:
    return "/".join(map(str, key))


def _lacking(extract: Extract, need: Need, entity: Entity) -> list[tuple]:
    """The keys that the staged records name and the copy doesn't know, not even as deleted."""
    return extract.stage.conn.execute(
        sql.SQL(
            "SELECT DISTINCT {by} FROM {stage} s WHERE NOT EXISTS (SELECT FROM {target} t WHERE {same}) AND {named}"
        ).format(
            by=identifiers(need.by, "s"),
            stage=extract.stage.sql,
            target=entity.table.sql,
            same=pairs(entity.table.key, "t", need.by, "s"),
            named=sql.SQL("({}) IS NOT NULL").format(identifiers(need.by, "s")),
        )
    ).fetchall()
