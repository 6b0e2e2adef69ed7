"""Records that lists show only in brief: look up each of them, or say why it was skipped."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg import sql

from include.api.paginators import Page
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered, Entity
from include.sources.mirror.lookup import Look, Row, look_up
from include.sources.mirror.same_value import is_earlier, same_value
from include.warehouse.sql_fragments import among, identifiers
from include.warehouse.staging import Stage, staged
from include.warehouse.table import RowRefused, Table, key_text

# Why a record was skipped, if the reason is on our side.
OVER_LIMIT = "over the limit"
OLDER_THAN_LISTED = "its own address shows an older version than the list"
DELETED_BUT_LISTED = "the list shows it, but its own address says that it is deleted"


@dataclass(frozen=True)
class SkippedRecord:
    """A listed record that was not read.

    - `moment`: its version (or change time) in ISO 8601, None if the list shows none
    - `reason`: why it was skipped
    - `needs_person`: as in `Look`
    - `version`: the version alone
    - `contradicted`: its list and its own address contradict each other, so that no further look at that address counts
    """

    key: list
    partition: str
    moment: str | None
    reason: str
    needs_person: bool = False
    version: str | None = None
    contradicted: bool = False

    @property
    def failed(self) -> bool:
        """Whether the source is the reason. Records over the limit are left to the next sync."""
        return self.reason != OVER_LIMIT

    @property
    def name(self) -> str:
        return key_text(self.key)


@dataclass(frozen=True)
class CompletePage:
    """A page with its records in full, and what became of the others.

    - `deleted`: keys of records whose own address shows a tombstone, and that no list shows
    - `absent`: keys of listed records that are not at their own address
    - `known`: number of listed records that were not looked up: already staged, or unchanged since the last sync
    - `skipped`: listed records that were not read
    - `delete_events`: keys of records that an event reports as deleted
    - `shown`: a name for each row of a list in brief as the list showed it, those that are ignored included
    """

    page: Page
    deleted: tuple[tuple, ...] = ()
    absent: tuple[tuple, ...] = ()
    known: int = 0
    skipped: tuple[SkippedRecord, ...] = ()
    delete_events: tuple[tuple, ...] = ()
    shown: tuple[str, ...] = ()


def complete_page(
    context: MirrorContext,
    entity: Discovered,
    page: Page,
    partition: str,
    *,
    skip: Container[tuple],
    limit: int | None,
    skipped_before: Sequence[SkippedRecord] = (),
    listed: bool = True,
) -> CompletePage:
    """Look up the records that the page shows in brief.

    - `skip`: keys that need no look-up
    - `limit`: the largest number of look-ups, None for no limit
    - `skipped_before`: records that could not be read with another list, which may have shown their version
    - `listed`: False if the page is not from a list, but has keys of the copy. What a list shows is not deleted on the
      word of its own address alone.

    A row without a usable key stays as it is, so that staging refuses it with the reason.
    """
    table = entity.table
    briefs = {key: row for row in page.rows if (key := table.key_of(row)) and key not in skip}
    rows = [row for row in page.rows if table.key_of(row) is None]
    known = len(page.rows) - len(rows) - len(briefs)
    wanted = list(briefs)
    before = listed_versions(skipped_before)
    asked, left = (wanted, []) if limit is None else (wanted[:limit], wanted[limit:])
    skipped = [_skipped_record(entity, key, partition, briefs[key], Look(unknown=OVER_LIMIT)) for key in left]
    deleted, absent = [], []
    for key, look in _look_up_listed(context, entity, {key: briefs[key] for key in asked}):
        brief = briefs[key]
        contradiction = _contradiction(entity, brief, look)
        judged = _judged(entity, brief, look, before.get(key), listed=listed)
        if contradiction or judged.unknown:
            skipped.append(_skipped_record(entity, key, partition, brief, judged, contradiction))
        elif look.tombstone:
            deleted.append(key)
        elif not look.rows:
            absent.append(key)
        else:
            rows += look.rows
    return CompletePage(replace(page, rows=rows), tuple(deleted), tuple(absent), known, tuple(skipped))


def _judged(entity: Discovered, brief: Row, look: Look, before: datetime | None, *, listed: bool) -> Look:
    """Return the look at a record's own address, unknown if it can't be believed beside what lists show.

    `before`: the newest version that another list has shown. `listed`: as in `complete_page`.
    """
    if look.tombstone and listed:
        return Look(unknown=DELETED_BUT_LISTED)
    versions = (_version_of(entity, brief), before)
    if any(is_older(entity, row, version) for row in look.rows for version in versions):
        return Look(unknown=OLDER_THAN_LISTED)
    return look


def _look_up_listed(
    context: MirrorContext, entity: Discovered, briefs: Mapping[tuple, Row]
) -> Iterator[tuple[tuple, Look]]:
    """Look up listed records. Yields (key, Look).

    A record that appears as deleted, or otherwise contradicts its list, is looked up once more.
    """
    doubtful = []
    for key, look in look_up(context, entity.table, entity.lookup, briefs):
        if look.tombstone or _contradiction(entity, briefs[key], look):
            doubtful.append(key)
        else:
            yield key, look
    yield from look_up(context, entity.table, entity.lookup, doubtful)


def _contradiction(entity: Discovered, brief: Row, look: Look) -> str:
    """Say why a record's own address contradicts its list; empty if it doesn't."""
    return next(filter(None, (entity.contradiction(brief, row) for row in look.rows)), "")


def is_older(entity: Entity, row: Row, listed: datetime | None) -> bool:
    """Return whether a record in full has an older version than the one that its list has shown before, if any."""
    version = entity.table.version
    (found,) = entity.table.named(row, [version]) if version else (None,)
    return found is not None and listed is not None and is_earlier(found, listed)


def listed_versions(skipped: Sequence[SkippedRecord]) -> Mapping[tuple, datetime]:
    """Return the newest versions in which lists have shown skipped records, by their keys."""
    versions: dict[tuple, datetime] = {}
    for each in skipped:
        if each.version:
            key, version = tuple(each.key), datetime.fromisoformat(each.version)
            versions[key] = max(version, versions.get(key, version))
    return versions


def _version_of(entity: Discovered, brief: Row) -> datetime | None:
    """Return a listed record's version; None if the list shows none or it can't be read."""
    version = entity.shown.version
    return entity.shown.named(brief, [version])[0] if version else None


def _skipped_record(
    entity: Discovered, key: tuple, partition: str, brief: Row, look: Look, contradiction: str = ""
) -> SkippedRecord:
    moment, version = (time and time.isoformat() for time in (moment_of(entity, brief), _version_of(entity, brief)))
    return SkippedRecord(
        list(key), partition, moment, contradiction or look.unknown, look.needs_person, version, bool(contradiction)
    )


def read_keys(stage: Stage, entity: Discovered, page: Page) -> set[tuple]:
    """Return the keys of listed records that are staged already, in no older version than the page shows."""
    table, version = entity.table, entity.table.version
    briefs = {key: row for row in page.rows if (key := table.key_of(row))}
    there = staged(stage, briefs)
    if not (there and version):
        return there
    key = identifiers(table.key)
    query = sql.SQL("SELECT max({}), {} FROM {} WHERE {} GROUP BY {}").format(
        sql.Identifier(version), key, stage.sql, among(table.key, there), key
    )
    newest = {tuple(key): found for found, *key in stage.conn.execute(query)}
    listed = {key: _version_of(entity, briefs[key]) for key in there}
    return {key for key in there if not (newest[key] and listed[key] and is_earlier(newest[key], listed[key]))}


def unchanged_keys(context: MirrorContext, entity: Discovered, page: Page, since: datetime) -> set[tuple]:
    """Return the keys of listed records whose shown values equal the copy's, unless they changed at `since` or later.

    Those are read again, because what belongs to a record may arrive after it.
    """
    shown = entity.shown
    briefs = {key: row for row in page.rows if (key := shown.key_of(row))}
    if shown.names == shown.key or not briefs:
        return set()
    copies = context.conn.execute(
        sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL AND {}").format(
            identifiers(shown.names), entity.table.sql, among(shown.key, briefs)
        )
    ).fetchall()
    places = [shown.names.index(name) for name in shown.key]
    there = {tuple(copy[place] for place in places): copy for copy in copies}
    return {
        key
        for key, row in briefs.items()
        if _same_values(there.get(key), _brief_values(shown, row))
        and not ((moment := moment_of(entity, row)) and moment >= since)
    }


def _same_values(ours: tuple | None, theirs: tuple | None) -> bool:
    """Return whether copy and list say the same of a record; false if either says nothing."""
    return bool(ours and theirs) and all(map(same_value, ours, theirs))


def _brief_values(shown: Table, row: Row) -> tuple | None:
    """Return what a list shows of a record, in the order of `shown`. None if it can't be read: the full record may."""
    try:
        return shown.row(row)
    except RowRefused:
        return None


def moment_of(entity: Discovered, row: Row) -> datetime | None:
    """Return a listed record's version (or change time); None if the list shows none or it can't be read."""
    shown = entity.shown
    brief = _brief_values(shown, row) or ()
    values = dict(zip(shown.names, brief, strict=False))
    return values.get(shown.version) or values.get(shown.changed)
