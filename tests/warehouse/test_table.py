"""Readers of the source's values: what they take, what they refuse, and that the message keeps the value to itself."""

import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import set_json_loads

from include.api.decoding import decode_json
from include.warehouse.field_path import join
from include.warehouse.readers import boolean, decimal, identifier, instant, integer, structure, text, unix_time
from include.warehouse.table import Column, RowRefused, Table, add
from stack.new_source import TYPES
from tests.warehouse.shop import PARTS, STOCK

SECRET = "s3cret-value"
BIGGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (identifier, 5, 5),
        (identifier, "5", 5),
        (identifier, " 5 ", 5),
        (identifier, "-5", -5),
        (identifier, "+5", 5),
        (identifier, BIGGEST, BIGGEST),
        (identifier, str(BIGGEST), BIGGEST),
        *((identifier, odd, None) for odd in (None, "", " ", 0, "0", "-0", True, False, Decimal("5.5"), [], {})),
        *((identifier, odd, None) for odd in ("abc", "5a", "5.0", "1_0", "0x5", "²", "-", "--5", "+-5", "5-")),
        *((identifier, odd, None) for odd in (2**63, -(2**63) - 1, str(2**63), "9" * 5000)),
        (integer, 0, 0),
        (integer, "-12", -12),
        (integer, Decimal("5.0"), 5),
        (integer, "", None),
        (integer, None, None),
        (integer, -(2**63), -(2**63)),
        (decimal, "95.00", Decimal("95.00")),
        (decimal, 95, Decimal(95)),
        (decimal, Decimal("0.1"), Decimal("0.1")),
        (decimal, "-0.005", Decimal("-0.005")),
        (decimal, "", None),
        (decimal, None, None),
        (instant, "2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (instant, "2026-03-01T12:00:00.123-05:00", datetime(2026, 3, 1, 17, 0, 0, 123_000, tzinfo=UTC)),
        (instant, "2026-03-01T12:00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (instant, "2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        (instant, "", None),
        (instant, None, None),
        (unix_time, 1_772_366_400, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (unix_time, "1772366400.5", datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        (unix_time, 0, datetime(1970, 1, 1, tzinfo=UTC)),
        (unix_time, "", None),
        (unix_time, None, None),
        (text, "", ""),
        (text, None, None),
        (text, 12, "12"),
        (text, Decimal("95.00"), "95.00"),
        (text, "Zoë 😀", "Zoë 😀"),
        (boolean, True, True),
        (boolean, "false", False),
        (boolean, "", None),
        (boolean, None, None),
        (structure, None, None),
        (structure, [], "[]"),
        (structure, {"a": Decimal("1.10")}, '{"a":1.10}'),
        (structure, "x", '"x"'),
    ],
)
def test_reads(read, value, expected):
    found = read(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("read", "value", "reason"),
    [
        (integer, True, "is a flag, not a whole number"),
        *((integer, odd, "is no whole number") for odd in ("abc", "5.0", "1_0", [], {}, "9" * 5000, Decimal("NaN"))),
        *((integer, odd, "is no whole number of 64 bits") for odd in (2**63, Decimal("5.5"), Decimal("1E+30"))),
        (integer, Decimal("1E+999999999"), "is no whole number of 64 bits"),
        (decimal, 0.1, "is no exact decimal"),
        (decimal, True, "is no exact decimal"),
        (decimal, [0, [1], 0], "is no exact decimal"),
        *((decimal, odd, "is no decimal number") for odd in ("abc", "1,5", {})),
        *((decimal, odd, "is not a finite number") for odd in ("NaN", "sNaN", "Infinity", Decimal("-Infinity"))),
        (decimal, "1E+131072", "has more digits than can be stored"),
        (decimal, "1E-16384", "has more digits than can be stored"),
        *((instant, odd, "is no ISO 8601 time") for odd in ("abc", "2026-02-30", "12:00", 1_700_000_000, [], True)),
        *((instant, f"{odd}", "is no ISO 8601 time") for odd in ("0001-01-01T00:00+01:00", "9999-12-31T23:00-05:00")),
        *((unix_time, odd, "is no decimal number") for odd in ("2026-03-01", {})),
        (unix_time, 1e300, "is no exact decimal"),
        (unix_time, "1E+20", "is no time that can be stored"),
        (text, {}, "is a structure, not text"),
        (text, [], "is a structure, not text"),
        (text, "a\0b", "holds a NUL character"),
        (text, "\ud800", "holds half a surrogate pair"),
        *((boolean, odd, "is no flag") for odd in (0, 1, "True", "yes", "1", [], {})),
        (structure, {"a": ["b\0"]}, "holds a NUL character"),
        (structure, {"a\0": 1}, "holds a NUL character"),
    ],
)
def test_refuses(read, value, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read(value)


def test_a_backslash_is_no_nul_character():
    assert structure(r"a\u0000") == r'"a\\u0000"'


exponents = st.from_regex(r"-?[0-9]{1,3}E[+-][0-9]{1,9}", fullmatch=True)
moments = st.datetimes(timezones=st.timezones()) | st.sampled_from([datetime.min, datetime.max]).map(
    lambda moment: moment.replace(tzinfo=timezone(timedelta(hours=-11 if moment.hour else 11)))
)
texts = st.text(st.characters(codec="utf-8") | st.sampled_from("\0\\u0")) | st.text(string.digits + "+-.eE_ ")
scalars = st.none() | st.booleans() | st.integers() | st.decimals(-(10**20), 10**20, places=4) | texts
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
values = nested | st.decimals() | exponents.map(Decimal) | exponents | moments.map(datetime.isoformat)


@given(values)
@example("--5")
@example("9" * 5000)
@example(Decimal("1E+999999999"))
def test_whatever_comes_is_read_or_refused_in_plain_words(value):
    refusals = [refusal for read in TYPES if (refusal := refused(read, value))]
    assert [refusal for refusal in refusals if not refusal.startswith(("is ", "holds ", "has "))] == []


def refused(read: Callable, value: object) -> str | None:
    """Why the reader refuses the value; None where it takes it."""
    try:
        read(value)
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values)
@example(value="9999-12-31T23:59:59-05:00")
@example(value={"\\u0000": "\\"})
def test_whatever_is_read_is_stored_as_it_is(conn, value):
    """By COPY, as the staging table gets it; a row that only Postgres refuses would fail the whole pull."""
    for read in (identifier, integer, decimal, instant, text, boolean):
        if not refused(read, value):
            assert as_stored(conn, read(value), TYPES[read]) == read(value)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=nested)
def test_structures_are_stored_as_they_are(conn, value):
    if value is not None and not refused(structure, value):
        assert as_stored(conn, structure(value), "jsonb") == value


def as_stored(conn: psycopg.Connection, value: object, type_: str) -> object:
    """The value after its way through COPY into a column and back."""
    set_json_loads(decode_json, conn)
    conn.execute("DROP TABLE IF EXISTS pg_temp.sent")
    conn.execute(sql.SQL("CREATE TEMP TABLE sent (value {})").format(sql.SQL(type_)))
    with conn.cursor() as cursor, cursor.copy("COPY sent FROM STDIN") as copy:
        copy.write_row((value,))
    return conn.execute("SELECT value FROM sent", prepare=False).fetchone()[0]


class TestDeclared:
    @pytest.mark.parametrize("key", [("a", "b"), ("b",)])
    def test_key_in_the_order_of_its_columns(self, key):
        assert Table("shop", "parts", (Column("a"), Column("b")), key=key, version=None).key == key

    @pytest.mark.parametrize(
        ("key", "why"),
        [
            (("b", "a"), "table shop.parts names its key in another order than its columns"),
            (("a", "c"), "table shop.parts names columns that it doesn't have: c"),
        ],
    )
    def test_refuses_a_key_that_rows_would_not_have(self, key, why):
        with pytest.raises(ValueError, match=f"^{why}$"):
            Table("shop", "parts", (Column("a"), Column("b")), key=key, version=None)

    def test_refuses_a_type_of_python_as_a_reader(self):
        why = "table shop.parts reads fee by float, name by str, which is no reader: take one of text, integer, decimal"
        with pytest.raises(ValueError, match=why):
            Table("shop", "parts", (Column("id"), Column("fee", float), Column("name", str)), version=None)

    @pytest.mark.parametrize("more", [{"version": "number"}, {"version": "number", "changed": "id"}])
    def test_refuses_a_number_as_the_time_of_change(self, more):
        columns = (Column("id", identifier), Column("number", integer), Column("time", unix_time))
        with pytest.raises(
            ValueError, match=r"shop\.parts has no time of change, since (number|id) is a number: read it"
        ):
            Table("shop", "parts", columns, **more)
        assert Table("shop", "parts", columns, version="number", changed="time").moment == "time"

    @pytest.mark.parametrize("more", [{}, {"version": "tag", "changed": "time"}, {"version": "gone"}])
    def test_refuses_a_version_that_tells_no_older_row(self, more):
        columns = (Column("id"), Column("updated_at"), Column("tag"), Column("time", instant), Column("gone", boolean))
        with pytest.raises(ValueError, match=r"can't tell an older row by (updated_at|tag|gone), which is no time"):
            Table("shop", "parts", columns, **more)

    def test_refuses_a_tombstone_that_is_no_flag(self):
        times = (Column("id"), Column("gone_at", instant))
        with pytest.raises(ValueError, match=r"shop\.parts has no flag in gone_at: read it by boolean"):
            Table("shop", "parts", times, version=None, tombstone="gone_at")
        flag = Column("gone", lambda value: value is not None, field="gone_at")
        assert Table("shop", "parts", (Column("id"), flag), version=None, tombstone="gone").tombstone == "gone"

    def test_refuses_a_tombstone_that_is_not_compared(self):
        columns = (Column("id"), Column("gone", boolean, compared=False))
        with pytest.raises(ValueError, match="would not see that gone changes"):
            Table("shop", "parts", columns, version=None, tombstone="gone")


class TestRow:
    def test_values_come_in_column_order(self):
        row = PARTS.row({"updated_at": "2026-01-01", "price": "1.50", "id": "7", "more": 1, "name": None})
        assert row == (7, None, Decimal("1.50"), None, datetime(2026, 1, 1, tzinfo=UTC), '{"more":1}')

    @pytest.mark.parametrize("key", [None, "", 0, "0", "abc", SECRET, {}])
    def test_no_usable_key_is_refused(self, key):
        with pytest.raises(RowRefused, match=r"^id is (no usable id|text, and declared as a number)$"):
            PARTS.row({"id": key})
        assert PARTS.key_of({"id": key}) is None

    @pytest.mark.parametrize(("field", "value"), [("price", SECRET), ("updated_at", SECRET), ("name", [SECRET])])
    def test_refusal_names_the_column_and_not_the_value(self, field, value):
        with pytest.raises(RowRefused, match=f"^{field} is ") as refused:
            PARTS.row({"id": 1, field: value})
        assert SECRET not in str(refused.value)

    def test_field_is_the_sources_name(self):
        table = Table("s", "t", (Column("id", identifier, field="ID"),), version=None)
        assert table.row({"ID": 3, "id": 4}) == (3, '{"id":4}')
        assert table.key_of({"ID": 3}) == (3,)

    def test_field_leads_into_the_records_objects(self):
        table = Table(
            "s", "t", (Column("id", identifier, field="of.id"), Column("cents", integer, field="a.b.c")), version=None
        )
        assert table.row({"of": {"id": 3}, "a": {"b": {"c": 5}}}) == (3, 5, None)
        assert table.row({"of": {"id": 3}, "a": {"b": None}}) == (3, None, None)
        assert table.row({"of": {"id": 3}}) == (3, None, None)
        assert table.key_of({"of": {"id": 3}}) == (3,)
        with pytest.raises(RowRefused, match=r"^cents lies in something that is no object$"):
            table.row({"of": {"id": 3}, "a": {"b": [5]}})
        assert table.key_of({"of": [3]}) is None

    @pytest.mark.parametrize(
        ("record", "lacking"),
        [
            ({"a": {"b": {"c": 5}}}, None),
            ({"a": {"b": {"c": None}}}, None),
            ({"a": {"b": None}}, None),
            ({"a": None}, None),
            ({"a": {"b": {}}}, ["cents"]),
            ({"a": {}}, ["cents"]),
            ({"a": {"b": [5]}}, ["cents"]),
            ({"a": SECRET}, ["cents"]),
            ({}, ["cents"]),
        ],
    )
    def test_record_names_a_column_by_a_null_anywhere_on_the_way(self, record, lacking):
        table = Table("s", "t", (Column("id", identifier), Column("cents", integer, field="a.b.c")), version=None)
        assert table.lacking({"id": 3} | record) == lacking

    def test_key_of_several_columns(self):
        assert STOCK.key_of({"place": "A", "bin": "2"}) == ("A", 2)
        assert STOCK.key_of({"place": "A"}) is None
        assert STOCK.key_of({"place": "A", "bin": "x"}) is None

    @given(values)
    def test_key_of_agrees_with_row(self, value):
        record = {"id": value}
        key = PARTS.key_of(record)
        if key is None:
            with pytest.raises(RowRefused):
                PARTS.row(record)
        else:
            assert PARTS.row(record)[:1] == key


ITEMS = Table(
    "s",
    "items",
    (
        Column("id", identifier),
        Column("cents", integer, "price.amount"),
        Column("owner_id", identifier, "owner"),
        Column("kind", lambda value: value.get("name") if isinstance(value, dict) else text(value), uses=("name",)),
        Column("raw", structure),
    ),
    version=None,
    ignored={"url": "it expires", "price.label": "the amount, as a text", "shop.name": "the shop has it"},
)


def extra(record: dict, table: Table = ITEMS) -> object:
    """What the table keeps of a record beside its columns."""
    kept = table.row({"id": 1, **record})[-1]
    return None if kept is None else decode_json(kept)


class TestExtra:
    @pytest.mark.parametrize(
        ("record", "kept"),
        [
            ({}, None),
            ({"url": "x", "raw": {"a": 1}, "owner": 5, "price": {"amount": 5, "label": "5 c"}}, None),
            ({"note": None}, {"note": None}),
            ({"note": ""}, {"note": ""}),
            # Of an object in which columns read something, the rest.
            ({"price": {"amount": 5, "currency": "EUR"}}, {"price": {"currency": "EUR"}}),
            ({"price": None}, None),
            ({"kind": "tool"}, None),
            ({"kind": {"name": "tool"}}, None),
            ({"kind": {"name": "tool", "id": 7}}, {"kind": {"id": 7}}),
            # Of an object in which something is ignored, the rest; and whatever comes in its place.
            ({"shop": {"name": "x"}}, None),
            ({"shop": {"name": "x", "zone": {}}}, {"shop": {"zone": {}}}),
            ({"shop": "x"}, {"shop": "x"}),
            ({"shop": [{"name": "x"}]}, {"shop": [{"name": "x"}]}),
            # A value of which the column's reader makes nothing.
            ({"owner": "Ann"}, {"owner": "Ann"}),
            ({"owner": {"id": 5}}, {"owner": {"id": 5}}),
            *(({"owner": blank}, None) for blank in (None, "", " ", 0)),
            # The names of our own columns, and those of no identifier.
            *(({name: 1}, {name: 1}) for name in ("extra", "sync_id", "deleted_at", "row_hash", "cents", "owner_id")),
            *(({name: 1}, {name: 1}) for name in ("id.x", "price.amount", "", " a b ", "ID", "Größe 😀", 'a"b\\')),
            ({"more": {"extra": {"sync_id": [None, {}]}}}, {"more": {"extra": {"sync_id": [None, {}]}}}),
            ({"more": Decimal("0.1000000000000000000000001")}, {"more": Decimal("0.1000000000000000000000001")}),
            ({"more": 10**40}, {"more": 10**40}),
        ],
    )
    def test_has_what_is_neither_read_nor_ignored(self, record, kept):
        assert extra(record) == kept

    def test_a_name_with_a_dot_is_quoted(self):
        table = Table(
            "shop",
            "tools",
            (Column("id"), Column("etag", field='"@odata.etag"')),
            ignored={'"@odata.context"': "no"},
            version=None,
        )
        record = {"id": "1", "@odata.etag": "W/1", "@odata.context": "x", "@odata": {"etag": 2}}
        assert table.row(record) == ("1", "W/1", '{"@odata":{"etag":2}}')
        assert table.columns[1].reads == ['"@odata.etag"']
        assert table.why_ignored(join("", "@odata.context")) == "no"

    def test_has_200_fields(self):
        many = {f"field {number}": number for number in range(200)}
        assert extra(many) == many

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("a\0b", "holds a NUL character"),
            ({"a\0b": 1}, "holds a NUL character"),
            ("\ud800", "holds half a surrogate pair"),
            ({"\udfff": 1}, "holds half a surrogate pair"),
            (Decimal("1E+999999"), "holds a number with more digits than can be stored"),
            (Decimal("1E+1001"), "holds a number with more digits than can be stored"),
            (Decimal("1E-99999"), "holds a number with more digits than can be stored"),
        ],
    )
    def test_refuses_what_cannot_be_stored(self, value, reason):
        for record in ({"more": value}, {"more": [{"x": value}]}, {"raw": [value]}):
            with pytest.raises(RowRefused, match=f"^(extra|raw) {reason}$"):
                ITEMS.row({"id": 1, **record})

    @pytest.mark.parametrize("around", [lambda inner: [inner], lambda inner: {"a": inner}])
    @pytest.mark.parametrize("levels", [600, 10_000])
    def test_refuses_what_is_nested_too_deeply(self, around, levels):
        value = None
        for _ in range(levels):
            value = around(value)
        with pytest.raises(RowRefused, match=r"^extra is nested too deeply$"):
            ITEMS.row({"id": 1, "more": value})

    def test_takes_many_objects_beside_each_other_and_numbers_in_texts(self):
        record = {"more": [{"a": "[[1E99999"}] * 1000, "less": "9" * 2000}
        assert extra(record) == record

    @given(st.dictionaries(st.sampled_from(["id", "price", "owner", "kind", "shop", "url", "x"]) | texts, nested))
    def test_every_field_is_read_ignored_or_kept(self, record):
        try:
            *values, kept = ITEMS.row({**record, "id": 1})
        except RowRefused:
            return
        kept = {} if kept is None else decode_json(kept)
        read = dict(zip(ITEMS.names, values, strict=False))
        for name in record.keys() - {"id", "url", "price", "owner", "kind", "shop", "raw"}:
            assert kept[name] == record[name]
        if record.get("owner"):
            assert (read["owner_id"] is None) == ("owner" in kept) or record["owner"].isspace()
        if "shop" in record and not isinstance(record["shop"], dict) and record["shop"] is not None:
            assert kept["shop"] == record["shop"]
        assert kept.keys() <= record.keys()

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(record=st.dictionaries(texts, nested | exponents.map(Decimal), min_size=1))
    def test_is_stored_as_it_is(self, conn, record):
        record = {name: value for name, value in record.items() if name not in {"id", *ITEMS.ignored, "raw", "kind"}}
        try:
            *_, kept = ITEMS.row({"id": 1, **record})
        except RowRefused:
            return
        if kept is not None:
            assert as_stored(conn, kept, "jsonb") == decode_json(kept)

    @pytest.mark.parametrize("number", ["0E-20000", "1E+2000", "1E-2000", "0E+20000"])
    def test_a_number_with_more_digits_than_postgres_keeps_is_refused(self, number):
        with pytest.raises(RowRefused, match="extra holds a number with more digits"):
            ITEMS.row({"id": 1, "more": [Decimal(number)]})

    def test_is_left_out_where_a_table_keeps_none(self):
        assert STOCK.row({"place": "A", "bin": 1, "count": 2, "more": 3}) == ("A", 1, 2)
        assert "extra" not in STOCK.names

    def test_a_field_named_as_one_that_our_own_code_adds_is_kept_beside_it(self):
        lines = Table("shop", "lines", (Column("id"), Column("place", integer)), version=None, added=("place",))
        assert lines.row(add({"id": "a"}, place=1)) == ("a", 1, None)
        assert lines.row(add({"id": "a", "place": {"x": 2}}, place=1)) == ("a", 1, '{"place":{"x":2}}')
        # No table adds a field of this name, so it is the source's.
        assert extra({"sent:place": 1}) == {"sent:place": 1}

    def test_of_a_list_in_brief_is_left_out(self):
        brief = ITEMS.in_brief("id", "cents")
        assert (brief.names, brief.row({"id": 1, "price": {"amount": 2, "more": 3}})) == (("id", "cents"), (1, 2))

    @pytest.mark.parametrize(
        ("more", "why"),
        [
            ({"ignored": {"a": "x"}}, "ignores fields that its columns read: a"),
            ({"ignored": {"c": " "}}, "doesn't say why it ignores c"),
            ({"ignored": {"c": "x"}, "keeps_extra": False}, "keeps no extra fields, so there is nothing to ignore"),
            (
                {"columns": (Column("a"), Column("extra"))},
                "has a column extra, which is the name of the column with all other fields",
            ),
            *(
                (
                    {"columns": (Column("a"), Column(name))},
                    f"has a column {name}, which is a name that our own columns have",
                )
                for name in ("deleted_at", "row_hash", "sync_id", "_page")
            ),
        ],
    )
    def test_declaration_that_contradicts_itself_is_refused(self, more, why):
        with pytest.raises(ValueError, match=f"^table shop.parts {why}$"):
            Table("shop", "parts", **{"columns": (Column("a"),), "key": ("a",), "version": None, **more})

    def test_value_is_put_where_the_record_has_none(self):
        assert ITEMS.filled({"id": 1}, {"id": 2, "cents": 3}) == {"id": 1, "price": {"amount": 3}}
        assert ITEMS.filled({"id": None, "price": {"x": 1}}, {"id": 2, "cents": 3}) == {
            "id": 2,
            "price": {"x": 1, "amount": 3},
        }
