"""What planned rows have in common: planted causes are found, and random drift has none."""

import random
from datetime import timedelta

import pytest
from psycopg import sql

from include.warehouse import compare
from include.warehouse.find_patterns import MOST, facts_of, find_patterns
from include.warehouse.staging import Stage
from tests.warehouse.shop import PARTS, STOCK, apply, day, part, planned, staged

NUMBER = 400


def parts(random_: random.Random) -> list[dict]:
    """Parts that changed over 300 days, with names and prices by chance."""
    return [
        part(id_, random_.choice(["NUT", "BOLT", "a washer"]), str(random_.randint(1, 500)), random_.randrange(300))
        for id_ in range(1, NUMBER + 1)
    ]


def replanned(conn, records, pages=1) -> Stage:
    """The plan for a scan that lists these records in so many pages."""
    size = -(-len(records) // pages)
    stage = staged(conn, PARTS, [records[i : i + size] for i in range(0, len(records), size)], "again")
    compare.plan_writes(stage, older="confirmed")
    compare.plan_deletes(stage, status="confirmed")
    return stage


def these(planned: int, present: int, rows: int) -> str:
    """The end of a fact: which share of the rows like these is planned."""
    share = "all" if planned == present else f"{planned} of the"
    return f". These are {share} {present} such rows among the {rows} that were looked at"


def lines(stage: Stage) -> list[str]:
    """The facts, without the one that the tests' own UPDATEs by hand lead to."""
    return [str(each) for each in find_patterns(stage) if each.kind != "edited"]


@pytest.fixture
def records(conn) -> list[dict]:
    """The parts of a copy that was in step after two syncs: the second one brought the last 80."""
    found = parts(random.Random(1))
    apply(conn, planned(conn, PARTS, found[:320]))
    apply(conn, planned(conn, PARTS, found))
    return found


def test_lost_page(conn, records):
    """The copy lacks what one page shows, and the ids on it are in one range too."""
    conn.execute("DELETE FROM shop.parts WHERE id BETWEEN 101 AND 150")
    first, *_ = lines(replanned(conn, records, pages=8))
    assert first == "50 of 50 rows to insert stand on page 3 of the list" + these(50, 50, 400)


def test_rows_of_one_sync(conn, records):
    """What the second sync has written is gone at the source."""
    found = lines(replanned(conn, records[:320]))
    sync_id = conn.execute("SELECT max(sync_id) FROM shop.parts").fetchone()[0]
    assert f"80 of 80 rows to delete were last written by sync {sync_id}" + these(80, 80, 400) in found


def test_truncated_import(conn, records):
    """All keys from one on, but for a few, and some others by chance."""
    found = lines(replanned(conn, [*records[3:330], *records[337:340]]))
    assert "64 of 70 rows to delete have id between 331 and 397" + these(64, 67, 400) in found


def test_oldest_rows_are_told_by_their_time(conn, records):
    """Their keys are in one range too, which says less."""
    for record in records:
        record["updated_at"] = (day(310) + timedelta(minutes=record["id"])).isoformat()
    apply(conn, planned(conn, PARTS, records))
    told = "50 of 50 rows to delete have updated_at between 2026-11-07 00:01 UTC and 2026-11-07 00:50 UTC"
    assert lines(replanned(conn, records[50:]))[0] == told + these(50, 50, 400)


def test_one_day(conn, records):
    for record in records[50:170:3]:
        record["updated_at"] = day(350).isoformat()
    apply(conn, planned(conn, PARTS, records))
    kept = [record for record in records if record["updated_at"] != day(350).isoformat()]
    assert lines(replanned(conn, kept))[0] == "40 of 40 rows to delete have updated_at on 2026-12-17" + these(
        40, 40, 400
    )


def test_one_place_with_a_text_for_its_key(conn):
    stock = [{"place": f"SHOP-{i % 8}", "bin": i, "count": 1} for i in range(400)]
    apply(conn, planned(conn, STOCK, stock))
    stage = planned(conn, STOCK, [each for each in stock if each["place"] != "SHOP-3"])
    assert lines(stage)[0] == "50 of 50 rows to delete have place SHOP-3" + these(50, 50, 400)


def test_one_folder(conn, records):
    for record in records:
        record["name"] = f"uploads/user {record['id'] % 8}/{record['id']}.jpg"
    apply(conn, planned(conn, PARTS, records))
    kept = [record for record in records if not record["name"].startswith("uploads/user 3/")]
    assert lines(replanned(conn, kept))[0] == "50 of 50 rows to delete share one folder of name, uploads/…/" + these(
        50, 50, 400
    )


def orders(seed: int) -> list[dict]:
    """Rows of 60 parents, one to nine of each."""
    random_ = random.Random(seed)
    found = [n for n in range(60) for _ in range(random_.randint(1, 9))]
    return [{"id": number, "order_id": order, "note": None} for number, order in enumerate(found)]


def told_of_parents(conn, found: list[dict], kept: list[dict]) -> list[str]:
    """What is told of parents if the source shows the `kept` rows of those found before."""
    conn.execute("CREATE TEMP TABLE IF NOT EXISTS ordered (id bigint PRIMARY KEY, order_id bigint, note text)")
    conn.execute("TRUNCATE ordered")
    with conn.cursor() as cursor:
        cursor.executemany("INSERT INTO ordered VALUES (%(id)s, %(order_id)s, %(note)s)", found)
    gone = sql.SQL("SELECT * FROM ordered WHERE id <> ALL ({})").format([each["id"] for each in kept])
    types = {"id": "bigint", "order_id": "bigint"}
    facts = facts_of(conn, "lines", "insert", gone, sql.SQL("SELECT * FROM ordered"), types=types, key=("id",))
    return [str(each) for each in facts if each.kind == "parents"]


@pytest.mark.parametrize("seed", range(5))
def test_all_rows_of_some_parents(conn, seed):
    """A few rows of other parents are beside them."""
    found, random_ = orders(seed), random.Random(seed)
    whole = random_.sample(range(60), 12)
    beside = random_.sample([each["id"] for each in found if each["order_id"] not in whole], 3)
    kept = [each for each in found if each["order_id"] not in whole and each["id"] not in beside]
    left = {each["order_id"] for each in kept}
    gone = [each for each in found if each["order_id"] not in left]
    of = len(found) - len(kept)
    # Of a parent with one row, the one that is beside them is all.
    count, parents = len(gone), 60 - len(left)
    fact = f"are all rows of {parents} different order_id, of 60 that were looked at"
    assert told_of_parents(conn, found, kept) == [f"{count} of {of} rows to insert {fact}"]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_rows_by_chance_are_not_all_of_some_parents(conn, seed, share):
    found = orders(seed)
    kept = random.Random(seed).sample(found, round(len(found) * (1 - share)))
    assert told_of_parents(conn, found, kept) == []


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("uploads/{}/", ", uploads/{}/"),
        ("/uploads/2026/{}/", ", /uploads/2026/{}/"),
        ("uploads/{} Smith/", ", uploads/…/"),
        ("{} Smith/", ""),
    ],
)
def test_folder_is_told_as_far_as_it_is_about_no_person(conn, records, folder, told):
    """An id is, and what nearly all rows share."""
    for record in records:
        user = f"6a67{record['id'] % 8}e32-787b-4b6e-84ca-3efb1b365e6e"
        record["name"] = f"{folder.format(user)}{record['id']}.jpg"
    apply(conn, planned(conn, PARTS, records))
    gone = "6a673e32-787b-4b6e-84ca-3efb1b365e6e"
    found = lines(replanned(conn, [record for record in records if gone not in record["name"]]))
    told = told.format(gone)
    assert found[0] == f"50 of 50 rows to delete share one folder of name{told}" + these(50, 50, 400)


class TestEdited:
    """Rows that something other than a sync or repair has changed in the copy."""

    @staticmethod
    def told(stage: Stage) -> list[str]:
        return [str(each) for each in find_patterns(stage) if each.kind == "edited"]

    @pytest.mark.parametrize("edited", [3, 10, 60])
    def test_by_hand(self, conn, records, edited):
        """Whether a sync has inserted or updated them."""
        for record in records[:5]:
            record["name"] = "WASHER"
        apply(conn, replanned(conn, records))
        conn.execute("UPDATE shop.parts SET price = NULL WHERE id <= %s", [edited])
        assert self.told(replanned(conn, records)) == [
            f"{edited} of {edited} rows to update were changed in the copy by something other than a sync or repair,"
            " such as an UPDATE by hand"
        ]

    def test_some_of_them_and_others_beside(self, conn, records):
        """What is edited back again is as the sync left it."""
        conn.execute("UPDATE shop.parts SET price = NULL WHERE id <= 30")
        changed = [record | {"price": "0.01"} for record in records[:20]] + records[20:28] + records[30:]
        [line] = self.told(replanned(conn, [*changed, *records[28:30]]))
        assert line.startswith("30 of 30 rows to update")
        conn.execute("UPDATE shop.parts SET price = 5 WHERE id <= 200")
        changed = [record | {"price": "5"} for record in records[:150]] + records[150:]
        [line] = self.told(replanned(conn, changed))
        assert line.startswith("50 of 50 rows to update")
        conn.execute("UPDATE shop.parts SET price = 5 WHERE id <= 300")
        changed = [record | {"price": "5"} for record in records[:250]] + records[250:]
        assert self.told(replanned(conn, changed)) == []

    def test_what_a_sync_has_left_is_not(self, conn, records):
        changed = [record | {"price": "0.01"} for record in records[:60]] + records[60:]
        assert self.told(replanned(conn, changed)) == []
        assert self.told(replanned(conn, records[60:])) == []

    def test_hashes_that_a_migration_made_anew_are_no_edit(self, conn, records):
        conn.execute("UPDATE confidence.change_log SET after_hash = after_hash + 1")
        changed = [record | {"price": "0.01"} for record in records[:60]] + records[60:]
        assert self.told(replanned(conn, changed)) == []

    def test_rows_without_an_entry_in_the_log_are_not_known_to_be(self, conn, records):
        """Rows of another table may have the same keys, and come by the same sync."""
        conn.execute(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, after_hash)"
            " SELECT sync_id, 'shop.others', key, operation, after_hash + 1 FROM confidence.change_log"
        )
        conn.execute("DELETE FROM confidence.change_log WHERE table_name = 'shop.parts' AND (key ->> 'id')::int <= 60")
        conn.execute("UPDATE shop.parts SET price = NULL WHERE id <= 60")
        assert self.told(replanned(conn, records)) == []


def test_rows_that_the_scan_did_not_look_at_do_not_count(conn):
    """The copy has other places, of which the list shows none and the plan says nothing."""
    stock = [{"place": f"SHOP-{i % 2}", "bin": i, "count": 1} for i in range(400)]
    apply(conn, planned(conn, STOCK, stock))
    stage = staged(conn, STOCK, [[each | {"count": 2} for each in stock[:60:2]] + stock[60:200]], "again")
    compare.plan_writes(stage, older="confirmed")
    assert lines(stage)[-1] == ("30 of 30 rows to update have place SHOP-0" + these(30, 100, 170))


def test_text_that_may_be_about_a_person_is_not_told(conn, records):
    for record in records[:60]:
        record["name"] = "Ann Smith"
    apply(conn, planned(conn, PARTS, records))
    found = lines(replanned(conn, records[60:]))
    assert "60 of 60 rows to delete share one value of name" + these(60, 60, 400) in found
    assert "Smith" not in "".join(found)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"price": None}, "price only, which is empty at the source"),
        ({"price": "999"}, "price only"),
        ({"updated_at": "+5 hours"}, "updated_at only, which is 5 h later at the source"),
        ({"updated_at": "-1 hour"}, "updated_at only, which is 1 h earlier at the source"),
    ],
)
def test_columns_that_differ(conn, records, change, how):
    """A renamed column is empty at the vendor from one day on; a time zone moves all times."""
    statement = "UPDATE shop.parts SET updated_at = updated_at - %s::interval"
    if "updated_at" in change:
        conn.execute(statement, [change["updated_at"]])
    else:
        records = [record | change for record in records]
    assert f"{NUMBER} of {NUMBER} rows to update differ in {how}" in lines(replanned(conn, records))


def test_column_that_is_said_to_be_empty_in_the_copy_is_not_told_to_have_no_value(conn, records):
    """What sets the rows apart in another way is told in its place."""
    conn.execute("UPDATE shop.parts SET price = NULL WHERE id <= 60")
    first, *others = lines(replanned(conn, records))
    assert first == "60 of 60 rows to update differ in price only, which is empty in the copy"
    assert "60 of 60 rows to update have id between 1 and 60" + these(60, 60, 400) in others
    assert not [each for each in others if "have no price" in each]


def test_column_that_the_vendor_has_renamed(conn, records):
    """Also where it was empty in some rows. Nothing is told of what the fields are about."""
    for record in records[::3]:
        record["price"] = None
    apply(conn, planned(conn, PARTS, records))
    for record in records:
        record["unit_price"] = record.pop("price")
    found = lines(replanned(conn, records))
    assert (
        "400 of 400 rows to update differ in price, extra only, of which price is empty at the source, and extra has"
        " the field unit_price at the source only" in found
    )


@pytest.mark.parametrize("share", [4, 3])
def test_column_renamed_at_the_vendor_beside_other_changes(conn, records, share):
    """It is told if four of five rows show it."""
    for record in records[: NUMBER * share // 5]:
        record["unit_price"] = record.pop("price")
    for record in records[NUMBER * share // 5 :]:
        record["name"] = f"{record['name']}s"
    found = [each for each in lines(replanned(conn, records)) if "differ in" in each]
    assert found == (
        [
            "320 of 400 rows to update differ in price, extra only, of which price is empty at the source, and extra"
            " has the field unit_price at the source only"
        ]
        if share == 4
        else []
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (lambda id_: {"unit_price": 1}, "extra only, which has the field unit_price at the source only"),
        (lambda id_: {f"field {id_ % 3}": 1}, "extra only"),
        # It may be a name.
        (lambda id_: {"Ann Smith": 1}, "extra only"),
    ],
)
def test_new_field(conn, records, fields, told):
    changed = [record | fields(record["id"]) for record in records]
    assert f"{NUMBER} of {NUMBER} rows to update differ in {told}" in lines(replanned(conn, changed))


@pytest.mark.parametrize(
    ("hours", "how"),
    [
        ("CASE WHEN updated_at < '2026-03-29' THEN 1 ELSE 2 END", "updated_at only, which is 1 or 2 h later"),
        ("CASE WHEN updated_at < '2026-03-08' THEN -5 ELSE -4 END", "updated_at only, which is 4 or 5 h earlier"),
        (
            "CASE WHEN updated_at < '2026-03-08' THEN -5.5 ELSE -4.5 END",
            "updated_at only, which is 4.5 or 5.5 h earlier",
        ),
        ("CASE WHEN updated_at < '2026-03-08' THEN 1 ELSE -1 END", None),
        ("CASE WHEN updated_at < '2026-03-08' THEN 1 ELSE 3 END", None),
        ("CASE WHEN updated_at < '2026-03-08' THEN 1.1 ELSE 2.1 END", None),
        ("CASE WHEN updated_at < '2026-03-08' THEN 30 ELSE 31 END", None),
        ("1 + id % 3", None),
    ],
)
def test_time_zone_with_summer_time(conn, records, hours, how):
    conn.execute(sql.SQL("UPDATE shop.parts SET updated_at = updated_at - (" + hours + ") * interval '1 hour'"))
    [found] = [each for each in lines(replanned(conn, records)) if "differ in" in each]
    local = "at the source, as if one side took local time for UTC"
    expected = f"{how} {local}" if how else "updated_at only"
    assert found == f"{NUMBER} of {NUMBER} rows to update differ in {expected}"


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ("name = NULL, price = NULL", "which are empty in the copy"),
        (
            "name = NULL, price = price * 2",
            "of which name is empty in the copy, and price is 2 times smaller at the source",
        ),
        ("name = name || 's', price = price + 5", "of which price is 5 less at the source"),
    ],
)
def test_several_columns_that_differ_in_one_way(conn, records, change, how):
    conn.execute(sql.SQL("UPDATE shop.parts SET " + change))
    assert f"{NUMBER} of {NUMBER} rows to update differ in name, price only, {how}" in lines(replanned(conn, records))


@pytest.mark.parametrize("seed", range(20))
def test_random_columns_differ_in_no_one_way(conn, records, seed):
    """Each row in some columns, by some amounts, some of them with fields of their own."""
    random_ = random.Random(seed)
    for record in records:
        for name in random_.sample(["name", "price", "updated_at", "extra"], random_.randint(1, 4)):
            match name:
                case "extra":
                    record[f"field_{random_.randint(1, 5)}"] = random_.random()
                case "updated_at":
                    record["updated_at"] = day(random_.randint(301, 600)).isoformat()
                case _:
                    record[name] = str(random_.randint(501, 999))
    assert [each for each in lines(replanned(conn, records)) if "differ in" in each] == []


@pytest.mark.parametrize(
    ("copy", "how"),
    [
        ("price * 100", "which is 100 times smaller at the source"),
        ("price / 1000", "which is 1000 times larger at the source"),
        ("price * 7000", "which is 7000 times smaller at the source"),
        ("price / 1e25", "which is 10000000000000000000000000 times larger at the source"),
        ("price * 3", "which is 3 times smaller at the source"),
        ("-price", "which is of the opposite sign at the source"),
        ("price * -100", "which is 100 times smaller and of the opposite sign at the source"),
        ("price + 1e-12", "which is 0.000000000001 less at the source"),
        ("price - 10", "which is 10 more at the source"),
        ("price + 0.5", "which is 0.5 less at the source"),
        ("price + CASE WHEN id <= 360 THEN 10 ELSE id END", "which is 10 less at the source in 360 of them"),
        ("CASE WHEN id <= 30 THEN NULL WHEN id <= 60 THEN 0 ELSE price * 100 END", "which is 100 times smaller"),
    ],
)
def test_numbers_that_differ_in_one_way(conn, records, copy, how):
    conn.execute(sql.SQL("UPDATE shop.parts SET price = " + copy))
    [found, *_] = [each for each in lines(replanned(conn, records)) if "differ in" in each]
    assert found.startswith(f"{NUMBER} of {NUMBER} rows to update differ in price only, {how}")


def test_integers_that_differ_in_one_way(conn):
    stock = [{"place": f"SHOP-{i % 8}", "bin": i, "count": i % 50 + 1} for i in range(400)]
    apply(conn, planned(conn, STOCK, stock))
    conn.execute("UPDATE shop.stock SET count = count * 12")
    found = "400 of 400 rows to update differ in count only, which is 12 times smaller at the source"
    assert found in lines(planned(conn, STOCK, stock))


@pytest.mark.parametrize(
    "copy", ["7", "NULL", "'NaN'", "price + id % 3 + 1", "CASE WHEN id % 10 < 7 THEN price * 100 ELSE price + id END"]
)
def test_numbers_that_differ_in_no_way_that_is_worth_telling(conn, records, copy):
    """One value on either side has one difference, and says no more of how it came about."""
    for record in records:
        record["price"] = "70" if copy == "7" else record["price"]
    apply(conn, planned(conn, PARTS, records))
    conn.execute(sql.SQL("UPDATE shop.parts SET price = " + copy))
    found = [each for each in lines(replanned(conn, records)) if "differ in price" in each]
    assert all(each.endswith(("price only", "which is empty in the copy")) for each in found)
    assert found


@pytest.mark.parametrize("seed", range(20))
def test_random_numbers_differ_in_no_way(conn, seed):
    """Many values or few, as of counts and flags."""
    random_ = random.Random(seed)
    most = random_.choice([1, 2, 5, 500])
    stock = [{"place": "SHOP", "bin": i, "count": random_.randint(0, most)} for i in range(random_.choice([12, 90]))]
    apply(conn, planned(conn, STOCK, stock))
    changed = [each | {"count": random_.choice([n for n in range(most + 1) if n != each["count"]])} for each in stock]
    assert not [each for each in lines(planned(conn, STOCK, changed)) if "which is" in each]


@pytest.mark.parametrize("seed", range(40))
def test_random_drift_has_nothing_in_common(conn, seed):
    random_ = random.Random(seed)
    records = parts(random_)
    apply(conn, planned(conn, PARTS, records[:200]))
    apply(conn, planned(conn, PARTS, records))
    number = random_.choice([9, 12, 30, 80, 200])
    lost, spoilt, extra = (set(random_.sample(range(1, NUMBER + 1), number)) for _ in range(3))
    conn.execute("DELETE FROM shop.parts WHERE id = ANY (%s)", [list(lost)])
    for change in (
        "name = 'NUT'",
        "price = price + id %% 7 + 1",
        "updated_at = updated_at + (id %% 37 + 1) * interval '1 day'",
    ):
        some = random_.sample(sorted(spoilt), number // 3)
        conn.execute(sql.SQL("UPDATE shop.parts SET " + change + " WHERE id = ANY (%s)"), [some])
    assert lines(replanned(conn, [each for each in records if each["id"] not in extra], pages=9)) == []


@pytest.mark.parametrize(("of", "gone"), [(40, 28), (60, 45), (60, 20)])
def test_small_table_of_which_the_oldest_rows_are_gone(conn, of, gone):
    records = parts(random.Random(of))[:of]
    apply(conn, planned(conn, PARTS, records))
    first, *_ = lines(replanned(conn, records[gone:]))
    assert first == f"{gone} of {gone} rows to delete have id between 1 and {gone}" + these(gone, gone, of)


@pytest.mark.parametrize("seed", range(60))
def test_small_table_of_which_rows_are_gone_by_chance_has_nothing_to_tell(conn, seed):
    random_ = random.Random(seed)
    records = parts(random_)[: random_.choice([12, 16, 24, 40, 60])]
    apply(conn, planned(conn, PARTS, records))
    kept = random_.sample(records, random_.randint(1, len(records) - 10))
    conn.execute("UPDATE shop.parts SET price = price + id %% 7 + 1 WHERE id = ANY (%s)", [[r["id"] for r in kept]])
    assert [
        each for each in lines(replanned(conn, sorted(kept, key=lambda r: r["id"]))) if "differ in" not in each
    ] == []


def test_number_that_all_rows_have(conn, records):
    for record in records[:40]:
        record["price"] = "12.50"
    for record in records[40:]:
        record["price"] = str(record["id"] % 12)
    apply(conn, planned(conn, PARTS, records))
    found = lines(replanned(conn, records[40:]))
    assert "40 of 40 rows to delete have price 12.50" + these(40, 40, 400) in found


def test_values_of_which_a_column_has_many_are_not_told(conn, records):
    """A number plate looks like a code, and a wage is a number."""
    for record in records[:40]:
        record |= {"name": "ABC-1234", "price": "70"}
    for record in records[40:]:
        record |= {"name": f"PLATE-{record['id']}", "price": str(1000 + record["id"])}
    apply(conn, planned(conn, PARTS, records))
    found = "\n".join(lines(replanned(conn, [*records[40:], *records[:3]])))
    assert "share one value of name" in found
    assert "ABC" not in found
    assert "70" not in found.replace("370", "")


@pytest.mark.parametrize(
    ("has", "of", "present", "told"),
    [
        (
            20,
            40,
            20,
            "20 of 40 rows to delete have place SHOP-1" + these(20, 20, 400),
        ),
        (20, 41, 20, None),
        # Of the other 370 rows half have it, or one more.
        (
            30,
            30,
            215,
            "30 of 30 rows to delete have place SHOP-1" + these(30, 215, 400),
        ),
        (30, 30, 216, None),
        (
            10,
            10,
            10,
            "10 of 10 rows to delete have place SHOP-1" + these(10, 10, 400),
        ),
        (9, 9, 9, None),
    ],
)
def test_is_told_of_ten_rows_and_half_of_them_if_the_table_has_it_half_as_often(conn, has, of, present, told):
    stock = [{"place": "SHOP-1" if i < present else f"SHOP-{i % 9 + 2}", "bin": i, "count": 1} for i in range(400)]
    apply(conn, planned(conn, STOCK, stock))
    found = [each for each in lines(planned(conn, STOCK, stock[has : 400 - of + has])) if "SHOP-1." in each]
    assert found == ([told] if told else [])


@pytest.mark.parametrize(("same", "told"), [(8, ["8 of 10 rows to update differ in name only"]), (7, [])])
def test_columns_that_differ_are_those_of_four_in_five_rows(conn, records, same, told):
    for record in records[:same]:
        record["name"] = "WASHER"
    for record in records[same:10]:
        record["price"] = "0.5"
    assert [each for each in lines(replanned(conn, records)) if "differ in" in each] == told


def test_only_confirmed_changes_of_the_operation_itself_count(conn):
    """What stayed unproven differs in another way, and the rows of each operation in one of their own."""
    kept = [{"place": f"SHOP-{i % 8}", "bin": i, "count": i % 50 + 1} for i in range(400)]
    gone = [{"place": "GONE", "bin": i, "count": 1} for i in range(55)]
    apply(conn, planned(conn, STOCK, [*kept, *gone]))
    conn.execute("UPDATE shop.stock SET count = count * 12 WHERE bin < 60 AND place <> 'GONE'")
    conn.execute("UPDATE shop.stock SET count = 7000 WHERE bin BETWEEN 60 AND 64")
    stage = planned(conn, STOCK, [*kept, *({"place": "NEW", "bin": i, "count": 1} for i in range(75))])
    for where in ("place = 'GONE' AND bin >= 50", "place = 'NEW' AND bin >= 70", "bin >= 60 AND place LIKE 'SHOP%'"):
        conn.execute(sql.SQL("UPDATE {} SET _status = 'unproven' WHERE " + where).format(stage.plan))
    found = find_patterns(stage)
    assert {(each.operation, each.of) for each in found} == {("delete", 50), ("update", 60), ("insert", 70)}
    told = [str(each) for each in found]
    assert "50 of 50 rows to delete have place GONE" + these(50, 50, 445) in told
    assert "70 of 70 rows to insert have place NEW" + these(70, 75, 475) in told
    assert "60 of 60 rows to update differ in count only, which is 12 times smaller at the source" in told


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"price": None}, "price only, which is empty at the source"),
        ({"updated_at": "2026-12-17T00:00:00+00:00"}, "updated_at only, which is 24 h later at the source"),
    ],
)
def test_columns_differ_in_one_way_whatever_other_rows_do(conn, records, change, how):
    """Neither a row that differs in another column only, nor a change that is not confirmed, says how."""
    for record in records[:40]:
        record["updated_at"] = "2026-12-16T00:00:00+00:00"
    apply(conn, planned(conn, PARTS, records))
    for record in records[:40]:
        record |= change
    records[40]["name"] = "WASHER"
    records[41] |= {"price": "999", "updated_at": day(500).isoformat()}
    stage = replanned(conn, records)
    conn.execute(sql.SQL("UPDATE {} SET _status = 'unproven' WHERE id = 42").format(stage.plan))
    assert f"40 of 41 rows to update differ in {how}" in lines(stage)


def test_few_rows_have_nothing_in_common(conn, records):
    assert lines(replanned(conn, records[9:])) == []


def test_says_the_most_telling_first_and_only_some(conn, records):
    found = find_patterns(replanned(conn, records[:300]))
    assert len(found) <= MOST
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
