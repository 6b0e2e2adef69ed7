"""Lists that show fewer rows than they claim: they are read again, as long as that brings more."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from psycopg import sql

from include.api.errors import ApiError
from include.api.fetch import page_request
from include.api.paginators import Page
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered
from include.sources.mirror.extract import Extract, least_total
from include.sources.mirror.listing import Listing
from include.warehouse.sql_fragments import identifiers

log = logging.getLogger(__name__)

# The largest number of readings of a list that shows fewer rows than its total claims.
MAX_READINGS = 8
# The same for a list in brief.
BRIEF_READINGS = 3


def read_again_if_short(
    context: MirrorContext, extract: Extract, listings: Sequence[Listing], number: int, stage: Callable[[Page], None]
) -> None:
    """Let the list be read again if it shows fewer rows than its total claims.

    - A scan reads it again only if that takes fewer requests than looking up the missing rows.
    - A sync whose list stays short marks the partition as short: the copy may lack the rows that were left out.
    - A sync also reads a list again that became shorter while it was read: a row may have moved to a page that was read
      before, so that no page showed it.

    `stage`: stores what is new on a page of the list that was read after its end; the resume point stays.
    """
    if isinstance(extract.entity, Discovered):
        _read_brief_again_if_short(extract, listings[number], number)
        return
    # Totals of events don't count records.
    if listings[number].deleted:
        return
    uncounted = listings[number].paginator.by_place and not extract.list_state(number)["counted"]
    unsorted = uncounted and _expect_displaced(extract, number)
    # Counted once, since that takes long in a long list.
    shown = _rows_shown(extract, number)
    if not unsorted and _shortage(extract, number, shown):
        _refresh_total(context, extract, listings[number], number, stage)
        shown = _rows_shown(extract, number)
    # All or nothing, or a later attempt would take the list for checked.
    with context.conn.transaction():
        _save_unseen(extract, number, shown)
        _judge_shortage(extract, listings[number], number, shown, unsorted=unsorted)


def _read_brief_again_if_short(extract: Extract, listing: Listing, number: int) -> None:
    """Let a list in brief be read again if its pages have fewer different rows than its total claims.

    Its records come and go while it is read, so each reading counts by itself. What stays short is unseen, and marks
    the partition of a sync as short.

    A sync does not mark a list with a limit that reaches back far enough: its total may count what is beyond the limit.
    Nothing is lost by that. Such a list has no filter for changes, so a sync reads a record that was left out as soon
    as the list shows it. Scans count what the list never shows as unseen.
    """
    state = extract.list_state(number)
    readings, promised = state.get("readings", 1), state.get("promised") or 0
    shortage = promised - state.get("shown", 0)
    if shortage <= 0 or (listing.newest and state["reached"]):
        return
    if readings < BRIEF_READINGS:
        _reopen_list(extract, number, readings=readings + 1, shortage=shortage, promised=None, shown=0, names=[])
        return
    extract.save_list_state(number, unseen=shortage, shrunk=0)
    if extract.stage.pull.purpose == "sync":
        _mark_short(extract, listing, f"says that it has {promised} rows", shortage, readings)


def _mark_short(extract: Extract, listing: Listing, whole: str, shortage: int, readings: int) -> None:
    why = (
        f"a list of {extract.entity.name} {whole}, and {shortage} of them were not shown in {readings} readings: they"
        " may be missing in the copy. Run the task again; if it stays so, ask the API's vendor. The nightly scan counts"
        " them as unproven until the list shows as many as it says"
    )
    extract.stage.save_progress(cut={**extract.short_partitions, listing.partition: why})


def _judge_shortage(extract: Extract, listing: Listing, number: int, shown: int, *, unsorted: bool) -> None:
    """Let a list be read again, or mark its partition as short, as `read_again_if_short` says."""
    shortage, state = _shortage(extract, number, shown), extract.list_state(number)
    readings, before = state.get("readings", 1), state.get("shortage")
    is_sync = extract.stage.pull.purpose == "sync"
    if is_sync and readings == 1 and not shortage and state["unseen"] and listing.paginator.by_place:
        log.info("%s: a list became shorter while it was read, so it is read again", extract.entity.name)
        _reopen_list(extract, number, readings=2, shortage=None)
        return
    if not shortage or not (is_sync or shortage > (extract.stage.pull.total_pages or 1)):
        return
    # Each reading of an unsorted list shows other rows, by chance none that are new.
    if readings < MAX_READINGS and (unsorted or before is None or shortage < before):
        log.warning("%s: a list shows %d rows less than it says, it is read again", extract.entity.name, shortage)
        _reopen_list(extract, number, readings=readings + 1, shortage=shortage)
    elif is_sync:
        whole = "whose pages overlap has room for" if state.get("overlaps") else "says that it has"
        _mark_short(extract, listing, f"{whole} {state['promised']} rows", shortage, readings)


def _reopen_list(extract: Extract, number: int, *, readings: int, shortage: int | None, **state: Any) -> None:
    """Let a list be read from its first page again, with this `state`.

    `readings`: with the new one. `shortage`: that of the last one.
    """
    # The figures of the last reading don't hold for the new one.
    extract.reset_counts(number, readings=readings, shortage=shortage, shrunk_to=None, unseen=None, **state)
    for stage in extract.stages:
        stage.reopen((number, None))


def _refresh_total(
    context: MirrorContext, extract: Extract, listing: Listing, number: int, stage: Callable[[Page], None]
) -> None:
    """Request the first page again, and keep its total: as `shrunk_to` if it is smaller than those before.

    The list may have become shorter while it was read. A scan believes that only of rows which a second look proves
    deleted. A larger total counts as the list's. A row that no page has shown yet is staged: it may have moved there.
    """
    paginator, state = listing.paginator, extract.list_state(number)
    try:
        page = paginator.read(
            context.client.send(page_request(listing.request, paginator, paginator.start)), paginator.start
        )
        total = least_total(page, state["largest"])
        stage(page)
    except ApiError as error:
        log.warning("%s The list of %s counts as short, since nobody knows its total", error, extract.entity.name)
        return
    if total is not None:
        name = "shrunk_to" if total < state["promised"] else "promised"
        extract.save_list_state(number, **{name: total})


def _shortage(extract: Extract, number: int, shown: int) -> int:
    """Return how many rows are missing to the last total that the list claimed. `shown`: see `_rows_shown`."""
    state = extract.list_state(number)
    promised = state.get("shrunk_to") or state.get("promised") or 0
    return max(0, promised - shown)


def _expect_displaced(extract: Extract, number: int) -> bool:
    """Let a list without a number of rows promise as many as it has shown, if repeats took the place of others.

    A list is cut into pages by place. If others are inserted before them, the last rows of a page come again as the
    first rows of the next. Any other repeat has taken the place of a row that no page shows. Pages without a new
    row don't count: some servers show a page again past the end of the list. Return whether there are such repeats.
    """
    state = extract.list_state(number)
    query = sql.SQL(SHOWN).format(key=identifiers(extract.entity.table.key), stage=extract.stage.sql)
    shown, displaced = extract.stage.conn.execute(query, [state["reading_from"]]).fetchone()
    if displaced:
        least = shown + state["counts"][0][1]
        extract.save_list_state(number, promised=max(state["promised"] or 0, least), overlaps=True)
    return bool(displaced)


def _save_unseen(extract: Extract, number: int, shown: int) -> None:
    """Store how many rows a list lacks of its largest claimed total, once it is read to its end.

    `shrunk`: how many of them, at most, may have been deleted while it was read. `shown`: see `_rows_shown`.
    """
    state = extract.list_state(number)
    promised = state.get("promised") or 0
    shrunk = promised - (state.get("shrunk_to") or promised)
    extract.save_list_state(number, unseen=max(0, promised - shown), shrunk=shrunk)


def _rows_shown(extract: Extract, number: int) -> int:
    """Return how many different rows the list has shown; 0 if it claims no total. Refused rows count as shown."""
    state = extract.list_state(number)
    if not state or not state["promised"]:
        return 0
    key = identifiers(extract.entity.table.key)
    query = sql.SQL("SELECT count(*) FROM (SELECT DISTINCT {key} FROM {stage} WHERE _page >= %s) s").format(
        key=key, stage=extract.stage.sql
    )
    (shown,) = extract.stage.conn.execute(query, [state["first_page"]]).fetchone()
    _, refused = state["counts"][0]
    return shown + refused


# A row that comes twice on one page takes no place on another.
SHOWN = """
WITH listed AS (
  SELECT _page, _place, lag(_page) OVER earlier AS from_page, lag(_place) OVER earlier AS from_place
  FROM {stage} WHERE _page >= %s WINDOW earlier AS (PARTITION BY {key} ORDER BY _page, _place)
), paged AS (
  SELECT _page, count(*) AS shown, count(from_page) AS repeats,
    max(_place) FILTER (WHERE from_page IS NOT NULL) AS last, min(from_page) AS from_page,
    min(from_place - _place) AS least, max(from_place - _place) AS most,
    lag(max(_place)) OVER (ORDER BY _page) AS last_before
  FROM listed WHERE from_page IS DISTINCT FROM _page GROUP BY _page
)
SELECT sum(shown)::bigint, bool_or(repeats > 0 AND NOT (
  from_page = _page - 1 AND last = repeats - 1 AND least = most AND least = last_before - last))
FROM paged WHERE repeats < shown
"""
