"""What the declaration of a mirror refuses, and in which words."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from urllib.parse import quote

import pytest

from include.api.paginators import Cursor, PageNumber
from include.api.request import Request
from include.sources.base import NOTHING, LeftOut
from include.sources.mirror.changes import BothEnds, Deletes, FullList, Since, Window
from include.sources.mirror.derive import Derived
from include.sources.mirror.entity import Cascade, Child, Discovered, Entity, Implies, Listed, Need, Part
from include.sources.mirror.listing import Partitions
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.source import Mirror
from include.sources.storage.source import Storage
from include.warehouse.readers import identifier, instant, text
from include.warehouse.table import Column, Table

TABLE = Table("shop", "orders", tuple(Column(name, identifier) for name in ("id", "place", "item")), version=None)
LINES = Table("shop", "lines", tuple(Column(name, identifier) for name in ("id", "order_id")), version=None)
OWN = Lookup(request=lambda id_: Request(f"/orders/{quote(str(id_), safe='')}"), rows=lambda data: [data])
BY_PLACE = replace(OWN, by=("place",))
SINCE = Since("since")
WINDOW = Window(lambda listing, start, end: listing)
PAGES = PageNumber("orders")
LIST_OF_PLACE = replace(BY_PLACE, own=False, complete=True, paginator=PAGES)
PARTS = (Part(LINES, lambda order: order["lines"], by=("order_id",)),)
PLACES = Partitions(lambda context: ["1"], lambda listing, places: listing, column="place")
DELETES = Deletes(lambda since: Request("/deletes"), Cursor("orders"), deleted=lambda entry: entry)
CASCADE = Cascade("t.item IS NULL", "items", ("item",), alive=lambda item: True)
BRIEF = TABLE.in_brief("id")
DATED = Table("shop", "orders", (*TABLE.columns, Column("updated_at", instant)))


def listed(**more):
    usual = {"table": TABLE, "lookup": OWN, "listing": Request("/orders"), "paginator": PageNumber("orders")}
    return Listed(**{**usual, "changes": SINCE, "leaves_out": NOTHING, **more})


def of_place(**more):
    usual = {"table": TABLE, "lookup": BY_PLACE, "listing": Request("/orders"), "paginator": PageNumber("orders")}
    return Child(**{**usual, "parent": "places", "leaves_out": NOTHING, **more})


def discovered(**more):
    usual = {"table": TABLE, "lookup": OWN, "lists": lambda *asked: [], "shown": BRIEF}
    return Discovered(**{**usual, "leaves_out": NOTHING, **more})


def child(name="lines", parent="orders", by=("order_id",)):
    table = replace(LINES, name=name)
    return of_place(table=table, lookup=replace(OWN, by=by), parent=parent)


def mirror(*entities, **more):
    options = {"every": timedelta(minutes=5), "entities": entities or (listed(),), **more}
    return Mirror(name="shop", base_path="", authorize=lambda token: {}, **options)


def refusal(make, *args, **options):
    with pytest.raises(ValueError, match=r".") as caught:
        make(*args, **options)
    return str(caught.value)


def test_enumerations_are_named_by_tables_that_there_are():
    assert mirror(enumerations={"orders": ("place",)}).enumerations
    assert (
        refusal(mirror, enumerations={"order": ("place",)}) == "shop has no tables order, whose enumerations it names"
    )


@pytest.mark.parametrize("path", ["api/v1", "/api/v1/", "/"])
def test_requests_follow_the_base_path(path):
    with pytest.raises(ValueError, match=r"^the base_path of shop, .*, begins with / and doesn't end with one$"):
        replace(mirror(), base_path=path)


@pytest.mark.parametrize(
    ("format_", "why"),
    [
        ("%Y-%m-%dT%H:%m:%SZ", "mixes up %m, the month, and %M, the minutes"),
        ("%Y-%M-%d", "mixes up %m, the month, and %M, the minutes"),
        ("ISO 8601", "writes no time: give a strftime pattern"),
        ("100%%", "writes no time: give a strftime pattern"),
    ],
)
def test_the_filter_for_changes_writes_a_time(format_, why):
    assert refusal(Since, "since", format_) == f"the format of Since, {format_!r}, {why}"


def test_tables_are_in_the_schema_of_the_source():
    why = "the tables of shop are in the schema of its name, and shops.orders is not"
    assert refusal(mirror, listed(table=replace(TABLE, schema="shops"))) == why
    derived = Derived(replace(TABLE, schema="shops", keeps_extra=False), "SELECT 1")
    assert refusal(mirror, derived=(derived,)) == why


def test_computed_table_keeps_no_extra_fields():
    why = "shop.orders is computed, so it keeps no extra fields: say keeps_extra=False"
    assert refusal(Derived, TABLE, "SELECT 1") == why
    assert Derived(replace(TABLE, keeps_extra=False), "SELECT 1").keep == "false"


class TestEntity:
    @pytest.mark.parametrize(
        ("make", "more"),
        [
            (listed, {}),
            (listed, {"history": True}),
            (
                listed,
                {
                    "parts": PARTS,
                    "partitions": PLACES,
                    "cascade": CASCADE,
                    "changes": WINDOW,
                    "views": ({}, {"all": 1}),
                },
            ),
            (listed, {"table": DATED, "changes": BothEnds()}),
            (of_place, {}),
            (of_place, {"listing": None, "lookup": LIST_OF_PLACE}),
            (discovered, {"partitions": PLACES, "parts": PARTS}),
        ],
    )
    def test_what_goes_together(self, make, more):
        assert make(**more).name == "orders"

    @pytest.mark.parametrize(
        ("make", "unfit"),
        [
            (listed, {"parent": "places"}),
            (listed, {"lists": lambda *asked: []}),
            (of_place, {"changes": SINCE}),
            (of_place, {"partitions": PLACES}),
            (of_place, {"parts": PARTS}),
            (of_place, {"history": True}),
            (discovered, {"listing": Request("/orders")}),
            (discovered, {"changes": SINCE}),
            (discovered, {"history": True}),
        ],
    )
    def test_a_kind_has_nothing_of_another(self, make, unfit):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(unfit))}'"):
            make(**unfit)

    @pytest.mark.parametrize("make", [listed, of_place, discovered])
    def test_says_what_its_list_leaves_out(self, make):
        with pytest.raises(ValueError, match=r"^shop\.orders: it doesn't say what its list leaves out, .* leaves_out="):
            make(leaves_out=None)

    @pytest.mark.parametrize(
        ("parts", "why"),
        [
            ({"asked_for": {"archived orders": ""}}, "name the parameter that asks for what the list would leave out"),
            ({"missing": {"archived orders": ""}}, "say why the copy lacks what the list leaves out"),
        ],
    )
    def test_says_how_the_list_is_asked_or_why_not(self, parts, why):
        with pytest.raises(ValueError, match=why):
            LeftOut(**parts)

    @pytest.mark.parametrize("make", [listed, of_place])
    def test_asks_for_what_the_list_would_leave_out(self, make):
        asked = LeftOut({"archived orders": "archived", "drafts": "draft"})
        why = (
            "shop.orders: its leaves_out names a parameter that no request of its lists has: draft. Put it into listing"
            " or views"
        )
        assert refusal(make, leaves_out=asked, listing=Request("/orders", {"archived": "true"})) == why
        both = Request("/orders", {"archived": 1}, method="POST", body={"query": [{"draft": True}]})
        assert make(leaves_out=asked, listing=both).leaves_out == asked

    @pytest.mark.parametrize(
        "lookup",
        [BY_PLACE, replace(LIST_OF_PLACE, by=("place", "item")), replace(LIST_OF_PLACE, batch=2)],
    )
    def test_rows_that_only_their_parent_lists_are_asked_for_by_one_parent(self, lookup):
        assert refusal(of_place, listing=None, lookup=lookup) == (
            "shop.orders: rows that only their parent lists are looked up for one parent, by one column: leave out"
            " `batch`, and say own=False"
        )

    def test_the_filter_for_changes_keeps_the_lists_own(self):
        own, format_ = Request("/orders", {"$filter": "archived eq true"}), "changed ge %Y-%m-%dT%H:%M:%SZ"
        archived = LeftOut({"archived orders": "$filter"})
        assert refusal(listed, leaves_out=archived, listing=own, changes=Since("$filter", format_)) == (
            "shop.orders: a sync asks by $filter for what changed, in place of the list's own 'archived eq true': put"
            " that into the format of Since too"
        )
        views = ({}, {"$filter": "archived eq true"})
        assert "in place of the list's own" in refusal(listed, views=views, changes=Since("$filter", format_))
        assert listed(leaves_out=archived, listing=own, changes=Since("$filter", f"{format_} and archived eq true"))
        assert listed(leaves_out=archived, listing=own, changes=Since("since", format_))
        assert listed(listing=Request("/orders", {"since": "1970-01-01"}), changes=Since("since"))

    def test_views_and_partitions_ask_too(self):
        asked = LeftOut({"archived orders": "archived"})
        assert listed(leaves_out=asked, views=({}, {"archived": "true"})).leaves_out == asked
        assert listed(leaves_out=asked, partitions=PLACES).leaves_out == asked

    def test_is_of_one_of_the_kinds(self):
        with pytest.raises(TypeError, match="an entity is Listed, Child or Discovered"):
            Entity(TABLE, OWN)

    @pytest.mark.parametrize(
        ("more", "why"),
        [
            (
                {"changes": BothEnds(), "paginator": Cursor("orders")},
                "a list that is read from both ends has page numbers",
            ),
            (
                {"changes": BothEnds()},
                "a list that is read from both ends shows when its records changed: say by which column of its table",
            ),
            (
                {"table": DATED, "changes": BothEnds(), "views": ({}, {"all": 1})},
                "several views are for lists that are read from their start",
            ),
            (
                {"table": DATED, "changes": BothEnds(), "partitions": PLACES},
                "a list that is read from both ends is one list, and has no partitions",
            ),
            (
                {"history": True, "changes": FullList()},
                "a history is no whole list: it shows the newest rows only",
            ),
            (
                {"history": True, "parts": PARTS},
                "records of a history have no rows inside them: those of one record are a set",
            ),
            ({"history": True, "deletes": DELETES}, "rows of a history are kept, so no list of deletes concerns them"),
            (
                {"deletes": DELETES, "partitions": PLACES},
                "a list of deletes is one list for all, and has no partitions",
            ),
            ({"deletes": DELETES, "changes": FullList()}, "a list of deletes is read beside a list of what changed"),
            ({"history": True, "cascade": CASCADE}, "rows of a history are kept, so no delete cascades to them"),
            ({"ended": "t.old"}, "only the series of a history end"),
            ({"lookup": replace(OWN, by=("number",))}, "it names columns that its table doesn't have: number"),
            (
                {"needs": (Need("items", ("part", "item")),), "cascade": replace(CASCADE, by=("kind",))},
                "it names columns that its table doesn't have: kind, part",
            ),
            ({"implies": (Implies("items", ("part",)),)}, "it names columns that its table doesn't have: part"),
            (
                {"partitions": replace(PLACES, column="shop")},
                "it names columns that its table doesn't have: shop",
            ),
            (
                {"parts": (replace(PARTS[0], by=("order",)),)},
                "lines doesn't name the record's key by order",
            ),
            (
                {"parts": (replace(PARTS[0], by=("order_id", "id")),)},
                "lines doesn't name the record's key by order_id, id",
            ),
            ({"parts": PARTS, "lookup": BY_PLACE}, "a record with rows inside it is looked up by its key"),
            ({"lookup": BY_PLACE}, "a record's own address is made from the table's key"),
        ],
    )
    def test_what_does_not(self, more, why):
        assert refusal(listed, **more) == f"shop.orders: {why}"

    def test_child_is_looked_up_by_its_parent(self):
        why = "rows that are asked for by their parent are not looked up by their own key"
        assert refusal(of_place, lookup=OWN) == f"shop.orders: {why}"

    @pytest.mark.parametrize(
        ("more", "why"),
        [
            ({"shown": LINES.in_brief("id", "order_id")}, "what lists show in brief is in its table too"),
            (
                {"shown": TABLE},
                "what lists show in brief is no whole record: make it by the table's in_brief",
            ),
            ({"lookup": BY_PLACE}, "records that lists show in brief are named and looked up by the table's key"),
        ],
    )
    def test_brief_that_is_of_another_table(self, more, why):
        assert refusal(discovered, **more) == f"shop.orders: {why}"

    def test_rows_that_do_not_say_their_part_are_asked_for_by_one(self):
        why = "rows that don't say their place can be asked for by one place only"
        assert refusal(replace, PLACES, adds=True, size=2) == why
        assert replace(PLACES, adds=True).size == 1


class TestLookup:
    @pytest.mark.parametrize(
        ("more", "why"),
        [
            (
                {"own": False},
                "a look-up by a list needs a witness, or complete=True if it tells its end: else no absence is proven",
            ),
            ({"batch": 2}, "a record's own address shows one record: it takes one key"),
            (
                {"own": False, "complete": True},
                "a list that tells its end has a paginator: give the look-up one, Single() if the list always comes in"
                " one answer",
            ),
            (
                {"own": False, "witness": BY_PLACE},
                "a witness is asked by the same columns, at an own address",
            ),
            (
                {"own": False, "witness": replace(OWN, own=False, complete=True, paginator=PAGES)},
                "a witness is asked by the same columns, at an own address",
            ),
            (
                {"own": False, "witness": OWN, "batch": 2, "beside": (OWN.request,)},
                "`beside` works for a look-up of one record only",
            ),
            (
                {"own": False, "witness": OWN, "paginator": PageNumber("orders"), "beside": (OWN.request,)},
                "`beside` works for a look-up of one record only",
            ),
        ],
    )
    def test_that_proves_nothing_or_mixes_records_is_refused(self, more, why):
        assert refusal(replace, OWN, **more) == why

    @pytest.mark.parametrize(
        ("request_of", "why"),
        [
            (lambda id_: Request(f"/notes/{id_}"), "its look-up puts an id into the path as it is, so that one"),
            (lambda id_: Request(f"/notes/{quote(id_, safe='')}"), ""),
            (lambda id_: Request("/notes", {"id": id_}), ""),
        ],
        ids=["unquoted", "quoted", "a_parameter"],
    )
    @pytest.mark.parametrize("by_witness", [False, True])
    def test_asks_for_any_text(self, request_of, why, by_witness):
        own = Lookup(request=request_of, rows=lambda data: [data])
        lookup = replace(own, request=lambda id_: Request("/notes", {"id": id_}), own=False, witness=own)
        table = Table("shop", "notes", (Column("id"),), version=None)
        declared = partial(listed, table=table, lookup=lookup if by_witness else own)
        assert (why in refusal(declared)) if why else declared()

    def test_of_a_parent_by_a_parameter_is_a_list(self):
        filtered = replace(BY_PLACE, request=lambda place: Request("/lines", {"place": place}))
        why = "the own address of a parent has its id in the path. What a parameter asks for is a filtered list: say"
        assert why in refusal(of_place, lookup=filtered)
        assert of_place(lookup=replace(filtered, own=False, complete=True, paginator=PAGES))

    @pytest.mark.parametrize(
        "more",
        [
            {"own": False, "witness": OWN, "batch": 100, "paginator": PageNumber("orders")},
            {"own": False, "complete": True, "paginator": PAGES},
            {"beside": (OWN.request,)},
        ],
    )
    def test_with_a_proof(self, more):
        assert replace(OWN, **more).by == ("id",)


class TestMirror:
    @pytest.mark.parametrize(
        ("entities", "unknown"),
        [
            ((child(parent="invoices"),), "invoices"),
            ((listed(needs=(Need("items", ("item",)),)),), "items"),
            ((listed(cascade=CASCADE),), "items"),
            ((listed(implies=(Implies("items", ("item",)),)),), "items"),
            ((listed(partitions=replace(PLACES, listed_by="places")),), "places"),
            ((child(parent="invoices"), listed(cascade=CASCADE)), "invoices, items"),
        ],
    )
    def test_others_that_are_not_there(self, entities, unknown):
        assert refusal(mirror, *entities) == f"shop has no entities {unknown}, which others name"

    def test_two_of_one_name(self):
        assert refusal(mirror, listed(), listed()) == "two entities of shop have the same name"

    def test_child_of_a_child(self):
        grandchild = child(name="notes", parent="lines")
        why = "notes names lines as its parent, which has a parent itself"
        assert refusal(mirror, listed(), child(), grandchild) == why

    def test_child_that_names_half_of_its_parents_key(self):
        parent = listed(table=replace(TABLE, key=("id", "place")), lookup=replace(OWN, by=("id", "place")))
        assert refusal(mirror, parent, child()) == "lines doesn't name the key of orders by order_id"

    def test_row_that_implies_half_of_a_key(self):
        other = listed(table=replace(TABLE, name="items"))
        entity = listed(implies=(Implies("items", ("id", "item")),))
        assert refusal(mirror, entity, other) == "orders doesn't name the key of items by id, item"

    def test_reference_of_another_type_than_the_key(self):
        columns = tuple(replace(column, read=text) if column.name == "order_id" else column for column in LINES.columns)
        why = "lines.order_id is text and names orders.id, which is number: give both the same reader"
        unlike = of_place(table=replace(LINES, columns=columns), lookup=replace(OWN, by=("order_id",)), parent="orders")
        assert refusal(mirror, listed(), unlike) == why

    def test_parent_with_its_child(self):
        source = mirror(listed(), child())
        assert [each.name for each in source.children(source.entities[0])] == ["lines"]


@pytest.mark.parametrize(("name", "make"), [("shop", mirror), ("storage", Storage)], ids=["mirror", "storage"])
@pytest.mark.parametrize("lookback", [5, 10])
def test_lookback_reaches_behind_the_sync_before(name, make, lookback):
    every = timedelta(minutes=10)
    assert refusal(make, every=every, lookback=timedelta(minutes=lookback)) == (
        f"the lookback of {name} (0:{lookback:02}:00) is not longer than the time between two syncs (0:10:00): what one"
        " sync missed would have no second chance"
    )
    assert make(every=every, lookback=timedelta(minutes=10, seconds=1)).every == every
