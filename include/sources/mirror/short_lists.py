"""Lists with a limit: they show only the records that changed last, and may be too short.

Such a list reaches back to a time if it shows a record that changed before. If it doesn't, a sync looks up records of
the copy that the list may have left out, the latest changes first. If one of them has changed, the list was too short.

The changes that are found are written. But the list may also have left out records that are new, so the watermark
stays and the sync fails. The next sync finds no such change any more and succeeds.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import sql

from include.api.paginators import Page
from include.sources.mirror.brief import complete_page, moment_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.extract import Extract
from include.sources.mirror.listing import Listing
from include.warehouse.pull import TooManyRefused
from include.warehouse.sql_fragments import among, identifiers, same_key

# The largest number of records to look up for one list.
MAX_LOOKS = 50


def remember_reach(
    extract: Extract, number: int, listing: Listing, rows: Sequence[Mapping[str, Any]], *, ignored: int
) -> None:
    """Keep with the pull the oldest change that the list has shown so far, and whether it reaches back far enough.

    `ignored`: the number of rows on the page that the list's `shape` ignored. They are older than all others.
    """
    state = extract.list_state(number)
    moments = [moment.isoformat() for row in rows if (moment := moment_of(extract.entity, row))]
    oldest = min(filter(None, [state.get("oldest"), *moments]), key=datetime.fromisoformat, default=None)
    shows_older = oldest is not None and datetime.fromisoformat(oldest) < listing.newest.since
    reached = state.get("reached", False) or ignored > 0 or shows_older
    extract.save_list_state(number, oldest=oldest, reached=reached)


def look_up_hidden(context: MirrorContext, extract: Extract, listings: Sequence[Listing]) -> None:
    """Look up records that the lists may have left out. Mark the partitions whose list left out a change as short."""
    for number, listing in enumerate(listings):
        state = extract.list_state(number)
        if listing.newest is None or not state or state["reached"] or listing.partition in extract.failed_partitions:
            continue
        hidden = _hidden_keys(context, extract, listing, state["oldest"])
        rows = [dict(zip(extract.entity.table.key, key, strict=True)) for key in hidden]
        page = Page(None, rows, None)
        complete = complete_page(context, extract.entity, page, listing.partition, skip=(), limit=None, listed=False)
        extract.append(complete.page, None, complete, number, listing.partition)
        try:
            extract.check_refused(listing.partition)
        except TooManyRefused as error:
            extract.mark_failed(listing.partition, str(error))
        changed = _count_changed(context, extract, listing, hidden)
        if changed:
            since = listing.newest.since.isoformat(timespec="seconds")
            why = (
                f"a list shows no record that changed before {since}, and left out {changed} that had changed: those"
                " were written, but it may have left out others that are new"
            )
            extract.stage.save_progress(cut={**extract.short_partitions, listing.partition: why})


def _hidden_keys(context: MirrorContext, extract: Extract, listing: Listing, oldest: str | None) -> list[tuple]:
    """Return keys of the copy's records that the list may have left out, those with the latest changes first.

    They belong on the list, but are not staged and changed no later than `oldest`, the oldest change that it showed.
    """
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
            limit=sql.Literal(MAX_LOOKS),
        )
    ).fetchall()


def _count_changed(context: MirrorContext, extract: Extract, listing: Listing, keys: Sequence[tuple]) -> int:
    """Return how many of these records are newer than in the copy and still belong on the list."""
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
