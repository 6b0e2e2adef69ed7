"""Reading lists without a filter for changes: from both ends, until a page has no recent change."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from include.api.fetch import page_request, pages, refuse_contradiction
from include.api.paginators import FRESH, Page
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity

# The least number of different values by which a list shows that it is sorted.
ENOUGH_TO_SORT = 5


class Unsorted(Exception):
    """The list may have recent changes anywhere: it is not sorted, or neither its order nor its total is known."""


def pages_from_both_ends(context: MirrorContext, entity: Entity, since: datetime) -> Iterator[Page]:
    """Yield pages from the first forwards, then from the last backwards. Stop each way at a page without changes.

    A change is a row that changed at `since` or later. Raises Unsorted where a page without changes doesn't tell that
    none follow: if the list is sorted neither by its key nor by time, or if its end is not known and it doesn't show
    the latest changes first.
    """
    moments: list[datetime] = []
    keys: list[tuple] = []
    for page in pages(context.client, entity.listing, entity.paginator):
        yield page
        of_page = _change_times(entity, page)
        moments += of_page
        keys += filter(None, map(entity.table.key_of, page.rows))
        if page.next is not None and max(of_page, default=since) < since:
            if not is_sorted(keys, moments, has_end=bool(page.total_pages)):
                raise Unsorted
            break
    if page.next is None:
        return
    for number in range(page.total_pages or 0, page.position, -1):
        page = _read_page(context, entity, number)
        yield page
        if max(_change_times(entity, page), default=since) < since:
            break


def is_sorted(keys: Sequence[tuple], moments: Sequence[datetime], *, has_end: bool = True) -> bool:
    """Return whether rows are sorted so that a page without changes tells that none follow, up to the other end.

    `has_end`: whether the list's other end can be asked for
    """
    return _falls(moments) or (has_end and any(map(_falls, (keys, keys[::-1], moments[::-1]))))


def _falls(values: Sequence) -> bool:
    """Return whether the values are sorted in falling order, and so many of them differ that this is no chance."""
    return len(set(values)) >= ENOUGH_TO_SORT and list(values) == sorted(values, reverse=True)


def _read_page(context: MirrorContext, entity: Entity, number: int) -> Page:
    """Return one page of the entity's list. A page that contradicts its own totals is requested once more.

    Raises RefuseData where it contradicts them again.
    """
    for _ in range(2):
        answer = context.client.send(page_request(entity.listing, entity.paginator, number))
        page = entity.paginator.read(answer, number)
        why = entity.paginator.contradiction(page, FRESH)
        if not why:
            return page
    refuse_contradiction(f"{context.client.name}: {entity.listing}, page {number}", why)


def _change_times(entity: Entity, page: Page) -> list[datetime]:
    """Return when the page's rows last changed, without times that can't be read."""
    times = (entity.table.named(row, [entity.table.moment])[0] for row in page.rows)
    return [moment for moment in times if moment]
