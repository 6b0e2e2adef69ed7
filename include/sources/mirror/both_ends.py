"""Lists without a filter for changes, read from both ends until a page holds nothing young."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from include.api.fetch import page_request, pages, refuse_contradiction
from include.api.paginators import FRESH, Page
from include.sources.mirror.entity import Context, Entity
from include.sources.mirror.extract import Extract
from include.warehouse import compare
from include.warehouse.staging import PullError


def from_both_ends(context: Context, entity: Entity, since: datetime) -> Iterator[Page]:
    """Pages from the first on, then from the last back, each way until a page holds nothing young.

    Without a usable total there is no last page to begin at: then the list is read on to its end, unless it is in
    falling order of its versions, in which all that follows is older.
    """
    seen: list[datetime] = []
    for page in pages(context.client, entity.listing, entity.paginator):
        yield page
        moments = _times(entity, page)
        seen += moments
        if max(moments, default=since) < since and (page.total_pages or seen == sorted(seen, reverse=True)):
            break
    for number in range(page.total_pages or 0, page.position, -1):
        page = _page(context, entity, number)
        yield page
        if max(_times(entity, page), default=since) < since:
            break


def require_rows(extract: Extract) -> None:
    """Raises PullError where a list of everything shows nothing, though the copy has rows: so it tells nothing."""
    name, rows = extract.entity.name, compare.live_rows(extract.stage)
    if rows and not extract.stage.pull.rows_read:
        raise PullError(
            f"the list of {name} shows nothing, and the copy has {rows} rows. Run the task again; if it stays so, look"
            " at the list at the source"
        )


def _page(context: Context, entity: Entity, number: int) -> Page:
    """One page of the entity's list, which has to fit its own totals; it may be asked for twice for that."""
    for _ in range(2):
        answer = context.client.send(page_request(entity.listing, entity.paginator, number))
        page = entity.paginator.read(answer, number)
        why = entity.paginator.contradiction(page, FRESH)
        if not why:
            return page
    refuse_contradiction(f"{context.client.name}: {entity.listing}, page {number}", why)


def _times(entity: Entity, page: Page) -> list[datetime]:
    """When the page's rows last changed, as far as that can be read."""
    column = next(column for column in entity.table.columns if column.name == entity.table.moment)
    return [moment for row in page.rows if (moment := _time(column, row))]


def _time(column: Any, row: Mapping[str, Any]) -> datetime | None:
    try:
        return column.read(row.get(column.field or column.name))
    except ValueError:
        return None
