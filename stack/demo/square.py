"""Square's scenario: a seller mirrored in the warehouse. A sync brings what changed, a repair what no sync sees."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any

from psycopg import sql

from include.simulators.square import Control, Mutation
from stack.control import Stack
from stack.demo.steps import Demo, expect, some

SCHEMA = "square"
ENTITIES = (
    *("locations", "vendors", "catalog_categories", "catalog_items", "catalog_variations"),
    *("catalog_inventory", "inventory_counts", "orders", "payments", "order_refunds"),
)
# The seller's kinds of rows that are tables as they are; counts are two.
KINDS = {
    "locations": "locations",
    "vendors": "vendors",
    "catalog_categories": "categories",
    "catalog_items": "items",
    "catalog_variations": "variations",
    "orders": "orders",
    "payments": "payments",
    "order_refunds": "refunds",
}
# What lies inside an order, and with the order's id says which one it is.
PARTS = {"order_line_items": "line_items", "order_fulfillments": "fulfillments", "order_returns": "returns"}
# What names a row, where it is not `id`. The history has a row for each change of a count: here it is the count.
KEYS = {
    "catalog_inventory": ("variation_id", "location_id"),
    "inventory_counts": ("catalog_object_id", "location_id", "state"),
    "order_line_items": ("order_id", "uid"),
    "order_fulfillments": ("order_id", "uid"),
    "order_returns": ("order_id", "uid"),
    "catalog_location_availability": ("item_id", "location_id"),
    "square_sales": ("order_id",),
    "square_item_library_export": ("token",),
}
# Mirrored, then computed.
TABLES = (
    *("locations", "vendors", "catalog_categories", "catalog_items", "catalog_variations", "catalog_vendor_info"),
    *("catalog_inventory", "inventory_counts", "orders", *PARTS, "tenders", "transactions", "payments"),
    *("order_refunds", "catalog_location_availability", "square_sales", "square_item_library_export"),
)
# Here a deleted row is a tombstone of the vendor's.
WITH_TOMBSTONES = ("catalog_categories", "catalog_items", "catalog_variations")

# A till without a network sends its sales up to 72 hours late.
OFFLINE = timedelta(hours=70)
# The source's clock has whole seconds: what changed in the present one lies behind a window's end.
NEXT_SECOND = 1.1
# Small enough to pass the gate: a metric may rise by 25 rows, a repair may always change 20.
REPRICED, EDITED_LINES, LOST_ORDERS, EDITED_PAYMENTS, EDITED_COUNTS = 2, 4, 3, 2, 2
SHOWN_GOODS = 4
WRITTEN = ("inserted", "updated", "deleted")
DRIFT = ("api_unique_not_in_db", "db_not_in_api_unique", "rows_differing")

Row = Mapping[str, Any]
Key = tuple[str, ...]
Rows = Mapping[str, Mapping[Key, Any]]


@dataclass(frozen=True)
class Till(Demo):
    """The stack with the seller; the copy is the warehouse."""

    seller: Control

    def rows_at_source(self) -> Rows:
        """By table and key, what the seller has; of computed tables what they are computed from."""
        of_kind = {table: self._rows(kind) for table, kind in KINDS.items()}
        counts = {tuple(id_.split(":")): self.seller.row("counts", id_) for id_ in self.seller.ids("counts")}
        orders, variations = of_kind["orders"], of_kind["catalog_variations"]
        parts = {
            table: {(order["id"], part["uid"]): part for order in orders for part in order.get(name, ())}
            for table, name in PARTS.items()
        }
        rows = {table: _by_id(found) for table, found in of_kind.items()} | parts
        rows |= {
            "catalog_vendor_info": _by_id(info for variation in variations for info in _vendor_infos(variation)),
            "catalog_inventory": {key[:2]: row for key, row in counts.items() if key[2] == "IN_STOCK"},
            "inventory_counts": counts,
            "tenders": _by_id(tender for order in orders for tender in order.get("tenders", ())),
            "transactions": {(order["id"],): order["created_at"] for order in orders},
        }
        return rows | _computed(rows)

    def keys_in_copy(self) -> Mapping[str, set[Key]]:
        """By table, the rows that are no tombstones, ours or the vendor's."""
        return {table: self._live(table) for table in TABLES}

    def written_since(self, sync_id: int) -> Mapping[str, set[Key]]:
        """By table, the rows that later syncs have changed."""
        found = self.warehouse.execute(
            "SELECT DISTINCT split_part(table_name, '.', 2), key FROM confidence.change_log"
            " WHERE sync_id > %s AND table_name LIKE %s",
            [sync_id, f"{SCHEMA}.%"],
        )
        written: dict[str, set[Key]] = {}
        for table, key in found:
            written.setdefault(table, set()).add(tuple(key[name] for name in _key(table)))
        return written

    def pick(self, table: str, number: int, condition: str = "true") -> list[Key]:
        """Live rows of the copy by chance, of those that meet an SQL condition."""
        query = sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL AND {} ORDER BY random() LIMIT {}").format(
            _names(table), sql.Identifier(SCHEMA, table), sql.SQL(condition), number
        )
        keys = self.warehouse.execute(query).fetchall()
        expect(f"{table} to choose from", len(keys), number)
        return keys

    def _rows(self, kind: str) -> list[Row]:
        return [self.seller.row(kind, id_) for id_ in self.seller.ids(kind)]

    def _live(self, table: str) -> set[Key]:
        standing = sql.SQL("AND is_deleted IS NOT TRUE" if table in WITH_TOMBSTONES else "")
        query = sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL {}")
        return set(self.warehouse.execute(query.format(_names(table), sql.Identifier(SCHEMA, table), standing)))


@dataclass(frozen=True)
class Asked:
    """What a sync cost: requests by what was asked for, as the seller counts them, and the rows in the answers.

    `syncs` is more than one where the schedule's own came between.
    """

    requests: Mapping[str, int]
    rows: int
    syncs: int

    @property
    def total(self) -> int:
        return sum(self.requests.values())

    @property
    def looks(self) -> int:
        """Second looks at what has changed without a newer time, or seems to have gone from inside a record."""
        narrow = ("/{id}", " catalog/batch-retrieve", " orders/batch-retrieve")
        return sum(count for name, count in self.requests.items() if name.endswith(narrow))


@dataclass(frozen=True)
class Drift:
    """What was broken on purpose, unseen by any sync, each row by its key.

    In the copy `lost` orders were deleted with all their parts, `edited` lines, `payments` and `counts` changed by
    hand. At the source `repriced` variations have another price and one order lacks the line `removed`, while their
    versions stayed; the payment `gone` left no trace.
    """

    lost: Sequence[Key]
    parts: Mapping[str, int]
    edited: Sequence[Key]
    payments: Sequence[Key]
    counts: Sequence[Key]
    repriced: Sequence[Key]
    removed: Key
    gone: Key

    @property
    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """The metrics that a scan should find, by entity."""
        return {
            "catalog_variations": {"rows_differing": len(self.repriced)},
            "catalog_inventory": {"rows_differing": len(self.counts)},
            "orders": {
                "api_unique_not_in_db": len(self.lost),
                **{f"{table}_missing": number for table, number in self.parts.items() if number},
                "order_line_items_differing": len(self.edited),
                "order_line_items_surplus": 1,
            },
            "payments": {"rows_differing": len(self.payments), "db_not_in_api_unique": 1},
        }

    @property
    def repair(self) -> Mapping[str, tuple[int, int, int]]:
        """What a repair has to insert, update and delete, by table."""
        parts = {table: (number, 0, 0) for table, number in self.parts.items() if number}
        lines = (self.parts["order_line_items"], len(self.edited), 1)
        return parts | {
            "catalog_variations": (0, len(self.repriced), 0),
            "catalog_inventory": (0, len(self.counts), 0),
            "orders": (len(self.lost), 0, 0),
            "order_line_items": lines,
            "payments": (0, len(self.payments), 1),
        }


def play(demo: Demo, stack: Stack) -> None:
    """Play the scenario, step by step. Raises Unexpected at the first outcome that is not as it should be."""
    till = Till(**vars(demo), seller=Control(stack.simulator_urls[demo.source]))
    begin(till)
    before, foundation = load(till)
    sync_changes(till, before, foundation)
    drift = break_silently(till)
    scan(till, drift)
    repair(till, drift)
    scan_again(till)
    show_computed(till)


def begin(demo: Till) -> None:
    """Let scheduled runs end and answer what an earlier demo left open, so that nothing else is running."""
    demo.screen.rule("Square 1  Start with nothing running")
    demo.seller.clear()
    demo.end_questions()
    if demo.writer()[0] == "stopped":
        demo.say("An earlier run left the writer stopped: looking again, and repairing.")
        demo.repair_whatever_is_found()
    demo.end_syncs()


def load(demo: Till) -> tuple[Rows, Asked]:
    """Fill the copy, and count it against the source. Returns the source's rows, and what the load cost."""
    demo.screen.rule("Square 2  Foundation: every list from its start")
    asked = _sync(demo, mode="foundation")
    source, copy = demo.rows_at_source(), demo.keys_in_copy()
    if differing(source, copy):
        demo.say("The copy holds rows that the source has lost since an earlier demo: repairing.")
        demo.repair_whatever_is_found()
        copy = demo.keys_in_copy()
    rows = [(table, len(source[table]), len(copy[table])) for table in TABLES]
    demo.show(("table", "at the source", "in the copy"), rows)
    expect("tables whose rows differ", differing(source, copy), [])
    return source, asked


def sync_changes(demo: Till, before: Rows, foundation: Asked) -> None:
    """Changes of many kinds: the next sync brings each of them, and changes nothing else."""
    demo.screen.rule("Square 3  A busy moment, and an incremental sync")
    last = demo.last_sync_id()
    demo.show(("at Square", "which"), change(demo.seller))
    after = demo.rows_at_source()
    changed = changes(before, after)
    time.sleep(NEXT_SECOND)
    asked = _sync(demo, mode="incremental")
    written = demo.written_since(last)
    rows = [(table, len(changed[table]), len(written.get(table, ()))) for table in TABLES if table in changed]
    demo.show(("table", "rows changed at the source", "rows changed by the sync"), rows)
    expect("the rows changed by the sync", written, changed)
    expect("tables whose rows differ", differing(after, demo.keys_in_copy()), [])
    _show_cost(demo, foundation, asked)
    demo.say(
        "A page holds up to 1,000 orders, so each list of this small seller is one page. The requests of an incremental"
        " sync grow with the locations and with what changed, not with what is there."
    )
    fewest = asked.syncs * incremental_requests(len(after["locations"]))
    expect("requests of the incremental sync without its second looks", asked.total - asked.looks, fewest)
    expect("whether its second looks were few", asked.looks <= len(written), True)
    expect("whether it read less than the first one", asked.rows < foundation.rows, True)


def incremental_requests(locations: int) -> int:
    """The fewest that an incremental sync can do with, as long as the changes of each list fit on a page."""
    # Locations, which orders and payments ask for by themselves, the clock, vendors, three kinds of goods, counts as
    # stock and as history.
    once = 10
    # By time of change, and by creation for what comes late: refunds, orders of ten locations, two lists of payments of
    # each.
    return once + 2 * (1 + ceil(locations / 10) + 2 * locations)


def break_silently(demo: Till) -> Drift:
    """Drift on both sides that no sync can see."""
    demo.screen.rule("Square 4  Drift: what no sync can see")
    drift = drift_silently(demo)
    rows = [
        ("the copy", "orders deleted with all their parts", len(drift.lost), _ids(drift.lost)),
        ("the copy", "lines edited by hand", len(drift.edited), _ids(drift.edited)),
        ("the copy", "payments edited by hand", len(drift.payments), _ids(drift.payments)),
        ("the copy", "stock edited by hand", len(drift.counts), _ids(drift.counts)),
        ("the source", "prices changed, versions kept", len(drift.repriced), _ids(drift.repriced)),
        ("the source", "a line removed, its order's version kept", 1, _ids([drift.removed])),
        ("the source", "a payment gone without a trace", 1, _ids([drift.gone])),
    ]
    demo.show(("where", "what", "rows", "which"), rows)
    return drift


def scan(demo: Till, drift: Drift) -> None:
    """A forensic run: every kind of drift is found, to the row, and nothing is written."""
    demo.screen.rule("Square 5  A forensic run: find it, judge it, write nothing")
    last = demo.last_sync_id()
    run_id = demo.run(demo.reconcile, dry_run=True)
    found = demo.summaries(run_id)
    rows = [
        (entity, name, found[entity][0]["metrics"][name], found[entity][1])
        for entity, figures in drift.figures.items()
        for name in figures
    ]
    demo.show(("entity", "figure", "rows", "verdict"), rows)
    expect("entities scanned", sorted(found), sorted(ENTITIES))
    for entity, (summary, verdict, _) in found.items():
        metrics = summary["metrics"]
        expected = dict.fromkeys(DRIFT, 0) | drift.figures.get(entity, {})
        expect(f"the metrics of {entity}", {name: metrics[name] or 0 for name in expected}, expected)
        expect(f"the verdict of {entity}", verdict, "pass")
    expect("rows changed by a dry run", demo.written_since(last), {})
    demo.expect_skipped(run_id, "decide", "verify")


def repair(demo: Till, drift: Drift) -> None:
    """The same run with dry_run off: the plan is applied under a sync_id and verified."""
    demo.screen.rule("Square 6  Repair: the same run with dry_run off")
    run_id = demo.run(demo.reconcile, dry_run=False)
    repaired = demo.airflow.xcom(demo.reconcile, run_id, "reconcile")
    counts = {table: tuple(n[name] for name in WRITTEN) for table, n in repaired["counts"].items()}
    rows = [(table, *numbers) for table, numbers in counts.items() if any(numbers)]
    demo.show((f"repaired as sync_id {repaired['sync_id']}", *WRITTEN), rows)
    mirrored = {table: counts.get(table) for table in drift.repair}
    expect("the repair", mirrored, drift.repair)
    checks = demo.airflow.xcom(demo.reconcile, run_id, "verify")
    expect("changes of the plan that are still open", sum(c["after"] for c in checks if "open" in c["figure"]), 0)
    expect("tables whose rows differ", differing(demo.rows_at_source(), demo.keys_in_copy()), [])


def scan_again(demo: Till) -> None:
    """A second run finds nothing, and skips what it has no need of."""
    demo.screen.rule("Square 7  A clean second run")
    run_id = demo.run(demo.reconcile, dry_run=True)
    found = demo.summaries(run_id)
    rows = [
        (entity, *(found[entity][0]["metrics"][name] or 0 for name in DRIFT), found[entity][1]) for entity in ENTITIES
    ]
    demo.show(("entity", *DRIFT, "verdict"), rows)
    expect("drift", {figure for row in rows for figure in row[1:-1]}, {0})
    expect("verdicts", {row[-1] for row in rows}, {"pass"})
    demo.expect_skipped(run_id, "decide", "reconcile", "verify")
    demo.expect_writer_runs()


def show_computed(demo: Till) -> None:
    """The tables that every sync brings in line with the others."""
    demo.screen.rule("Square 8  What is computed: sales, availability, the item library")
    source = demo.rows_at_source()
    sales = demo.warehouse.execute(
        "SELECT l.name, count(*), sum(s.amount)::bigint FROM square.square_sales s"
        " JOIN square.locations l ON l.id = s.location_id WHERE s.deleted_at IS NULL GROUP BY l.id ORDER BY 3 DESC"
    ).fetchall()
    demo.show(("square_sales by location", "sales", "cents"), sales)
    demo.say("Drafts, open and canceled orders and returns are no sales.")
    amounts = [order["total_money"]["amount"] for order in source["square_sales"].values()]
    found = tuple(sum(row[place] for row in sales) for place in (1, 2))
    expect("number and cents of the sales", found, (len(amounts), sum(amounts)))
    goods = demo.warehouse.execute(
        "SELECT e.item_name, e.variation_name, e.price, e.currency, (SELECT count(*)"
        " FROM square.catalog_location_availability a WHERE a.item_id = e.item_id AND a.deleted_at IS NULL),"
        " (SELECT sum((place ->> 'current_quantity')::numeric) FROM jsonb_path_query(e.locations, '$.*') place)"
        " FROM square.square_item_library_export e WHERE e.deleted_at IS NULL ORDER BY e.item_name, e.token"
    ).fetchall()
    columns = ("square_item_library_export", "variation", "cents", "currency", "sold at locations", "in stock")
    demo.show(columns, ((*row[:-1], row[-1] or "") for row in goods[:SHOWN_GOODS]))
    expect("the item library", Counter(goods), Counter(_goods(source)))


def change(seller: Control) -> list[tuple[str, str]]:
    """Let the seller have a busy moment; returns what happened, and to what."""
    renamed, deleted = seller.ids("items")[:2]
    (new,) = seller.mutate(Mutation("create", "items"))
    created = (datetime.fromisoformat(seller.now()) - OFFLINE).astimezone(UTC).isoformat()
    offline = dict.fromkeys(("created_at", "updated_at", "closed_at"), created)
    payment = next(id_ for id_ in seller.ids("payments") if _refundable(seller.row("payments", id_)))
    count, quantity = _stock(seller, not_of=deleted)
    of_new = {"item_id": new, "name": "Regular"}
    sale, late, refund, *_ = seller.mutate(
        Mutation("create", "orders"),
        Mutation("create", "orders", fields=offline),
        Mutation("refund", "payments", payment),
        Mutation("create", "variations", fields=of_new),
        Mutation("update", "items", renamed, {"name": f"Renamed at {seller.now()}"}),
        Mutation("delete", "items", deleted),
        Mutation("update", "counts", count, {"quantity": quantity}),
    )
    return [
        ("a sale", sale),
        (f"a sale of {OFFLINE.total_seconds() / 3600:.0f} hours ago, by a till that was offline", late),
        (f"a refund of payment {payment}", refund),
        ("an item is new", new),
        ("an item is renamed", renamed),
        ("an item is deleted", deleted),
        (f"a count finds {quantity} in stock", count),
    ]


def changes(before: Rows, after: Rows) -> Mapping[str, set[Key]]:
    """By table, the keys of the rows that differ, came or went; no table without any."""
    missing = object()
    changed = {
        table: {
            key
            for key in before[table].keys() | after[table].keys()
            if before[table].get(key, missing) != after[table].get(key, missing)
        }
        for table in TABLES
    }
    return {table: keys for table, keys in changed.items() if keys}


def differing(source: Rows, copy: Mapping[str, set[Key]]) -> list[str]:
    return [table for table in TABLES if source[table].keys() != copy[table]]


def drift_silently(demo: Till) -> Drift:
    """Break source and copy in rows that are chosen again each time."""
    long_ago = "updated_at < now() - interval '30 days'"
    # Of more than one line, so that one can go, and the rest be edited.
    several = (
        "id IN (SELECT order_id FROM square.order_line_items WHERE deleted_at IS NULL GROUP BY 1 HAVING count(*) > 1)"
    )
    orders = demo.pick("orders", LOST_ORDERS + EDITED_LINES + 1, f"{long_ago} AND {several}")
    lost, edited, ((shortened,), *_) = orders[:LOST_ORDERS], orders[LOST_ORDERS:-1], orders[-1:]
    payments = demo.pick("payments", EDITED_PAYMENTS + 1, long_ago)
    counts = demo.pick("catalog_inventory", EDITED_COUNTS)
    repriced = demo.pick("catalog_variations", REPRICED, "is_deleted IS NOT TRUE AND price_money IS NOT NULL")
    # The last one goes, as the lines behind it would change their places.
    lines = demo.seller.row("orders", shortened)["line_items"]
    parts, edited = _damage(demo, lost, edited, payments[:-1], counts)
    demo.seller.mutate(
        Mutation("update", "orders", shortened, {"line_items": lines[:-1]}, silent=True),
        *(_repriced(demo.seller.row("variations", id_)) for (id_,) in repriced),
        Mutation("delete", "payments", payments[-1][0], silent=True),
    )
    removed = (shortened, lines[-1]["uid"])
    return Drift(lost, parts, edited, payments[:-1], counts, repriced, removed, payments[-1])


def _damage(
    demo: Till, lost: Sequence[Key], edited: Sequence[Key], payments: Sequence[Key], counts: Sequence[Key]
) -> tuple[Mapping[str, int], Sequence[Key]]:
    """Damage the copy; returns how many parts of the lost orders were deleted, and the lines that were edited."""
    ids = [id_ for (id_,) in lost]
    copy = demo.warehouse
    with copy.transaction():
        copy.execute("DELETE FROM square.orders WHERE id = ANY (%s)", [ids])
        parts = {table: _delete_parts(demo, table, ids) for table in (*PARTS, "tenders", "transactions")}
        lines = copy.execute(
            "UPDATE square.order_line_items SET quantity = quantity + 1 WHERE (order_id, uid) IN (SELECT order_id,"
            " min(uid) FROM square.order_line_items WHERE order_id = ANY (%s) AND deleted_at IS NULL GROUP BY 1)"
            " RETURNING order_id, uid",
            [[id_ for (id_,) in edited]],
        ).fetchall()
        copy.execute(
            "UPDATE square.payments SET note = 'edited by hand at ' || now() WHERE id = ANY (%s)",
            [[id_ for (id_,) in payments]],
        )
        for key in counts:
            copy.execute(
                "UPDATE square.catalog_inventory SET quantity = quantity + 1"
                " WHERE (variation_id, location_id) = (%s, %s)",
                key,
            )
    return parts, lines


def _delete_parts(demo: Till, table: str, orders: Sequence[str]) -> int:
    column = "id" if table == "transactions" else "order_id"
    query = sql.SQL("DELETE FROM {} WHERE {} = ANY (%s)")
    return demo.warehouse.execute(
        query.format(sql.Identifier(SCHEMA, table), sql.Identifier(column)), [orders]
    ).rowcount


def _repriced(variation: Row) -> Mutation:
    price = variation["item_variation_data"]["price_money"]
    fields = {"price_money": price | {"amount": price["amount"] + 100}}
    return Mutation("update", "variations", variation["id"], fields, silent=True)


def _refundable(payment: Row) -> bool:
    return payment["status"] == "COMPLETED" and "refund_ids" not in payment


def _stock(seller: Control, not_of: str) -> tuple[str, str]:
    """A count of goods in stock of any item but one, and a new quantity for it."""
    variations = (seller.row("variations", id_) for id_ in seller.ids("variations"))
    others = {row["id"] for row in variations if row["item_variation_data"]["item_id"] != not_of}
    counts = (id_ for id_ in seller.ids("counts") if id_.endswith(":IN_STOCK"))
    count = next(id_ for id_ in counts if id_.partition(":")[0] in others)
    return count, str(Decimal(seller.row("counts", count)["quantity"]) + Decimal("1.5"))


def _sync(demo: Till, mode: str) -> Asked:
    demo.seller.reset_counters()
    last = demo.last_sync_id()
    demo.run(demo.sync, mode=mode)
    demo.end_syncs()
    requests = {name: sum(answers.values()) for name, answers in demo.seller.counters().requests.items()}
    query = "SELECT sum(rows_read)::bigint, count(*) FROM confidence.sync_log WHERE source = %s AND sync_id > %s"
    return Asked(requests, *demo.warehouse.execute(query, [demo.source, last]).fetchone())


def _show_cost(demo: Till, foundation: Asked, incremental: Asked) -> None:
    costs = (foundation, incremental)
    names = sorted(foundation.requests.keys() | incremental.requests.keys())
    rows = [(name, *(cost.requests.get(name, 0) for cost in costs)) for name in names]
    rows.append(("requests in all", *(cost.total for cost in costs)))
    rows.append(("rows read", *(cost.rows for cost in costs)))
    demo.show(("asked for", "foundation", "incremental"), rows)


def _computed(rows: Rows) -> Rows:
    """What the computed tables are to hold, by key, with all that it depends on."""
    items, places = rows["catalog_items"], rows["locations"]
    stock = {key: count["quantity"] for key, count in rows["catalog_inventory"].items()}
    return {
        "catalog_location_availability": {
            (item["id"], place["id"]): None
            for item in items.values()
            for place in places.values()
            if _present(item, place["id"])
        },
        "square_sales": {
            key: {name: order[name] for name in ("state", "total_money")}
            for key, order in rows["orders"].items()
            if order["state"] == "COMPLETED" and (order.get("line_items") or not order.get("returns"))
        },
        "square_item_library_export": {
            key: (variation, items[item_id,]["item_data"]["name"], [stock.get((*key, *place)) for place in places])
            for key, variation in rows["catalog_variations"].items()
            if (item_id := variation["item_variation_data"]["item_id"]) and (item_id,) in items
        },
    }


def _goods(source: Rows) -> Iterator[tuple]:
    """What the sheet has to show of each variation: names, price, at how many locations it is, how much in stock."""
    for variation, item_name, stock in source["square_item_library_export"].values():
        data = variation["item_variation_data"]
        price = data.get("price_money", {"amount": None, "currency": None})
        places = sum(item == data["item_id"] for item, _ in source["catalog_location_availability"])
        quantities = [Decimal(quantity) for quantity in stock if quantity is not None]
        in_stock = sum(quantities) if quantities else None
        yield item_name, data["name"], price["amount"], price["currency"], places, in_stock


def _present(item: Row, place: str) -> bool:
    if item.get("present_at_all_locations", True):
        return place not in item.get("absent_at_location_ids", ())
    return place in item.get("present_at_location_ids", ())


def _vendor_infos(variation: Row) -> Sequence[Row]:
    return variation["item_variation_data"].get("item_variation_vendor_infos", ())


def _by_id(rows: Iterable[Row]) -> dict[Key, Row]:
    return {(row["id"],): row for row in rows}


def _key(table: str) -> Key:
    return KEYS.get(table, ("id",))


def _names(table: str) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, _key(table)))


def _ids(keys: Iterable[Key]) -> str:
    return some(" ".join(key) for key in keys)
