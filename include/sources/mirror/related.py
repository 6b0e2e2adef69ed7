"""What a sync writes besides its records: their children and the records they refer to, and the problems of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from include.api.paginators import Page
from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Entity, Need
from include.sources.mirror.evidence import count_unlisted
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up, look_up_or_parent, not_there
from include.sources.mirror.partitions import state_partitions
from include.sources.mirror.planning import mark_unreadable, plan_sync
from include.sources.mirror.second_look import PARENT_LISTED, second_look
from include.warehouse import compare, sync_log
from include.warehouse.pull import TooManyRefused
from include.warehouse.sql_fragments import among, identifiers, pairs
from include.warehouse.staging import Stage
from include.warehouse.table import key_text


@dataclass(frozen=True)
class Problem:
    """Something that could not be read or stored, and why. `needs_person`: as in `Look`."""

    name: str
    why: str
    needs_person: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.why.rstrip('.')})"


def never_synced(context: MirrorContext, entity: Entity) -> bool:
    """Return whether the entity, or one of its known partitions, still waits for its first sync."""
    conn, source, partitions = context.conn, context.source.name, state_partitions(context, entity)
    return not all(sync_log.state(conn, source, entity.name, partition).watermark for partition in partitions)


def stage_children(context: MirrorContext, extract: Extract) -> tuple[list[Extract], list[Problem]]:
    """Look up, stage and plan the children of all listed parents. Return (an extract for each kind, problems).

    Children of unchanged parents are read too, as long as the parent is in the lookback, since a source may show a
    parent before its children. If the source shows a parent in an older version than the copy has, its children are
    not read, since they would be outdated too. Kinds that were never synced are left to their first sync. If the
    parents (or those of a partition) were never synced, only those count that changed after the children were last
    read.
    """
    found, problems = [], []
    for child in context.source.children(extract.entity):
        if never_synced(context, child):
            continue
        listed = _parents_to_read(context, extract, child)
        alive = set(listed) - extract.flagged_deleted(listed)
        read: list[tuple] = []
        # Asked at the same address, a second look would only repeat what the first has shown.
        looked_at_again = replace(child, lookup=child.lookup.witness or child.lookup)
        children = Extract.open(context, looked_at_again, "sync", f"children of {extract.stage.pull.ticket}")
        if children.stage.resumed:
            children = children.restart(context)
        for value, look in look_up_or_parent(context, child, child.lookup, listed):
            why = look.unknown or (PARENT_LISTED if value in alive and not_there(child.lookup, look) else "")
            if why:
                problems.append(Problem(f"{child.name} of {key_text(value)}", why, look.needs_person))
            else:
                children.append(Page(None, list(look.rows), None), list(value))
                read.append(value)
        problems += _refused_problems(children)
        _plan_children(context, children, read, all_read=len(read) == len(listed))
        looks = second_look(context, children, listed_parents=alive)
        problems += unproven_rows(children, needs_person=looks.needs_person)
        if unlisted := count_unlisted(children):
            why = f"their lists don't show {unlisted} of them, but another address does"
            problems.append(Problem(child.name, why))
        found.append(children)
    return found, problems


def _parents_to_read(context: MirrorContext, extract: Extract, child: Child) -> list[tuple]:
    """Return the keys of the listed parents whose children a sync reads, as `stage_children` says."""
    table, parents, changed = extract.entity.table, extract.stage, sql.SQL("true")
    if table.moment and never_synced(context, extract.entity):
        since = sync_log.state(context.conn, context.source.name, child.name).since(context.source.lookback)
        changed = sql.SQL("coalesce({} >= {}, true)").format(sql.Identifier(table.moment), sql.Literal(since))
    query = sql.SQL(PARENTS).format(key=identifiers(table.key), stage=parents.sql, plan=parents.plan, changed=changed)
    return parents.conn.execute(query).fetchall()


def _refused_problems(extract: Extract) -> list[Problem]:
    """Return a problem if too many rows were refused, else nothing."""
    try:
        extract.check_refused()
    except TooManyRefused as error:
        return [Problem(extract.entity.name, str(error))]
    return []


def _plan_children(context: MirrorContext, children: Extract, parents: Sequence[tuple], *, all_read: bool) -> None:
    """Plan the children of these parents as a set. A child that is missing in it is a candidate for a delete.

    If the only look-up is a narrow list, deletes are left to the scan: it reads the whole list too, and one list alone
    proves no absence.

    `all_read`: whether the children of all listed parents were read. If not, a missing child may have moved to a parent
    that could not be read, so deletes wait for the next sync, unless a child's key says whose it is.
    """
    stage, by = children.stage, children.entity.lookup.by
    plan_sync(context, children)
    if not children.entity.lookup.own or not (all_read or set(by) <= set(stage.table.key)):
        return
    within = among(by, parents, "t")
    compare.plan_deletes(stage, status="candidate", within=within)
    mark_unreadable(stage)


def unread_records(extract: Extract) -> list[Problem]:
    """Return the unread records and partitions, and the partitions with an incomplete list.

    Records that a sync left to the next one because of its limit are no problem.
    """
    refused = extract.progress.get("needs_person", ())
    return [
        *(
            Problem(each.name, each.reason, each.needs_person)
            for each in extract.lookups.skipped_records
            if each.failed
        ),
        *(
            Problem(f"all of {partition}", why, partition in refused)
            for partition, why in extract.failed_partitions.items()
        ),
        *(
            Problem(f"perhaps others of {partition}" if partition else "perhaps others", why)
            for partition, why in extract.short_partitions.items()
        ),
    ]


def unproven_rows(extract: Extract, *, needs_person: bool) -> list[Problem]:
    """Return the rows that not even a second look could prove. `needs_person`: one of these looks was refused."""
    found = []
    for stage in extract.stages:
        query = sql.SQL("SELECT {}, coalesce(_why, '') FROM {} WHERE _status = 'unproven' ORDER BY 1")
        key = sql.SQL("concat_ws('/', {})").format(identifiers(stage.table.key))
        rows = stage.conn.execute(query.format(key, stage.plan)).fetchall()
        found += [Problem(f"{stage.table.name} {name}", why, needs_person) for name, why in rows]
    return found


def stage_needed(context: MirrorContext, extract: Extract) -> tuple[list[Stage], list[Problem]]:
    """Look up, stage and plan records that the staged ones refer to and the copy lacks. Return (stages, problems).

    The staged records are complete without them, so they are written even if there is a problem here. But the sync
    then fails, with the problem in its message.
    """
    # By entity, since several needs may name the same one.
    stages: dict[str, Stage] = {}
    problems = []
    for need in extract.entity.needs:
        entity = entity_of(context.source, need.entity)
        if entity.name not in stages:
            ticket = f"{context.run} {extract.stage.pull.attempt}"
            stages[entity.name] = Stage.open(context.conn, entity.table, context.source.name, "need", ticket)
        stage = stages[entity.name]
        for value, look in look_up(context, entity.table, entity.lookup, _missing_keys(extract, need, entity)):
            if look.unknown:
                problems.append(Problem(f"{entity.name} {key_text(value)}", look.unknown, look.needs_person))
            elif look.rows:
                with context.conn.transaction():
                    stage.store(look.rows, next_position=list(value), page_info={})
    for name, stage in stages.items():
        problems += [Problem(f"{name} {key_text(key)}", why) for key, why in stage.refusals()]
        compare.drop_repeats(stage)
        compare.plan_writes(stage)
    return list(stages.values()), problems


def _missing_keys(extract: Extract, need: Need, entity: Entity) -> list[tuple]:
    """Return the keys that the staged records refer to and the copy doesn't have, not even as deleted."""
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


PARENTS = """
SELECT {key} FROM {stage} WHERE {changed} EXCEPT SELECT {key} FROM {plan} WHERE _status = 'stale' ORDER BY {key}
"""
