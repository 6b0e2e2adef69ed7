"""Square's catalog and its counts: lists since a time, and tombstones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from include.api.list_answers import optional_rows
from include.api.paginators import FRESH, Crawl, Cursor, Page, Position
from include.api.request import Answer, Request
from include.confidence.policy import Trend
from include.sources.base import LeftOut
from include.sources.mirror.changes import Since
from include.sources.mirror.entity import Cascade, Implies, Listed, Part
from include.sources.mirror.lookup_request import Lookup
from include.sources.square import tables
from include.sources.square.answers import all_are, all_of, requires
from include.sources.square.requests import Record, inside, own, post
from include.warehouse.table import Table

DELETED = LeftOut({"deleted objects": "include_deleted_objects"})


def _catalog(table: Table, kind: str, *, leaves_out: LeftOut = DELETED, **more: Any) -> Listed:
    listing = {"object_types": [kind], "include_deleted_objects": True, "limit": 1000}
    of_kind = all_are("objects", "type", [kind])
    return Listed(
        table=table,
        listing=post("/v2/catalog/search", listing, all_of(of_kind, requires("latest_time"))),
        paginator=Cursor(rows="objects", in_body=True, optional=True, as_of="latest_time"),
        lookup=Lookup(
            request=lambda ids: post(
                "/v2/catalog/batch-retrieve",
                {"object_ids": [id_ for (id_,) in ids], "include_deleted_objects": True},
                of_kind,
            ),
            rows=lambda data: optional_rows(data, "objects"),
            own=False,
            batch=1000,
            witness=replace(CATALOG_OBJECT, rows=_alive),
        ),
        changes=Since("begin_time", in_body=True),
        leaves_out=leaves_out,
        **more,
    )


CATALOG_OBJECT = own("/v2/catalog/object", "object")


def _alive(data: Record) -> list[Record]:
    """Return [the object] of an answer at its own address, [] for a tombstone."""
    return [] if data["object"].get("is_deleted") else [data["object"]]


def _vendor_infos(variation: Record) -> list[Record]:
    """Return the vendor infos of a variation, none if it is deleted, even if its tombstone still shows them."""
    data = variation.get("item_variation_data")
    # If the data are no object, the variation's own row is refused.
    if variation.get("is_deleted") or not isinstance(data, dict):
        return []
    return inside(data, "item_variation_vendor_infos", "variation_id", variation.get("id"))


COUNTS = Cursor(rows="counts", in_body=True, optional=True)


@dataclass(frozen=True)
class CountsLikeListed(Cursor):
    """The pages of an address that shows all counts of a variation, without those that the lists leave out.

    The lists leave out counts that Square estimates from components, and the counts in other states than `states` if
    it names any.
    """

    states: Sequence[str] = ()

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        page = super().read(answer, position, crawl)
        return replace(page, rows=[count for count in page.rows if self._is_listed(count)])

    def _is_listed(self, count: Record) -> bool:
        return not count.get("is_estimated") and (not self.states or count.get("state") in self.states)


ESTIMATED = {"counts that are estimated from components": "they follow from the counts of the components"}


def _counts(table: Table, by: str, states: Sequence[str], **more: Any) -> Listed:
    """Return the entity for counts in these states, in all states if none are named."""
    path, body = "/v2/inventory/counts/batch-retrieve", {"limit": 1000, **({"states": states} if states else {})}
    in_states = all_are("counts", "state", states) if states else None

    return Listed(
        table=table,
        listing=post(path, body, in_states),
        paginator=COUNTS,
        lookup=Lookup(
            by=(by,),
            request=lambda ids: post(path, {**body, "catalog_object_ids": [id_ for (id_,) in ids]}, in_states),
            rows=lambda data: optional_rows(data, "counts", ["cursor"]),
            own=False,
            batch=100,
            paginator=COUNTS,
            witness=Lookup(
                by=(by,),
                request=lambda id_: Request(f"/v2/inventory/{quote(id_, safe='')}"),
                rows=lambda data: optional_rows(data, "counts", ["cursor"]),
                paginator=CountsLikeListed(rows="counts", optional=True, states=tuple(states)),
            ),
        ),
        changes=Since("updated_after", in_body=True),
        **more,
    )


CATALOG = (
    _catalog(
        tables.CATALOG_CATEGORIES,
        "CATEGORY",
        leaves_out=LeftOut(
            DELETED.asked_for,
            {
                "a category's `path_to_root`": "the vendor refuses to show it together with deleted objects;"
                " `parent_category_id` leads along the same path"
            },
        ),
    ),
    _catalog(tables.CATALOG_ITEMS, "ITEM"),
    _catalog(
        tables.CATALOG_VARIATIONS,
        "ITEM_VARIATION",
        parts=(Part(tables.CATALOG_VENDOR_INFO, _vendor_infos, by=("variation_id",)),),
        # The tombstone of an item is not always followed by those of its variations, but deletes them too.
        cascade=Cascade(
            "t.is_deleted IS NOT TRUE AND t.item_id IN"
            " (SELECT id FROM square.catalog_items WHERE is_deleted OR deleted_at IS NOT NULL)",
            entity="catalog_items",
            by=("item_id",),
            alive=lambda item: not item.get("is_deleted"),
        ),
    ),
    _counts(
        tables.CATALOG_INVENTORY,
        "variation_id",
        ["IN_STOCK"],
        implies=(Implies("locations", ("location_id",)),),
        leaves_out=LeftOut(missing={"counts in other states": "they are rows of inventory_counts", **ESTIMATED}),
    ),
    # The list shows only the newest counts. Older ones in the copy are history, and never surplus.
    _counts(
        tables.INVENTORY_COUNTS,
        "catalog_object_id",
        [],
        history=True,
        ended="t.catalog_object_id IN (SELECT id FROM square.catalog_variations"
        " WHERE is_deleted OR deleted_at IS NOT NULL)",
        implies=(
            Implies("catalog_inventory", ("catalog_object_id", "location_id"), "t.state = 'IN_STOCK'"),
            Implies("locations", ("location_id",)),
        ),
        leaves_out=LeftOut(
            missing={"older counts": "the list shows the newest ones; the copy keeps what it has seen", **ESTIMATED}
        ),
        gates=(Trend("api_unique_not_in_db"), Trend("rows_differing")),
    ),
)
