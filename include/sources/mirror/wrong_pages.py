"""Lists whose pages are not asked for as the API wants it: no answer says so, but the rows do."""

from psycopg import sql

from include.api.errors import ApiError, FixConfiguration
from include.api.fetch import page_request
from include.api.paginators import Page, Position
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered
from include.sources.mirror.extract import Extract
from include.sources.mirror.listing import Listing
from include.sources.mirror.partitions import all_listings, known_partitions
from include.warehouse.pull import PullError
from include.warehouse.sql_fragments import identifiers

# From this page on, and whenever their number has doubled, the different rows of all pages are counted.
FIRST_COUNT = 32
# How often each row may have come by then. Short lists are read up to eight times.
MANY_TIMES = 10


def refuse_circle(extract: Extract) -> None:
    """Raise PullError where the pages show the same rows again and again, as if the API ignored what they are asked by.

    The client notices it only if each page is the same in all fields.
    """
    pull = extract.stage.pull
    if pull.pages < FIRST_COUNT or pull.pages & (pull.pages - 1):
        return
    query = sql.SQL("SELECT count(*) FROM (SELECT DISTINCT {} FROM {}) k")
    different = query.format(identifiers(extract.entity.table.key), extract.stage.sql)
    (count,) = extract.stage.conn.execute(different).fetchone()
    if MANY_TIMES * count < pull.rows_read - pull.rows_refused:
        extract.drop()
        raise PullError(
            f"the list of {extract.entity.name} shows the same {count} rows again and again, on {pull.pages} pages so"
            " far: the API may ignore the parameter that its pages or parts are asked by. See what it is called"
        )


def require_declared_start(context: MirrorContext, extract: Extract) -> None:
    """Raise PullError where the API counts the pages or rows of a list otherwise than declared.

    Each reading would leave out the same rows. It is tried after the first load of a list that names no total, which
    would tell it.
    """
    entity, pull = extract.entity, extract.stage.pull
    told = pull.total_entries is not None or pull.total_pages is not None
    # Lists in brief, and those of parts, are several. A stage without its repeats has been compared already.
    if told or isinstance(entity, Discovered) or entity.partitions or "repeats" in extract.progress:
        return
    listing, *_ = all_listings(context, entity, known_partitions(context, entity))
    first = _first_page(extract)
    position = entity.paginator.overlapping(len(first))
    found = _page(context, listing, position) if position is not None else None
    if found is None or first & {entity.table.key_of(row) for row in found.rows}:
        return
    if found.rows or not entity.paginator.may_be_none(position):
        extract.drop()
        raise PullError(
            f"the list of {entity.name} shows other rows at {entity.paginator.param}={position} than on its first page,"
            " so the API counts otherwise than declared, and each reading would leave out rows: see whether it counts"
            " pages or rows, and from 0 or 1"
        )


def _first_page(extract: Extract) -> set[tuple]:
    """Return the keys of the rows on the list's first page."""
    query = sql.SQL("SELECT {} FROM {} WHERE _page = 1")
    key = identifiers(extract.entity.table.key)
    return set(extract.stage.conn.execute(query.format(key, extract.stage.sql)).fetchall())


def _page(context: MirrorContext, listing: Listing, position: Position) -> Page | None:
    """Return the page at a position; None if there is none, or no answer."""
    try:
        return listing.paginator.read(
            context.client.send(page_request(listing.request, listing.paginator, position)), position
        )
    except ApiError as error:
        if isinstance(error, FixConfiguration) and error.concerns_all:
            raise
        return None
