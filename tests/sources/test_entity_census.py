"""The census of fields against a simulated account whose vendor changes what its records have."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from include.api.errors import FixConfiguration
from include.confidence import holds, judgements, question
from include.confidence.census import Census
from include.confidence.field_changes import State
from include.confidence.field_store import found_by, known_fields
from include.confidence.policy import Judgement, Unproven, Verdict, judge
from include.confidence.sides import Sides
from include.simulators.repairshopr import Fault, Mutation
from include.sources.base import entity_of, policies
from include.sources.mirror.entity_census import keep_fields, state_of
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence
from include.warehouse.pull import TooManyRefused
from include.warehouse.readers import integer, text
from include.warehouse.table import Column, Table

from .conftest import RUN, SOURCE

FIGURES = ("fields_new", "fields_vanished", "declared_fields_vanished", "declared_fields_retyped")


def scanned(shop, name, run=RUN, scope=None):
    writer = fence.stop(shop.context.conn, SOURCE.name, run, timeout=1)
    return scan_entity(replace(shop.context, run=run), entity_of(SOURCE, name), writer.epoch, scope or Scope())


def known(shop, *names):
    """Bring the copy in step, and scan for the first time."""
    sync_entities(shop.context)
    for name in names:
        scanned(shop, name)
    fence.resume(shop.context.conn, SOURCE.name, RUN)


def test_a_run_says_what_has_changed_since_the_run_before(shop, conn):
    known(shop, "tickets", "products")
    assert found_by(conn, "repairshopr", RUN) == []
    alter(shop, "tickets", lambda row, number: row.update(colour="red"))
    alter(shop, "products", lambda row, number: row.pop("upc_code"))
    for name in ("tickets", "products"):
        scanned(shop, name, "repairshopr_reconcile/2")
    # The gate names the declared field that is lost.
    assert found_by(conn, "repairshopr", "repairshopr_reconcile/2") == [
        "tickets: colour is new (text); it is kept in extra"
    ]
    scanned(shop, "tickets", "repairshopr_reconcile/3")
    assert found_by(conn, "repairshopr", "repairshopr_reconcile/3") == []


def alter(shop, resource, change):
    """Let the vendor change every record."""
    rows = [dict(row) for row in shop.control.rows(resource)]
    for number, row in enumerate(rows):
        change(row, number)
    shop.control.load(resource, rows)


def told(conn):
    return conn.execute(
        "SELECT kind, entity, path, state, detail FROM confidence.field_change ORDER BY 1, 3"
    ).fetchall()


def figures(summary):
    return [summary.metrics[name] for name in FIGURES]


def rename(old, new):
    return lambda row, number: row.update({new: row.pop(old)})


def test_what_becomes_of_a_field_is_said():
    inner = (
        Column("id", text),
        Column("city", text, "address.city"),
        Column("kind", text, "kind", uses=("id", "name")),
    )
    table = Table(
        "shop", "orders", inner, version=None, ignored={"maker": "a row of `makers`", "address.map": "expires"}
    )
    entity = SimpleNamespace(table=table, parts=())
    fates = {
        State.DECLARED: ("id", "address", "address.city", "kind", "kind.id", "kind.name"),
        State.IGNORED: ("maker", "maker.name", "maker[]", "maker[].id", "address.map"),
        State.KEPT: ("new", "address.street", "kind.code", "makers", "identity"),
    }
    assert {path: state_of(entity, table, path) for paths in fates.values() for path in paths} == {
        path: state for state, paths in fates.items() for path in paths
    }
    assert table.why_ignored("maker[].id") == "a row of `makers`"


def test_the_first_whole_scan_tells_nothing(shop, conn):
    known(shop, "customers", "tickets")
    assert told(conn) == []
    fields = known_fields(conn, "repairshopr", "customers")
    assert (fields[""].seen, fields["id"].share, fields["id"].state) == (40, 1.0, "declared")
    assert fields["email"].types == ("text",)
    assert fields["properties"].types == ("object",)
    assert not [path for path in fields if path.startswith("properties.")]


def test_a_new_field_is_told_once(shop, conn):
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: row.update(colour={"name": "red", "code": 7} if number else None))
    assert figures(scanned(shop, "tickets"))[0] == 3
    assert told(conn) == [("new", "tickets", "colour", "kept", "null, object")]
    assert figures(scanned(shop, "tickets", "repairshopr_reconcile/2"))[0] == 0
    assert len(told(conn)) == 1


def test_a_sync_tells_what_is_new_and_never_what_has_vanished(shop, conn):
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: (row.pop("subject"), row.update(colour="red")))
    first = shop.control.ids("tickets")[0]
    shop.control.mutate(Mutation("update", "tickets", first, row={"problem_type": "changed"}))
    sync_entities(shop.context)
    assert told(conn) == [("new", "tickets", "colour", "kept", "text")]
    assert known_fields(conn, "repairshopr", "tickets")["colour"].share is None
    scanned(shop, "tickets")
    assert [kind for kind, *_ in told(conn)] == ["new", "vanished"]


def test_a_declared_field_that_vanishes_warns_every_night_and_is_told_once(shop, conn):
    known(shop, "products")
    alter(shop, "products", lambda row, number: row.pop("upc_code"))
    for night in ("repairshopr_reconcile/2", "repairshopr_reconcile/3"):
        summary = scanned(shop, "products", night)
        assert figures(summary) == [0, 1, 1, 0]
        assert summary.examples["declared_fields_vanished_examples"] == ["products.upc_code"]
    assert told(conn) == [("vanished", "products", "upc_code", "declared", "")]
    gates = {gate.metric: gate for gate in verdict(conn, summary).gates}
    assert gates["declared_fields_vanished"].verdict is Verdict.WARN
    assert "products.upc_code" in gates["declared_fields_vanished"].reason


def test_it_is_there_again(shop, conn):
    known(shop, "products")
    rows = shop.control.rows("products")
    alter(shop, "products", lambda row, number: row.pop("upc_code"))
    scanned(shop, "products", "repairshopr_reconcile/2")
    shop.control.load("products", rows)
    assert figures(scanned(shop, "products", "repairshopr_reconcile/3")) == [0, 0, 0, 0]
    assert [kind for kind, *_ in told(conn)] == ["back", "vanished"]


def test_many_vanished_fields_hold_until_a_person_accepts(shop, conn):
    known(shop, "products")
    rows = shop.control.rows("products")
    alter(shop, "products", lambda row, number: [row.pop(each) for each in ("upc_code", "description", "sort_order")])
    summary = scanned(shop, "products", "repairshopr_reconcile/2")
    judgement = verdict(conn, summary)
    (gate,) = [each for each in judgement.gates if each.metric == "declared_fields_vanished"]
    assert (gate.value, gate.verdict) == (3, Verdict.HOLD)
    judgements.save_judgement(conn, summary, judgement)
    conn.execute("UPDATE confidence.forensic_run SET decision = 'resume' WHERE scan_id = %s", [summary.scan_id])
    later = scanned(shop, "products", "repairshopr_reconcile/3")
    (gate,) = [each for each in verdict(conn, later).gates if each.metric == "declared_fields_vanished"]
    assert (gate.value, gate.verdict) == (3, Verdict.PASS)
    # They are back, and another is lost, which nobody has accepted.
    shop.control.load("products", rows)
    alter(shop, "products", lambda row, number: row.pop("name"))
    last = scanned(shop, "products", "repairshopr_reconcile/4")
    (gate,) = [each for each in verdict(conn, last).gates if each.metric == "declared_fields_vanished"]
    assert (gate.value, gate.verdict) == (1, Verdict.WARN)
    assert "products.name" in gate.reason


def verdict(conn, summary):
    return judge(summary, judgements.past_runs(conn, summary), policies(entity_of(SOURCE, summary.entity)))


def test_a_scan_that_is_no_evidence_names_the_lost_fields(shop, conn, monkeypatch):
    known(shop, "products")
    alter(shop, "products", lambda row, number: row.pop("upc_code"))
    monkeypatch.setattr(Unproven, "no_evidence", lambda *_: "products: too many could not be proven")
    summary = scanned(shop, "products")
    why = "These fields are lost at the source, which may be why: products.upc_code"
    assert summary.incomplete == f"products: too many could not be proven. {why}"
    assert len(told(conn)) == 1


def test_a_renaming_is_told_as_one(shop, conn):
    known(shop, "tickets")
    alter(shop, "tickets", rename("subject", "title"))
    summary = scanned(shop, "tickets")
    assert told(conn) == [("renamed", "tickets", "subject", "declared", "title")]
    assert figures(summary) == [1, 1, 1, 0]


def test_what_a_renaming_empties_is_as_the_question_says(shop, conn):
    """A sync empties the column in the rows that change, and in no others; the question names both fields first."""
    known(shop, "tickets")
    alter(shop, "tickets", rename("subject", "title"))
    changed = shop.control.rows("tickets")[0]["id"]
    shop.control.mutate(Mutation("update", "tickets", changed, {"status": "Waiting"}))
    sync_entities(shop.context)
    assert conn.execute("SELECT id FROM repairshopr.tickets WHERE subject IS NULL").fetchall() == [(changed,)]
    summary = scanned(shop, "tickets")
    judgements.save_judgement(conn, summary, Judgement(Verdict.HOLD, (), ("too many",), ()))
    asked = question.read(
        conn,
        fence.read(conn, "repairshopr"),
        holds.open_holds(conn, "repairshopr"),
        texts={},
        sides=Sides(),
        plan_link=str,
        until=datetime.now(UTC),
    )
    assert asked.held[0].sentences[0].startswith("**`tickets.subject` looks renamed to `title` at the source.**")


def count_before_and_after(conn, column: Column, before: Callable, after: Callable) -> None:
    """Take the census of 30 orders twice, whose records are made by `before` and then by `after`."""
    table = Table("shop", "orders", (Column("id", integer), column), version=None)
    conn.execute(f"CREATE SCHEMA shop CREATE TABLE orders (id bigint PRIMARY KEY, {column.name} text)")
    conn.execute("INSERT INTO shop.orders SELECT n, 'C' || n FROM generate_series(0, 29) n")
    context = SimpleNamespace(conn=conn, source=SimpleNamespace(name="shop"), run=RUN)
    entity, stage = SimpleNamespace(table=table, parts=()), SimpleNamespace(conn=conn, table=table)
    for made in (before, after):
        census = Census()
        census.count([{"id": number, **made(number)} for number in range(30)])
        extract = SimpleNamespace(entity=entity, stages=[stage], censuses={"orders": census})
        keep_fields(context, extract, whole=True)


@pytest.mark.parametrize(
    ("before", "after", "pair"),
    [
        (lambda n: {"place": {"city": f"C{n}"}}, lambda n: {"place": {"town": f"C{n}"}}, ("place.city", "place.town")),
        (lambda n: {"place": {"city": f"C{n}"}}, lambda n: {"home": {"city": f"C{n}"}}, ("place", "home")),
        (
            lambda n: {"place": {"city": f"C{n}", "a": 1}},
            lambda n: {"at": f"C{n}", "place": {"a": 1}},
            ("place.city", "at"),
        ),
        (lambda n: {"place": {"city": f"C{n}"}}, lambda n: {"home": {"city": "other"}}, None),
    ],
    ids=["a field in an object", "the object around it", "out of its object", "other values"],
)
def test_a_renaming_is_found_in_objects_too(conn, before, after, pair):
    count_before_and_after(conn, Column("city", text, "place.city"), before, after)
    renamings = [(path, detail) for kind, _, path, _, detail in told(conn) if kind == "renamed"]
    assert renamings == ([pair] if pair else [])
    assert len(told(conn)) == (1 if pair else 2)


def name_in(value):
    return text(value.get("name") if isinstance(value, dict) else value)


@pytest.mark.parametrize(
    ("before", "after", "pair"),
    [
        (lambda n: {"kind": {"name": f"C{n}", "a": 1}}, lambda n: {"kind": {"title": f"C{n}", "a": 1}}, "kind.title"),
        (lambda n: {"kind": {"name": f"C{n}"}}, lambda n: {"sort": {"name": f"C{n}"}}, "sort"),
        (lambda n: {"kind": {"name": f"C{n}", "a": 1}}, lambda n: {"kind": {"title": "x", "a": 1}}, None),
        (lambda n: {"kind": f"C{n}"}, lambda n: {"sort": f"C{n}"}, "sort"),
    ],
    ids=["the field in the object", "the object", "other values", "a value in place of the object"],
)
def test_a_renaming_is_found_in_an_object_of_which_a_column_uses_a_part(conn, before, after, pair):
    count_before_and_after(conn, Column("kind", name_in, uses=("name",)), before, after)
    assert [detail for kind, _, _, _, detail in told(conn) if kind == "renamed"] == ([pair] if pair else [])
    assert len(told(conn)) == (1 if pair else 2)


def test_a_new_field_with_other_values_is_no_renaming(shop, conn):
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: row.update(title=f"other {number}", **{"subject": row.pop("subject")}))
    alter(shop, "tickets", lambda row, number: row.pop("subject"))
    scanned(shop, "tickets")
    assert [kind for kind, *_ in told(conn)] == ["new", "vanished"]


def test_values_that_are_all_alike_prove_no_renaming(shop, conn):
    alter(shop, "products", lambda row, number: row.update(taxable=True))
    known(shop, "products")
    alter(shop, "products", rename("taxable", "on_sale"))
    scanned(shop, "products")
    assert [kind for kind, *_ in told(conn)] == ["new", "vanished"]


def test_a_type_that_the_column_cannot_read_is_told_even_if_no_row_can_be_stored(shop, conn):
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: row.update(number="T-" + str(number)))
    with pytest.raises(TooManyRefused):
        scanned(shop, "tickets")
    detail = "text, where it was number; that can't be read"
    assert told(conn) == [("retyped", "tickets", "number", "declared", detail)]


@pytest.mark.parametrize("odd_first", [False, True])
def test_an_id_that_becomes_text_is_lost(shop, conn, odd_first):
    """Its column gets no values, though no row is refused."""
    known(shop, "tickets")
    if odd_first:
        alter(shop, "tickets", lambda row, number: row.update(customer_id="c-1") if number == 1 else None)
        assert figures(scanned(shop, "tickets", "repairshopr_reconcile/2")) == [0, 0, 0, 0]
        conn.execute("DELETE FROM confidence.field_change")
    alter(shop, "tickets", lambda row, number: row.update(customer_id=f"c-{number}"))
    for night in ("repairshopr_reconcile/3", "repairshopr_reconcile/4"):
        summary = scanned(shop, "tickets", night)
        assert figures(summary) == [0, 0, 0, 1]
    detail = "text, where it was number; that can't be read"
    assert told(conn) == [("retyped", "tickets", "customer_id", "declared", detail)]
    assert summary.examples["declared_fields_retyped_examples"] == ["tickets.customer_id"]
    assert "declared_fields_vanished_examples" not in summary.examples


def test_one_odd_value_is_a_refused_row_and_no_lost_field(shop, conn):
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: row.update(number="T-1") if number == 1 else None)
    summary = scanned(shop, "tickets")
    assert (figures(summary), summary.metrics["rows_refused"]) == ([0, 0, 0, 0], 1)
    assert told(conn) == [("retyped", "tickets", "number", "declared", "text, where it was number")]


def test_a_type_that_the_column_reads_is_told_and_no_loss(shop, conn):
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: row.update(number=str(row["number"])))
    assert figures(scanned(shop, "tickets")) == [0, 0, 0, 0]
    assert told(conn) == [("retyped", "tickets", "number", "declared", "text, where it was number")]


def test_a_new_word_of_an_enumeration_is_told(shop, conn):
    source = replace(SOURCE, enumerations={"tickets": ("status",)})
    shop = replace(shop, context=replace(shop.context, source=source))
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: row.update(status="Frozen") if number == 3 else None)
    scanned(shop, "tickets")
    assert told(conn) == [("new_code", "tickets", "status", "declared", "Frozen")]


def test_a_field_that_was_seldom_there_does_not_vanish(shop, conn):
    alter(shop, "tickets", lambda row, number: row.update(colour="red") if number % 2 else None)
    known(shop, "tickets")
    alter(shop, "tickets", lambda row, number: row.pop("colour", None))
    assert figures(scanned(shop, "tickets")) == [0, 0, 0, 0]
    assert told(conn) == []


def test_small_tables_do_not_cry(open_shop, conn):
    shop = open_shop(customers=19, invoices=5, line_items=5, payments=5, products=5, tickets=5, estimates=5)
    known(shop, "customers")
    alter(shop, "customers", lambda row, number: row.pop("notes"))
    assert figures(scanned(shop, "customers")) == [0, 0, 0, 0]
    assert told(conn) == []


def test_a_scan_of_some_pages_tells_no_shares(shop, conn):
    known(shop, "line_items")
    alter(shop, "line_items", lambda row, number: row.pop("item"))
    summary = scanned(shop, "line_items", scope=Scope(page_start=2, page_end=3, not_in_api=False))
    assert figures(summary) == [None] * 4
    assert told(conn) == []


def test_a_scan_of_another_scope_than_scheduled_runs_have_tells_no_shares(shop, conn):
    known(shop, "tickets")
    conn.execute("UPDATE confidence.forensic_run SET run = 'repairshopr_reconcile/scheduled__1'")
    alter(shop, "tickets", lambda row, number: row.pop("subject"))
    assert figures(scanned(shop, "tickets", scope=Scope(filtered="shop 7"))) == [None] * 4
    assert told(conn) == []
    assert figures(scanned(shop, "tickets"))[1] == 1
    conn.execute("DELETE FROM confidence.field_change")
    scanned(shop, "tickets", "repairshopr_reconcile/scheduled__2", Scope(filtered="30 days back"))
    assert told(conn) == []


@pytest.mark.parametrize("page", [1, 2, 3, 4])
def test_a_scan_that_goes_on_counts_no_record_twice(shop, conn, page):
    shop = replace(shop, context=replace(shop.context, workers=1))
    known(shop, "line_items")
    before = shares(conn)
    shop.control.fault(Fault("status", resource="line_items", page=page, status=401))
    with pytest.raises(FixConfiguration):
        scanned(shop, "line_items", "repairshopr_reconcile/2")
    scanned(shop, "line_items", "repairshopr_reconcile/2")
    assert shares(conn) == before


def shares(conn):
    return {p: (f.seen, f.objects) for p, f in known_fields(conn, "repairshopr", "line_items").items()}


def test_no_value_of_a_record_is_in_the_warehouse(shop, conn):
    source = replace(SOURCE, enumerations={"customers": ("firstname", "email")})
    shop = replace(shop, context=replace(shop.context, source=source))
    alter(
        shop, "customers", lambda row, number: row.update(firstname=f"Ann {number}", met={"where": f"Secret{number}"})
    )
    known(shop, "customers", "invoices")
    alter(shop, "customers", lambda row, number: row.update(nick=f"Secret{number}"))
    scanned(shop, "customers")
    kept = [str(row) for t in ("field_census", "field_change") for row in conn.execute(f"SELECT * FROM confidence.{t}")]
    assert any("met.where" in row for row in kept)
    words = {
        str(v) for row in shop.control.rows("customers") for v in row.values() if isinstance(v, str) and len(v) > 3
    }
    assert not [word for word in words | {"Secret", "Ann"} for row in kept if word in row]
