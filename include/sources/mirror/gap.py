"""Lists that show only the records that changed last, so many and no more: what changed behind those is looked for.

Such a list shows all that changed since a time if it shows a record that changed before it. If it doesn't, the records
of the copy that it would show without its limit are looked up, those that changed last first. If one of them has
changed, the list has left it out. What is found is written; but since the list may have left out records that nobody
knows yet, the watermark stays, and the sync fails by name. The next sync finds nothing left out any more.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import sql

from include.api.paginators import Page
from include.sources.mirror.entity import Context, Listing
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import complete, moment_of
from include.warehouse.staging import TooManyRefused
from include.warehouse.table import among, identifiers, same_key

# Records that are looked up behind one list. In a list without such a limit none of them has changed.
LOOKS = 50


def note(extract: Extract, number: int, listing: Listing, rows: Sequence[Mapping[str, Any]], *, left_out: int) -> None:
    """Remember how far back the list has shown records; those that its shape has left out are older than all others."""
    state = extract.list_state(number)
    moments = [moment.isoformat() for row in rows if (moment := moment_of(extract.entity, row))]
    oldest = min(filter(None, [state.get("oldest"), *moments]), key=datetime.fromisoformat, default=None)
    reached = state.get("reached", False) or left_out > 0
    reached = reached or (oldest is not None and datetime.fromisoformat(oldest) < listing.newest.since)
    extract.save_list_state(number, oldest=oldest, reached=reached)


def close(context: Context, extract: Extract, listings: Sequence[Listing]) -> None:
    """Look up what the lists may have left out, and remember the partitions of which one did leave out something."""
    for number, listing in enumerate(listings):
        state = extract.list_state(number)
        if listing.newest is None or not state or state["reached"] or listing.partition in extract.failed:
            continue
        hidden = _hidden(context, extract, listing, state["oldest"])
        rows = [dict(zip(extract.entity.table.key, key, strict=True)) for key in hidden]
        found = complete(context, extract.entity, Page(None, rows, None), listing.partition, skip=(), room=None)
        extract.append(found.page, None, found, number, listing.partition)
        try:
            extract.require_stored(listing.partition)
        except TooManyRefused as error:
            extract.leave_out(listing.partition, str(error))
        changed = _changed(context, extract, listing, hidden)
        if changed:
            since = listing.newest.since.isoformat(timespec="seconds")
            why = (
                f"a list shows no record that changed before {since}, and left out {changed} that had changed: those"
                " were written, but it may have left out others that are new"
            )
            extract.stage.save_progress(cut={**extract.cut, listing.partition: why})


def _hidden(context: Context, extract: Extract, listing: Listing, oldest: str | None) -> list[tuple]:
    """The keys of the copy's records that the list would show behind its oldest one, those that changed last first."""
    table = extract.entity.table
    behind = sql.SQL("true")
    if oldest:
        behind = sql.SQL("coalesce(t.{} <= {}, true)").format(sql.Identifier(table.moment), sql.Literal(oldest))
    return context.conn.execute(
        sql.SQL(
            "SELECT {key} FROM {table} t WHERE t.deleted_at IS NULL AND t.{column}::text = {partition} AND {holds}"
            " AND {behind} AND NOT EXISTS (SELECT FROM {stage} s WHERE {same})"
            " ORDER BY t.{moment} DESC NULLS LAST, {key} LIMIT {limit}"
        ).format(
            key=identifiers(table.key, "t"),
            table=table.sql,
            column=sql.Identifier(extract.entity.partitions.column),
            partition=sql.Literal(listing.partition),
            holds=sql.SQL(listing.newest.condition),
            behind=behind,
            stage=extract.stage.sql,
            same=same_key(table.key, "s", "t"),
            moment=sql.Identifier(table.moment),
            limit=sql.Literal(LOOKS),
        )
    ).fetchall()


def _changed(context: Context, extract: Extract, listing: Listing, keys: Sequence[tuple]) -> int:
    """How many of these records have changed since the copy, and would still be shown by the list."""
    table, moment = extract.entity.table, sql.Identifier(extract.entity.table.moment)
    return context.conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {stage} t JOIN {table} c ON {same}"
            " WHERE {among} AND {holds} AND t.{moment} > coalesce(c.{moment}, '-infinity')"
        ).format(
            stage=extract.stage.sql,
            table=table.sql,
            same=same_key(table.key, "c", "t"),
            among=among(table.key, keys, "t"),
            holds=sql.SQL(listing.newest.condition),
            moment=moment,
        )
    ).fetchone()[0]
