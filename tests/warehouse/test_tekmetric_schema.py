"""Tekmetric's schema: who sees what, what refers to what, and what it says of customers."""

import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import errors, sql
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from include.warehouse import compare, fence, migrate, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.migrations import ddl
from include.warehouse.rollback import roll_back
from include.warehouse.staging import Stage
from include.warehouse.table_rollback import Tables
from tests.conftest import copy_of
from tests.repair_shops import TABLES, bury, march, order, put, rows, write

NAMES = (*TABLES, "tm_raw_payloads")
VIEWS = ("customers_analytics", "sync_cursors", "sync_log")
ALL = [*NAMES, *VIEWS]
# Roles are the whole server's, which others may use too.
NUMBER = uuid.uuid4().int % 10**9 * 10
OWN, OTHER = NUMBER + 1, NUMBER + 2
ITEM_TABLES = ("job_parts", "job_labor", "job_sublets", "job_fees")


def fill(conn: psycopg.Connection, shop: int) -> None:
    """A row of this shop in every table, and in every view."""
    put(conn, "shops", {"tm_id": shop, "name": "A shop"})
    put(conn, "employees", {"shop_id": shop, "id": 31, "employeeRole": {"code": 3}})
    put(conn, "customers", {"shop_id": shop, "id": 51})
    put(conn, "vehicles", {"shop_id": shop, "id": 61, "customerId": 51})
    items = {"parts": [{"id": 11}], "sublets": [{"id": 12}], "fees": [{"name": "Shop supplies"}]}
    labor = {"labor": [{"id": 13, "hours": 1, "technician": {"id": 31}}]}
    known = {"tm_customer_id": 51, "tm_vehicle_id": 61, "tm_service_advisor_id": 31}
    order(conn, shop, 1, jobs=[{"id": 7, "authorized": True} | items | labor], fees=[{"name": "Fee"}], **known)
    snapshot = {"shop_id": shop, "tm_repair_order_id": 1, "snapshot_date": march(2), "snapshot_trigger": "posted"}
    write(conn, "ro_snapshots", snapshot | {"ro_status": "POSTED", "calculation_method": "TRUE_GP"})
    write(conn, "daily_shop_metrics", {"shop_id": shop, "metric_date": march(2), "calculation_method": "x"})
    write(conn, "tech_daily_metrics", {"shop_id": shop, "metric_date": march(2), "tm_technician_id": 31})
    conn.execute(
        "INSERT INTO tekmetric.tm_raw_payloads (shop_id, endpoint, payload, run) VALUES (%s, '/api/x', '{}', 'a/b')",
        [shop],
    )
    sync_id = sync_log.begin(conn, "tekmetric", "sync", "tekmetric_sync/test")
    sync_log.advance(conn, sync_id, "tekmetric", "customers", watermark=None, partition=str(shop))
    sync_log.finish(conn, sync_id, {"customers": sync_log.Counts(read=5)})
    changed(conn, sync_id, shop, 1, "insert")


def changed(conn: psycopg.Connection, sync_id: int, shop: int, order: int, operation: str) -> None:
    """Note that the sync changed an order of the shop."""
    conn.execute(
        "INSERT INTO confidence.change_log (sync_id, table_name, key, operation)"
        " VALUES (%s, 'tekmetric.repair_orders', jsonb_build_object('shop_id', %s::bigint, 'tm_id', %s::bigint), %s)",
        [sync_id, shop, order, operation],
    )


def anonymous(statement: str) -> str:
    """A test's name is the same in every process, the roles' are not."""
    return statement.replace(str(OWN), "own").replace(str(OTHER), "other").replace(str(NUMBER), "0")


@dataclass(frozen=True)
class Platform:
    """A warehouse with two shops, and roles with which to read it."""

    url: str

    @contextmanager
    def as_(self, role: str) -> Iterator[psycopg.Connection]:
        url = urlsplit(self.url)
        url = url._replace(netloc=f"{role}:secret@{url.hostname}:{url.port}").geturl()
        with psycopg.connect(url, autocommit=True) as conn:
            yield conn


SERVANT, SHOPKEEPER, OTHERS = f"servant_{NUMBER}", f"tekmetric_shop_{OWN}", f"tekmetric_shop_{OTHER}"
ANALYST = f"tekmetric_analytics_{OWN}"
GROUPS = {
    SERVANT: "tekmetric_service",
    SHOPKEEPER: "tekmetric_shop",
    ANALYST: "tekmetric_analytics",
    OTHERS: None,
}


@pytest.fixture(scope="module")
def platform(postgres, migrated) -> Iterator[Platform]:
    for url in copy_of(postgres, migrated):
        with psycopg.connect(url, autocommit=True) as conn:
            for shop in (OWN, OTHER):
                fill(conn, shop)
            for role, group in GROUPS.items():
                conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' {f'IN ROLE {group}' if group else ''}")
            yield Platform(url)
            for role in GROUPS:
                conn.execute(f"DROP ROLE {role}")


@pytest.fixture
def shopkeeper(platform) -> Iterator[psycopg.Connection]:
    """A session of the first shop's role."""
    with platform.as_(SHOPKEEPER) as conn:
        yield conn


def shops_in(conn: psycopg.Connection, name: str) -> set[int]:
    """The shops whose rows the session sees there."""
    column = "tm_id" if name == "shops" else "shop_id"
    query = sql.SQL("SELECT DISTINCT {} FROM tekmetric.{}").format(sql.Identifier(column), sql.Identifier(name))
    return {shop for (shop,) in conn.execute(query)}


def test_fourteen_tables_and_three_views(conn):
    query = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'tekmetric'"
    found = dict(conn.execute(query).fetchall())
    assert {name for name, kind in found.items() if kind == "BASE TABLE"} == set(NAMES)
    assert {name for name, kind in found.items() if kind == "VIEW"} == set(VIEWS)
    assert len(NAMES) == 14


@pytest.mark.parametrize("name", TABLES)
def test_declaration_and_migration_agree(conn, name):
    table = TABLES[name]
    found = conn.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'tekmetric' AND table_name = %s"
        " AND is_generated = 'NEVER'",
        [name],
    )
    assert {column for (column,) in found} == {*table.names, "deleted_at", "sync_id"}
    assert len(set(table.names)) == len(table.names)
    key = conn.execute(
        "SELECT array_agg(attname::text ORDER BY array_position(indkey::int2[], attnum)) FROM pg_index JOIN"
        " pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) WHERE indisprimary AND indrelid = %s::regclass",
        [table.full_name],
    ).fetchone()[0]
    assert tuple(key) == table.key


class TestRoles:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_table_has_its_policies(self, conn, name):
        guarded = "SELECT relrowsecurity FROM pg_class WHERE oid = format('tekmetric.%%I', %s::text)::regclass"
        assert conn.execute(guarded, [name]).fetchone() == (True,)
        query = "SELECT policyname, roles::text[] FROM pg_policies WHERE schemaname = 'tekmetric' AND tablename = %s"
        assert dict(conn.execute(query, [name]).fetchall()) == {
            "tekmetric_service": ["tekmetric_service"],
            "tekmetric_shop": ["tekmetric_shop"],
            "warehouse_tasks": ["warehouse_tasks"],
            "warehouse_read": ["warehouse_read"],
        }

    @pytest.mark.parametrize("name", ALL)
    def test_service_sees_all_and_a_shop_its_own(self, platform, shopkeeper, name):
        with platform.as_(SERVANT) as servant:
            assert shops_in(servant, name) - {None} == {OWN, OTHER}
        assert shops_in(shopkeeper, name) == {OWN}

    @pytest.mark.parametrize("name", ALL)
    def test_the_name_alone_is_no_key(self, platform, name):
        """A role of a shop's name that was not made a member."""
        with platform.as_(OTHERS) as conn, pytest.raises(errors.InsufficientPrivilege):
            shops_in(conn, name)

    def test_whoever_migrated_sees_all(self, platform):
        with psycopg.connect(platform.url) as owner:
            assert [shops_in(owner, name) - {None} for name in VIEWS] == [{OWN, OTHER}] * 3

    def test_service_writes(self, platform):
        with platform.as_(SERVANT) as servant, servant.transaction(force_rollback=True):
            for name in reversed(NAMES):
                table = sql.Identifier("tekmetric", name)
                assert servant.execute(sql.SQL("UPDATE {} SET id = DEFAULT").format(table)).rowcount >= 2
            put(servant, "shops", {"tm_id": NUMBER + 3})
            put(servant, "customers", {"shop_id": NUMBER + 3, "id": 1})
            assert servant.execute("DELETE FROM tekmetric.vehicles").rowcount == 2

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE {} SET id = DEFAULT",
            "DELETE FROM {}",
            "TRUNCATE {} CASCADE",
            "INSERT INTO {} (id) VALUES (DEFAULT)",
            "ALTER TABLE {} DISABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON {} USING (true)",
        ],
    )
    def test_shop_writes_nothing(self, shopkeeper, name, statement):
        with pytest.raises(errors.InsufficientPrivilege):
            shopkeeper.execute(sql.SQL(statement).format(sql.Identifier("tekmetric", name)))

    @pytest.mark.parametrize(
        "statement",
        [
            "SET ROLE tekmetric_service",
            f"SET ROLE {OTHERS}",
            f"SET ROLE {SERVANT}",
            f"SET SESSION AUTHORIZATION {OTHERS}",
            f"SET SESSION AUTHORIZATION {SERVANT}",
            "SET session_replication_role = replica",
            "ALTER ROLE CURRENT_USER BYPASSRLS",
            f"GRANT tekmetric_service TO {SHOPKEEPER}",
            f"ALTER ROLE {SHOPKEEPER} RENAME TO renamed",
            "CREATE FUNCTION tekmetric.visible(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
            "TABLE confidence.sync_log",
            "TABLE confidence.sync_state",
            "TABLE confidence.change_log",
            "TABLE staging.pull",
        ],
        ids=anonymous,
    )
    def test_shop_may_not(self, shopkeeper, statement):
        with pytest.raises(psycopg.Error) as refused:
            shopkeeper.execute(statement)
        assert refused.type in (errors.InsufficientPrivilege, errors.FeatureNotSupported)

    @pytest.mark.parametrize(
        "settings",
        [
            f"SET tekmetric.shop_id = '{OTHER}'",
            f"SET app.current_shop = '{OTHER}'; SET request.jwt.claims = '{{\"shop_id\": {OTHER}}}'",
            f"SET application_name = '{OTHERS}'",
            "SET ROLE NONE",
            "RESET ALL",
            "DISCARD ALL",
            "CREATE TEMP VIEW shops AS SELECT 1; SET search_path = pg_temp, tekmetric",
            "CREATE FUNCTION pg_temp.visible(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
            " SET search_path = pg_temp, pg_catalog",
            "CREATE FUNCTION pg_temp.pg_has_role(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
            " SET search_path = pg_temp, pg_catalog",
        ],
        ids=anonymous,
    )
    def test_no_setting_widens_what_a_shop_sees(self, shopkeeper, settings):
        for statement in settings.split("; "):
            shopkeeper.execute(statement)
        assert {name: shops_in(shopkeeper, name) for name in ALL} == {name: {OWN} for name in ALL}

    def test_shop_does_not_become_the_owner(self, platform, shopkeeper):
        owner = sql.Identifier(urlsplit(platform.url).username)
        for statement in ("SET ROLE {}", "SET SESSION AUTHORIZATION {}"):
            with pytest.raises(errors.InsufficientPrivilege):
                shopkeeper.execute(sql.SQL(statement).format(owner))

    def test_analyst_sees_the_customers_of_its_shop_in_the_view_and_nothing_else(self, platform):
        with platform.as_(ANALYST) as analyst:
            assert shops_in(analyst, "customers_analytics") == {OWN}
            assert analyst.execute("SELECT sum(vehicle_count) FROM tekmetric.customers_analytics").fetchone() == (1,)
            analyst.execute("SET row_security = off")
            assert shops_in(analyst, "customers_analytics") == {OWN}
            for name in {*ALL} - {"customers_analytics"}:
                with pytest.raises(errors.InsufficientPrivilege):
                    shops_in(analyst, name)
            analyst.execute("SET ROLE tekmetric_analytics")
            assert shops_in(analyst, "customers_analytics") == set()

    def test_view_of_customers_needs_no_right_to_the_table(self, platform, shopkeeper):
        with psycopg.connect(platform.url) as owner:
            owner.execute("REVOKE ALL ON tekmetric.customers, tekmetric.vehicles FROM tekmetric_shop")
            owner.commit()
            try:
                assert shops_in(shopkeeper, "customers_analytics") == {OWN}
            finally:
                owner.execute("GRANT SELECT ON tekmetric.customers, tekmetric.vehicles TO tekmetric_shop")

    def test_without_row_security_is_an_error(self, shopkeeper):
        shopkeeper.execute("SET row_security = off")
        for name in NAMES:
            with pytest.raises(errors.InsufficientPrivilege):
                shops_in(shopkeeper, name)
        assert [shops_in(shopkeeper, name) for name in ("sync_cursors", "sync_log")] == [{OWN}] * 2

    def test_the_group_itself_sees_nothing(self, shopkeeper):
        shopkeeper.execute("SET ROLE tekmetric_shop")
        assert {name: shops_in(shopkeeper, name) for name in ALL} == {name: set() for name in ALL}

    @pytest.mark.parametrize("name", ALL)
    def test_no_function_is_shown_other_rows(self, shopkeeper, name):
        """One that costs nothing would be asked before the policy, did it not hold Postgres back."""
        told = []
        shopkeeper.add_notice_handler(lambda notice: told.append(notice.message_primary))
        shopkeeper.execute(
            "CREATE FUNCTION pg_temp.tell(shop bigint) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
            " $$ BEGIN RAISE NOTICE '%', shop; RETURN true; END $$"
        )
        column = sql.Identifier("tm_id" if name == "shops" else "shop_id")
        table = sql.Identifier("tekmetric", name)
        shopkeeper.execute(sql.SQL("SELECT FROM {} WHERE pg_temp.tell({})").format(table, column))
        assert set(told) == {str(OWN)}


class TestReferences:
    @pytest.mark.parametrize(
        ("table", "column", "to"),
        [
            ("vehicles", "customer_id", "customers"),
            ("repair_orders", "customer_id", "customers"),
            ("repair_orders", "vehicle_id", "vehicles"),
            ("repair_orders", "service_advisor_id", "employees"),
            ("jobs", "repair_order_id", "repair_orders"),
            *((table, "repair_order_id", "repair_orders") for table in ITEM_TABLES),
            *((table, "job_id", "jobs") for table in ITEM_TABLES),
            ("job_labor", "technician_id", "employees"),
            ("ro_snapshots", "repair_order_id", "repair_orders"),
            ("tech_daily_metrics", "technician_id", "employees"),
        ],
    )
    def test_ids_lead_to_the_row_they_name(self, platform, table, column, to):
        query = sql.SQL(
            "SELECT count(c.{0}), count(t.id) FROM tekmetric.{1} c"
            " LEFT JOIN tekmetric.{2} t ON t.id = c.{0} AND t.shop_id = c.shop_id"
        ).format(*map(sql.Identifier, (column, table, to)))
        with psycopg.connect(platform.url) as conn:
            named, found = conn.execute(query).fetchone()
        assert named == found >= 2

    def test_null_names_nothing(self, conn):
        put(conn, "shops", {"tm_id": OWN})
        order(conn, OWN, 1, fees=[{"name": "Fee"}])
        query = "SELECT customer_id, vehicle_id, service_advisor_id FROM tekmetric.repair_orders"
        assert conn.execute(query).fetchone() == (None, None, None)
        assert conn.execute("SELECT job_id FROM tekmetric.job_fees").fetchone() == (None,)

    @pytest.mark.parametrize("name", TABLES)
    def test_id_follows_from_the_key(self, platform, name):
        """The same after a rebuild, and the one that the function tells."""
        key = [
            sql.SQL("({} - DATE '1970-01-01')::text" if column.endswith("_date") else "{}::text").format(
                sql.Identifier(column)
            )
            for column in TABLES[name].key
        ]
        query = sql.SQL(
            "SELECT count(*), count(DISTINCT id) FROM tekmetric.{} WHERE id = tekmetric.uid({}, {})"
        ).format(sql.Identifier(name), sql.Literal(name), sql.SQL(", ").join(key))
        with psycopg.connect(platform.url) as conn:
            (all_,) = conn.execute(sql.SQL("SELECT count(*) FROM tekmetric.{}").format(sql.Identifier(name))).fetchone()
            assert conn.execute(query).fetchone() == (all_, all_)

    def test_id_never_changes(self, conn):
        query = "SELECT tekmetric.uid('jobs', '6212', '88012301')"
        digest = hashlib.md5(b"jobs/6212/88012301", usedforsecurity=False).digest()
        assert conn.execute(query).fetchone() == (uuid.UUID(bytes=digest),)
        assert conn.execute("SELECT tekmetric.uid('jobs', '6212', NULL)").fetchone() == (None,)


@pytest.fixture
def shop(conn):
    """An order with a job, in which there is one of each, with a snapshot."""
    fill(conn, OWN)
    return conn


def count(conn, name):
    return conn.execute(sql.SQL("SELECT count(*) FROM tekmetric.{}").format(sql.Identifier(name))).fetchone()[0]


class TestCascades:
    def test_order_takes_along_all_that_is_its(self, shop):
        shop.execute("DELETE FROM tekmetric.repair_orders")
        assert {name: count(shop, name) for name in ("jobs", *ITEM_TABLES, "ro_snapshots")} == dict.fromkeys(
            ("jobs", *ITEM_TABLES, "ro_snapshots"), 0
        )
        assert (count(shop, "customers"), count(shop, "daily_shop_metrics")) == (1, 1)

    def test_job_takes_along_its_items(self, shop):
        with shop.transaction(force_rollback=True):
            shop.execute("DELETE FROM tekmetric.jobs")
            assert [count(shop, name) for name in ("job_parts", "job_labor", "job_sublets")] == [0, 0, 0]
            assert (count(shop, "repair_orders"), count(shop, "job_fees")) == (1, 2)

    def test_tombstones_take_along_nothing(self, shop):
        bury(shop, "repair_orders", tm_id=1)
        assert len(rows(shop, "jobs")) == 1

    def test_tables_may_be_written_in_any_order(self, conn):
        with conn.transaction():
            own = {"shop_id": OWN, "tm_repair_order_id": 1}
            put(conn, "job_parts", own | {"tm_job_id": 2, "line": "3", "id": 3})
            put(conn, "jobs", own | {"id": 2})
            put(conn, "repair_orders", {"shop_id": OWN, "tm_id": 1, "status": "POSTED"})
            put(conn, "shops", {"tm_id": OWN})

    @pytest.mark.parametrize("name", [name for name in NAMES if name not in ("shops", "tm_raw_payloads")])
    def test_no_row_without_its_shop(self, shop, name):
        shop.execute("SET session_replication_role = replica")
        shop.execute("DELETE FROM tekmetric.shops")
        shop.execute("SET session_replication_role = origin")
        with pytest.raises(errors.ForeignKeyViolation):
            shop.execute(sql.SQL("UPDATE tekmetric.{} SET shop_id = shop_id + 1").format(sql.Identifier(name)))

    def test_no_item_without_its_job_nor_job_without_its_order(self, shop):
        own = {"shop_id": OWN, "tm_repair_order_id": 1}
        with pytest.raises(errors.ForeignKeyViolation):
            put(shop, "job_parts", own | {"tm_job_id": 999, "line": "1"})
        with pytest.raises(errors.ForeignKeyViolation):
            put(shop, "jobs", own | {"tm_repair_order_id": 999, "id": 8})

    def test_order_may_name_people_who_are_gone(self, shop):
        order(shop, OWN, 2, tm_customer_id=999, tm_vehicle_id=999, tm_service_advisor_id=999)

    def test_rollback_and_its_own_rollback_are_exact(self, conn):
        """Snapshots go before their orders, or their order would take them along and nobody could bring them back."""
        put(conn, "shops", {"tm_id": OWN})
        own = {"shop_id": OWN, "tm_repair_order_id": 1}
        records = {
            "repair_orders": {"shop_id": OWN, "tm_id": 1, "status": "POSTED", "ro_number": 1, "status_id": 5}
            | {"created_date": f"{march(1)}T12:00:00Z", "updated_date": f"{march(2)}T12:00:00Z"},
            "jobs": own | {"id": 2},
            "job_parts": own | {"tm_job_id": 2, "line": "3", "id": 3},
            "ro_snapshots": own
            | {"snapshot_date": march(2), "snapshot_trigger": "posted", "ro_status": "POSTED"}
            | {"calculation_method": "TRUE_GP"},
        }
        nothing = everything(conn)
        sync_id = sync_log.begin(conn, "tekmetric", "sync", "tekmetric_sync/test")
        with fence.writing(conn, "tekmetric", epoch=0):
            for name, record in records.items():
                stage = Stage.open(conn, TABLES[name], "tekmetric", "sync", "a test")
                stage.append([record], next_position=None, page_info={})
                compare.plan_writes(stage)
                apply_plan(conn, stage.table, stage.plan, sync_id)
        sync_log.finish(conn, sync_id, {})
        written = everything(conn)
        undone = roll_back(conn, Tables(conn), sync_id, run="a/test", reason="a test", dry_run=False)
        assert everything(conn) == nothing
        assert {name: counts.deleted for name, counts in undone.tables.items()} == {
            f"tekmetric.{name}": 1 for name in records
        }
        again = roll_back(conn, Tables(conn), undone.sync_id, run="a/test", reason="a test", dry_run=False)
        assert everything(conn) == written
        roll_back(conn, Tables(conn), again.sync_id, run="a/test", reason="a test", dry_run=False)
        assert everything(conn) == nothing


def everything(conn):
    return {
        name: sorted(conn.execute(sql.SQL("SELECT to_jsonb(t)::text FROM tekmetric.{} t").format(sql.Identifier(name))))
        for name in TABLES
    }


OF_JOB = {"shop_id": OWN, "tm_repair_order_id": 1, "tm_job_id": 7}


class TestItems:
    @pytest.mark.parametrize("table", ITEM_TABLES)
    def test_one_living_item_an_id(self, shop, table):
        put(shop, table, OF_JOB | {"line": "a", "id": 99})
        with pytest.raises(errors.ExclusionViolation):
            put(shop, table, OF_JOB | {"line": "b", "id": 99})
        bury(shop, table, line="a")
        put(shop, table, OF_JOB | {"line": "b", "id": 99})
        put(shop, "shops", {"tm_id": OTHER})
        order(shop, OTHER, 1, jobs=[{"id": 7}])
        put(shop, table, OF_JOB | {"shop_id": OTHER, "line": "a", "id": 99})

    def test_item_may_move_to_another_job(self, shop):
        put(shop, "jobs", {"shop_id": OWN, "tm_repair_order_id": 1, "id": 8})
        with shop.transaction():
            put(shop, "job_parts", OF_JOB | {"tm_job_id": 8, "line": "11", "id": 11})
            bury(shop, "job_parts", tm_job_id=7, line="11")

    def test_items_without_an_id_are_told_apart_by_their_line(self, shop):
        for line in ("Bolt#1", "Bolt#2"):
            put(shop, "job_parts", OF_JOB | {"line": line, "name": "Bolt"})
        assert count(shop, "job_parts") == 3

    def test_orders_of_a_shop_have_fees_of_their_own(self, shop):
        """The fees of an order itself all have the job 0."""
        order(shop, OWN, 2, fees=[{"name": "Fee", "amount": 5}])
        order(shop, OWN, 3, fees=[{"name": "Fee", "amount": 6}])
        assert {key[1]: row["amount"] for key, row in rows(shop, "job_fees").items() if not key[2]} == {
            1: None,
            2: 5,
            3: 6,
        }

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("Shop Supplies", "shop_supplies"),
            ("SUPPLIES (SHOP)", "shop_supplies"),
            ("Environmental fee", "environmental"),
            ("HazMat", "hazmat"),
            ("Hazardous waste disposal", "hazmat"),
            ("Tire Disposal", "disposal"),
            ("Supplies", "other"),
            (None, "other"),
        ],
    )
    def test_fee_type(self, shop, name, kind):
        put(shop, "job_fees", OF_JOB | {"line": "x", "name": name})
        assert shop.execute("SELECT fee_type FROM tekmetric.job_fees WHERE line = 'x'").fetchone() == (kind,)

    @pytest.mark.parametrize(
        ("rate", "hours", "cost", "source"),
        [
            ("3200.0", "2.25", 7200, "assigned"),
            (2801, "1.5", 4201, "assigned"),
            (2801, None, 0, "assigned"),
            (0, "1.5", None, None),
            (None, "1.5", None, None),
        ],
    )
    def test_labor_cost_where_the_line_tells_a_rate(self, shop, rate, hours, cost, source):
        put(shop, "job_labor", OF_JOB | {"line": "x", "hours": hours, "technician": {"id": 3, "hourlyRate": rate}})
        query = "SELECT labor_cost, rate_source FROM tekmetric.job_labor WHERE line = 'x'"
        assert shop.execute(query).fetchone() == (cost, source)

    @pytest.mark.parametrize(
        ("flags", "status"),
        [
            ({}, "ACTIVE"),
            ({"disabled": False, "deactivated": None}, "ACTIVE"),
            ({"disabled": True}, "INACTIVE"),
            ({"disabled": False, "deactivated": True}, "INACTIVE"),
        ],
    )
    def test_employees_status(self, shop, flags, status):
        put(shop, "employees", {"shop_id": OWN, "id": 31} | flags)
        assert shop.execute("SELECT status FROM tekmetric.employees").fetchone() == (status,)

    def test_snapshots_have_one_of_three_triggers(self, shop):
        with pytest.raises(errors.CheckViolation):
            shop.execute("UPDATE tekmetric.ro_snapshots SET snapshot_trigger = 'noticed'")


class TestViews:
    def test_analytics_has_no_personal_data(self, shop):
        """Whatever may tell who it is says so here; none of it comes through."""
        person = {
            **dict.fromkeys(("firstName", "lastName", "companyName", "notes"), "PERSONAL"),
            "email": ["PERSONAL@example.com"],
            "phone": [{"number": "PERSONAL", "type": "PERSONAL"}, {"number": "PERSONAL"}],
            "address": {"address1": "PERSONAL", "address2": "PERSONAL", "city": "Troy", "state": "NY", "zip": "12180"},
            "customerType": {"id": 1, "name": "Person"},
            "leadSource": {"id": 4, "name": "Web"},
            "okForMarketing": True,
            "taxExempt": False,
        }
        put(shop, "customers", {"shop_id": OWN, "id": 51} | person)
        put(
            shop,
            "vehicles",
            {"shop_id": OWN, "id": 62, "customerId": 51, "vin": "PERSONAL", "licensePlate": "PERSONAL"},
        )
        (found,) = shop.execute("SELECT to_jsonb(v) FROM tekmetric.customers_analytics v").fetchone()
        del found["id"]
        assert found == {
            "shop_id": OWN,
            "tm_id": 51,
            "customer_type_id": 1,
            "customer_type_name": "Person",
            "tax_exempt": False,
            "ok_for_marketing": True,
            "lead_source": "Web",
            "lead_source_id": 4,
            "city": "Troy",
            "state": "NY",
            "zip_prefix": "121",
            "country": None,
            "has_email": True,
            "has_phone": True,
            "vehicle_count": 2,
            "repair_order_count": 1,
            "created_date": None,
            "updated_date": None,
        }

    def test_analytics_of_those_who_are_there(self, shop):
        put(shop, "customers", {"shop_id": OWN, "id": 52, "email": []})
        bury(shop, "customers", tm_id=51)
        query = "SELECT tm_id, has_email, has_phone, vehicle_count FROM tekmetric.customers_analytics"
        assert shop.execute(query).fetchall() == [(52, False, False, 0)]

    def test_cursors_are_the_watermarks(self, conn):
        moment = "2026-03-02T10:00:00+00:00"
        sync_id = sync_log.begin(conn, "tekmetric", "sync", "tekmetric_sync/test")
        for partition in (str(OWN), ""):
            sync_log.advance(conn, sync_id, "tekmetric", "repair_orders", watermark=moment, partition=partition)
        other = sync_log.begin(conn, "square", "sync", "square_sync/test")
        sync_log.advance(conn, other, "square", "orders", watermark=moment)
        query = "SELECT shop_id, entity_type, last_tm_updated::text FROM tekmetric.sync_cursors ORDER BY shop_id"
        entity = ("repair_orders", "2026-03-02 10:00:00+00")
        assert conn.execute(query).fetchall() == [(OWN, *entity), (None, *entity)]

    def test_log_tells_each_shop_its_own(self, conn):
        sync_id = sync_log.begin(conn, "tekmetric", "sync", "tekmetric_sync/test")
        changed(conn, sync_id, OWN, 1, "insert")
        changed(conn, sync_id, OWN, 2, "update")
        changed(conn, sync_id, OTHER, 3, "delete")
        total = {"repair_orders": sync_log.Counts(read=9, inserted=1, updated=1, deleted=1, failed=1)}
        sync_log.finish(conn, sync_id, total, error=RuntimeError("order 1 of the other shop"))
        query = (
            "SELECT shop_id, sync_type, status, records_fetched, records_created, records_updated, records_deleted,"
            " error_count, errors FROM tekmetric.sync_log ORDER BY 1"
        )
        assert conn.execute(query).fetchall() == [
            (OWN, "incremental", "failed", None, 1, 1, 0, None, None),
            (OTHER, "incremental", "failed", None, 0, 0, 1, None, None),
            (None, "incremental", "failed", 9, 1, 1, 1, 1, "order 1 of the other shop"),
        ]

    @pytest.mark.parametrize(
        ("kind", "reason", "sync_type"),
        [
            ("sync", None, "incremental"),
            ("sync", "full", "full_backfill"),
            ("sync", "snapshot", "snapshot_rebuild"),
            ("sync", "shops of the connection", "shops of the connection"),
            ("repair", None, "repair"),
            ("watermark", "reset_watermark", "watermark"),
        ],
    )
    def test_log_tells_the_kind_of_each_sync(self, conn, kind, reason, sync_type):
        sync_id = sync_log.begin(conn, "tekmetric", kind, "tekmetric_sync/test", reason=reason)
        changed(conn, sync_id, OWN, 1, "insert")
        query = "SELECT shop_id, sync_type FROM tekmetric.sync_log ORDER BY 1"
        assert conn.execute(query).fetchall() == [(OWN, sync_type), (None, sync_type)]

    def test_raw_payloads_expire_after_a_week(self, shop):
        query = "SELECT expires_at - fetched_at FROM tekmetric.tm_raw_payloads"
        assert shop.execute(query).fetchone() == (timedelta(days=7),)


class TestMigration:
    def test_down_and_up_again(self, warehouse_url, migrated, monkeypatch):
        """Nothing is left of it but the roles, which another database of the server uses."""
        migrate.migrate(warehouse_url)
        before = shape(warehouse_url)
        with psycopg.connect(warehouse_url, autocommit=True) as conn:
            fill(conn, OWN)
        with monkeypatch.context() as patched:
            down = migrate.command.downgrade
            patched.setattr(migrate.command, "upgrade", lambda config, _: down(config, "0006"))
            assert migrate.migrate(warehouse_url) == "0006"
        assert [row for row in shape(warehouse_url) if "tekmetric" in row or "partitions" in row] == []
        with psycopg.connect(warehouse_url) as conn:
            assert conn.execute("SELECT FROM confidence.writer WHERE source = 'tekmetric'").fetchall() == []
            query = "SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)"
            groups = [group for group in GROUPS.values() if group]
            assert conn.execute(query, [groups]).fetchone() == (3,)
        migrate.migrate(warehouse_url)
        assert shape(warehouse_url) == before

    def test_roles_are_made_once_whoever_is_first(self, warehouse_url):
        name = f"group_{NUMBER}"
        with ThreadPoolExecutor(4) as executor:
            list(executor.map(lambda _: operate(warehouse_url, ddl.create_role, name), range(8)))
        with psycopg.connect(warehouse_url, autocommit=True) as conn:
            assert exists(conn, name)
            conn.execute(f"CREATE ROLE member_{NUMBER} IN ROLE {name}")
            operate(warehouse_url, ddl.drop_role, name)
            assert exists(conn, name)
            conn.execute(f"DROP ROLE member_{NUMBER}")
            conn.execute(f"CREATE TABLE given (); GRANT SELECT ON given TO {name}")
            operate(warehouse_url, ddl.drop_role, name)
            assert exists(conn, name)
            conn.execute("DROP TABLE given")
            operate(warehouse_url, ddl.drop_role, name)
            assert not exists(conn, name)


def exists(conn, role):
    return conn.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", [role]).fetchone() == (1,)


def operate(url, operation, *arguments):
    """Do as a migration would."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        operation(*arguments)
    engine.dispose()


def shape(url):
    """Every column and policy."""
    with psycopg.connect(url) as conn:
        columns = conn.execute(
            "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, ordinal_position"
        ).fetchall()
        query = "SELECT schemaname, tablename, policyname, qual FROM pg_policies ORDER BY 1, 2, 3"
        return columns + conn.execute(query).fetchall()


def test_values_keep_their_types(shop):
    """A quantity its half, an hour its hundredths, a day no time."""
    put(shop, "job_parts", OF_JOB | {"line": "x", "quantity": "0.5", "retail": Decimal("8906.9999999")})
    put(shop, "repair_orders", {"shop_id": OWN, "tm_id": 1, "status": "POSTED", "posted_date": "2026-03-02"})
    assert rows(shop, "job_parts")[OWN, 7, "x"]["quantity"] == Decimal("0.5")
    assert rows(shop, "job_parts")[OWN, 7, "x"]["retail"] == 8907
    assert rows(shop, "repair_orders")[OWN, 1]["posted_date"] == date(2026, 3, 2)
