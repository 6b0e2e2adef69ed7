"""Flex's schema: new or over the application's tables, what it notes of changes, and the key against duplicates."""

import csv
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import errors, sql
from psycopg.types.json import Jsonb
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from include.sources.flex import assignments
from include.sources.flex.checks import VERIFICATIONS, require_unique_key, verify
from include.sources.flex.plan import Member
from include.warehouse import migrate, sync_log
from tests.conftest import copy_of

KEY = "flex_crew_assignments_crew_call_technician_key"
SHARED = ("jobs", "profiles", "job_assignments", "flex_crew_calls", "flex_crew_assignments", "flex_sync_log")
TABLES = {
    *SHARED,
    *("element_gate", "operation", "owned_line", "kept_line", "job_change", "element_scan", "sync_health"),
}
NEWEST = "0034"
WITHOUT_KEY = f"ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT {KEY};"
UNIQUE = "ALTER TABLE flex.flex_crew_assignments ADD CONSTRAINT {} UNIQUE ({})"
# By each of these rows can be put there with ON CONFLICT.
KEYS = (
    UNIQUE.format("ours", "crew_call_id, technician_id"),
    UNIQUE.format(KEY, "technician_id, crew_call_id"),
    f"CREATE UNIQUE INDEX {KEY} ON flex.flex_crew_assignments (crew_call_id, technician_id)",
    "CREATE UNIQUE INDEX ours ON flex.flex_crew_assignments (technician_id, crew_call_id) INCLUDE (id)",
)
# By none of these.
NO_KEYS = (
    UNIQUE.format(KEY, "crew_call_id, technician_id") + " DEFERRABLE",
    UNIQUE.format("ours", "crew_call_id, technician_id") + " DEFERRABLE",
    UNIQUE.format("ours", "crew_call_id, technician_id, flex_line_item_id"),
    "CREATE UNIQUE INDEX ours ON flex.flex_crew_assignments (crew_call_id) INCLUDE (technician_id)",
    "CREATE UNIQUE INDEX ours ON flex.flex_crew_assignments (crew_call_id, technician_id) WHERE id IS NULL",
    "CREATE UNIQUE INDEX ours ON flex.flex_crew_assignments (crew_call_id, technician_id, (id::text))",
    "CREATE INDEX ours ON flex.flex_crew_assignments (crew_call_id, technician_id)",
)
# Nor by these, though they have the key's name.
NAMESAKES = (
    UNIQUE.format(KEY, "crew_call_id, flex_line_item_id"),
    f"ALTER TABLE flex.flex_crew_assignments ADD CONSTRAINT {KEY} CHECK (true)",
    f"CREATE INDEX {KEY} ON flex.flex_crew_assignments (crew_call_id)",
    f"CREATE UNIQUE INDEX {KEY} ON flex.flex_crew_assignments (crew_call_id, technician_id) WHERE id IS NULL",
)
SOUND, LIGHTS, ELEMENT = uuid4(), uuid4(), uuid4()
HEAD = "id,crew_call_id,technician_id,flex_line_item_id,created_at,job_id,department,first_name,last_name"

# The application's own: no defaults but its ids', states of its own type, columns that we know nothing of.
APPLICATION = """
CREATE SCHEMA flex;
CREATE TYPE flex.assignment_status AS ENUM ('invited', 'confirmed', 'declined');
CREATE TABLE flex.jobs (id uuid PRIMARY KEY, name text, job_type text, start_time timestamptz, end_time timestamptz);
CREATE TABLE flex.profiles (
  id uuid PRIMARY KEY, first_name text, last_name text, department text, flex_resource_id uuid, phone text);
CREATE TABLE flex.job_assignments (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), job_id uuid NOT NULL REFERENCES flex.jobs ON DELETE CASCADE,
  technician_id uuid NOT NULL REFERENCES flex.profiles ON DELETE CASCADE, sound_role text, lights_role text,
  video_role text, production_role text, status flex.assignment_status);
CREATE TABLE flex.flex_crew_calls (
  id uuid PRIMARY KEY, job_id uuid NOT NULL REFERENCES flex.jobs ON DELETE CASCADE,
  department text NOT NULL, flex_element_id uuid NOT NULL, UNIQUE (job_id, department));
CREATE TABLE flex.flex_crew_assignments (
  id uuid PRIMARY KEY, crew_call_id uuid NOT NULL REFERENCES flex.flex_crew_calls ON DELETE CASCADE,
  technician_id uuid NOT NULL REFERENCES flex.profiles ON DELETE CASCADE, flex_line_item_id uuid NOT NULL,
  created_at timestamptz DEFAULT now());
CREATE TABLE flex.flex_sync_log (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), job_id uuid NOT NULL REFERENCES flex.jobs (id),
  department text NOT NULL, added_count int DEFAULT 0, removed_count int DEFAULT 0, kept_count int DEFAULT 0,
  failed_count int DEFAULT 0, duration_ms int, triggered_by uuid REFERENCES flex.profiles (id), summary jsonb,
  created_at timestamptz DEFAULT now());
"""


def move(url: str, revision: str) -> None:
    """Bring the warehouse to the revision, up or down, in a transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            direction = command.downgrade if revision < now_at(url) else command.upgrade
            direction(config, revision)
    finally:
        engine.dispose()


def now_at(url: str) -> str:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT version_num FROM confidence.alembic_version").fetchone()[0]


def again(url: str, revision: str) -> None:
    """Run the migrations after the revision once more, though they are done."""
    with psycopg.connect(url) as conn:
        conn.execute("UPDATE confidence.alembic_version SET version_num = %s", [revision])
    move(url, "0009")


def add(conn: psycopg.Connection, table: str, **values) -> UUID:
    """A row of this id, of a new one where none is given."""
    row = {"id": uuid4()} | values
    query = sql.SQL("INSERT INTO flex.{} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Literal, row.values())),
    )
    conn.execute(query)
    return row["id"]


def change(conn: psycopg.Connection, table: str, **values) -> None:
    """Set the values in every row."""
    sets = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(n), sql.Literal(v)) for n, v in values.items())
    conn.execute(sql.SQL("UPDATE flex.{} SET {}").format(sql.Identifier(table), sets))


def number(digits: int) -> UUID:
    return UUID(int=digits)


def tables(conn: psycopg.Connection) -> list:
    """Every column, key and trigger of the schema."""
    columns = conn.execute(
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'flex' ORDER BY table_name, ordinal_position"
    ).fetchall()
    keys = conn.execute(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'flex'::regnamespace ORDER BY 1, 2"
    ).fetchall()
    triggers = conn.execute(
        "SELECT tgrelid::regclass::text, tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        " WHERE NOT tgisinternal AND c.relnamespace = 'flex'::regnamespace ORDER BY 1, 2"
    ).fetchall()
    return columns + keys + triggers


def indexes(conn: psycopg.Connection) -> list[tuple[str]]:
    """Of flex_crew_assignments, as statements."""
    query = "SELECT indexdef FROM pg_indexes WHERE tablename = 'flex_crew_assignments' ORDER BY 1"
    return conn.execute(query).fetchall()


def definitions(conn: psycopg.Connection) -> list[str]:
    """Of flex_crew_assignments every constraint and every other index, without its name."""
    query = """
    SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'flex.flex_crew_assignments'::regclass
    UNION ALL
    SELECT regexp_replace(pg_get_indexdef(indexrelid), 'INDEX .* ON', 'INDEX ON') FROM pg_index
    WHERE indrelid = 'flex.flex_crew_assignments'::regclass
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    """
    return sorted(definition for (definition,) in conn.execute(query))


def put_again(conn: psycopg.Connection, call: UUID, person: UUID) -> None:
    """Put the person's row there once more, as a sync does."""
    assignments.put(conn, Member(call, person), uuid4(), 0)


def found(conn: psycopg.Connection) -> dict[str, tuple[int, tuple[str, ...]]]:
    """The verifications that failed."""
    return {finding.name: (finding.actual, finding.examples) for finding in verify(conn) if finding.failed}


@pytest.fixture(scope="module")
def flex_url(postgres, migrated) -> Iterator[str]:
    yield from copy_of(postgres, migrated)


@pytest.fixture
def flex(flex_url) -> Iterator[psycopg.Connection]:
    """A migrated warehouse, which nothing stays in."""
    with psycopg.connect(flex_url, autocommit=True) as conn, conn.transaction(force_rollback=True):
        yield conn


@pytest.fixture(scope="module")
def before(postgres, migrated) -> Iterator[str]:
    """A warehouse that Flex is migrated into again and again."""
    yield from copy_of(postgres, migrated)


@pytest.fixture
def old_url(before) -> str:
    """A warehouse with the application's tables and rows, and without Flex: people 1 to 3, calls 11 and 12."""
    with psycopg.connect(before, autocommit=True) as conn:
        conn.execute(
            "DROP SCHEMA flex CASCADE; DELETE FROM confidence.writer WHERE source = 'flex';"
            "UPDATE confidence.alembic_version SET version_num = '0007'"
        )
        conn.execute(APPLICATION)
        add(conn, "jobs", id=number(9))
        for person, name in enumerate(("Ann", "Bo", 'Cy "C", the third'), 1):
            add(conn, "profiles", id=number(person), first_name=name, flex_resource_id=number(100 + person))
        add(conn, "flex_crew_calls", id=number(11), job_id=number(9), department="sound", flex_element_id=SOUND)
        add(conn, "flex_crew_calls", id=number(12), job_id=number(9), department="lights", flex_element_id=LIGHTS)
    return before


@pytest.fixture
def old(old_url) -> Iterator[psycopg.Connection]:
    with psycopg.connect(old_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def exports(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "warehouse" / "exports"
    monkeypatch.setenv("WAREHOUSE_EXPORTS", str(folder))
    return folder


def assign(conn, row: int, call: int, person: int, day: int | None) -> None:
    made = None if day is None else f"2026-03-{day:02}T12:00Z"
    add(
        conn,
        "flex_crew_assignments",
        **{"id": number(row), "crew_call_id": number(call), "technician_id": number(person)},
        **{"flex_line_item_id": number(1000 + row), "created_at": made},
    )


def duplicate(conn) -> None:
    """Five rows too many: of 31 to 33 the oldest is 32, of 41 to 44, of the same time or none, it is 42."""
    for row, call, person, day in (
        *((31, 11, 1, 3), (32, 11, 1, 1), (33, 11, 1, 2)),
        *((44, 11, 2, 5), (43, 11, 2, 5), (42, 11, 2, 5), (41, 11, 2, None)),
        *((51, 12, 1, 1), (52, 12, 2, 1), (53, 11, 3, 1)),
    ):
        assign(conn, row, call, person, day)


KEPT = {32, 42, 51, 52, 53}


def ids(conn) -> set[int]:
    return {id_.int for (id_,) in conn.execute("SELECT id FROM flex.flex_crew_assignments")}


class TestFresh:
    def test_tables(self, flex):
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'flex'"
        assert {name for (name,) in flex.execute(query)} == TABLES
        assert flex.execute("SELECT state FROM confidence.writer WHERE source = 'flex'").fetchone() == ("running",)

    def test_tables_of_our_own_say_why(self, flex):
        for name in TABLES - {*SHARED}:
            assert flex.execute("SELECT obj_description(%s::regclass)", [f"flex.{name}"]).fetchone()[0]

    def test_down_and_up_again(self, warehouse, conn):
        """The application's rows stay, and the lines that they name stay ours."""
        before = tables(conn)
        job, person = add(conn, "jobs"), add(conn, "profiles")
        call = add(conn, "flex_crew_calls", job_id=job, department="sound", flex_element_id=ELEMENT)
        line = uuid4()
        add(conn, "flex_crew_assignments", crew_call_id=call, technician_id=person, flex_line_item_id=line)
        move(warehouse, "0007")
        assert conn.execute("SELECT id FROM flex.jobs").fetchall() == [(job,)]
        assert conn.execute("SELECT to_regclass('flex.owned_line')").fetchone() == (None,)
        assert conn.execute("SELECT FROM confidence.writer WHERE source = 'flex'").fetchall() == []
        change(conn, "profiles", flex_resource_id=uuid4())
        move(warehouse, NEWEST)
        assert tables(conn) == before
        assert conn.execute("SELECT flex_line_item_id FROM flex.owned_line").fetchall() == [(line,)]

    def test_no_way_down_while_an_outcome_is_unknown(self, warehouse, conn):
        uncertain(conn)
        before = now_at(warehouse)
        with pytest.raises(Exception, match="1 elements are busy or uncertain"):
            move(warehouse, "0007")
        assert now_at(warehouse) == before
        assert conn.execute("SELECT state FROM flex.element_gate").fetchone() == ("uncertain",)


class TestAdopted:
    def test_rows_and_columns_stay_and_lines_are_ours(self, old, old_url, exports):
        duplicate(old)
        log = add(old, "flex_sync_log", job_id=number(9), department="sound", summary=Jsonb({"a": 1}))
        move(old_url, "0009")
        assert old.execute("SELECT count(phone), count(*) FROM flex.profiles").fetchone() == (0, 3)
        assert old.execute("SELECT id FROM flex.flex_sync_log").fetchall() == [(log,)]
        lines = old.execute("SELECT flex_line_item_id, flex_element_id, flex_resource_id, made_by FROM flex.owned_line")
        owned = {line.int - 1000: (element, resource.int - 100, by) for line, element, resource, by in lines}
        assert owned.keys() == {31, 32, 33, 41, 42, 43, 44, 51, 52, 53}
        assert (owned[33], owned[52]) == ((SOUND, 1, None), (LIGHTS, 2, None))

    def test_line_that_two_rows_name_is_one(self, old, old_url, exports):
        duplicate(old)
        old.execute("UPDATE flex.flex_crew_assignments SET flex_line_item_id = %s", [number(7)])
        move(old_url, "0009")
        query = "SELECT flex_line_item_id, technician_id FROM flex.owned_line"
        assert old.execute(query).fetchall() == [(number(7), number(1))]

    def test_log_outlives_its_job(self, old, old_url):
        add(old, "flex_sync_log", job_id=number(9), department="sound")
        move(old_url, "0009")
        old.execute("DELETE FROM flex.jobs")
        add(old, "flex_sync_log", job_id=number(9), department="sound", removed_count=1)
        assert old.execute("SELECT count(*) FROM flex.flex_sync_log").fetchone() == (2,)

    @pytest.mark.parametrize(
        ("other", "missing"),
        [
            (
                "ALTER TABLE flex.profiles DROP flex_resource_id, DROP last_name",
                "last_name text, flex_resource_id uuid",
            ),
            ("ALTER TABLE flex.flex_crew_assignments ALTER flex_line_item_id TYPE text", "flex_line_item_id uuid"),
        ],
    )
    def test_another_shape_is_refused(self, old, old_url, other, missing):
        old.execute(other)
        before = tables(old)
        with pytest.raises(ValueError, match=f"was there before, without {missing}: give it"):
            move(old_url, "0009")
        assert (tables(old), now_at(old_url)) == (before, "0007")


class TestDuplicates:
    def test_are_exported_and_the_oldest_stays(self, old, old_url, exports, caplog):
        duplicate(old)
        with caplog.at_level(logging.INFO):
            move(old_url, "0009")
        assert ids(old) == KEPT
        (path,) = exports.iterdir()
        assert [stat.S_IMODE(each.stat().st_mode) for each in (exports, path)] == [0o700, 0o600]
        assert re.fullmatch(r"flex_crew_duplicates_20\d{6}T\d{6}\.\d{6}Z\.csv", path.name)
        assert f"7 duplicate crew assignments are kept in {path}; 5 of them were removed" in caplog.messages
        rows = list(csv.DictReader(path.open(newline="")))
        assert ",".join(rows[0]) == HEAD
        assert [UUID(row["id"]).int for row in rows] == [32, 33, 31, 42, 43, 44, 41]
        assert {(row["first_name"], row["job_id"], row["department"]) for row in rows} == {
            ("Ann", str(number(9)), "sound"),
            ("Bo", str(number(9)), "sound"),
        }
        assert UUID(rows[0]["flex_line_item_id"]) == number(1032)

    def test_names_are_quoted(self, old, old_url, exports):
        assign(old, 1, 11, 3, 1)
        assign(old, 2, 11, 3, 1)
        move(old_url, "0009")
        (path,) = exports.iterdir()
        assert {row["first_name"] for row in csv.DictReader(path.open(newline=""))} == {'Cy "C", the third'}

    def test_go_once(self, old, old_url, exports):
        duplicate(old)
        move(old_url, "0009")
        for _ in range(2):
            again(old_url, "0008")
        assert (len(list(exports.iterdir())), ids(old), found(old)) == (1, KEPT, {})

    def test_go_again_after_the_way_back(self, old, old_url, exports):
        duplicate(old)
        move(old_url, "0009")
        move(old_url, "0008")
        assert found(old) == {"unique_key": (0, ())}
        assign(old, 61, 12, 2, 9)
        move(old_url, "0009")
        assert (len(list(exports.iterdir())), ids(old), found(old)) == (2, KEPT, {})

    def test_none_makes_no_file(self, old, old_url, exports):
        assign(old, 51, 12, 1, 1)
        move(old_url, "0009")
        assert (exports.exists(), ids(old), found(old)) == (False, {51}, {})

    def test_key_that_is_there_is_kept(self, old, old_url, exports):
        old.execute(UNIQUE.format(KEY, "crew_call_id, technician_id"))
        move(old_url, "0009")
        assert (exports.exists(), found(old)) == (False, {})

    def test_without_an_export_nothing_goes(self, old, old_url, exports):
        duplicate(old)
        exports.parent.touch()
        with pytest.raises(RuntimeError, match="set WAREHOUSE_EXPORTS to a folder"):
            move(old_url, "0009")
        assert (len(ids(old)), now_at(old_url)) == (10, "0007")

    def test_without_the_key_nothing_goes(self, old, old_url, exports):
        """A trigger of the application keeps the rows, so there can be no key."""
        duplicate(old)
        old.execute(
            "CREATE FUNCTION flex.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER keep BEFORE DELETE ON flex.flex_crew_assignments FOR EACH ROW EXECUTE FUNCTION flex.keep()"
        )
        with pytest.raises(Exception, match=f'could not create unique index "{KEY}"'):
            move(old_url, "0009")
        assert (len(ids(old)), now_at(old_url), list(exports.iterdir())) == (10, "0007", [])

    def test_key_of_another_name_is_kept_on_the_way_back(self, old, old_url, exports):
        old.execute(UNIQUE.format("ours", "crew_call_id, technician_id"))
        for revision in ("0009", "0008"):
            move(old_url, revision)
            assert found(old) == {}

    def test_folder_is_airflows_unless_it_is_named(self, old, old_url, tmp_path, monkeypatch):
        monkeypatch.delenv("WAREHOUSE_EXPORTS", raising=False)
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
        monkeypatch.chdir(tmp_path)
        duplicate(old)
        move(old_url, "0009")
        move(old_url, "0008")
        assign(old, 61, 12, 2, 9)
        monkeypatch.delenv("AIRFLOW_HOME")
        move(old_url, "0009")
        folders = (tmp_path / "airflow" / "exports", tmp_path / "exports")
        assert [len(list(folder.iterdir())) for folder in folders] == [1, 1]

    def test_are_refused_from_then_on(self, flex):
        crew(flex)
        with pytest.raises(errors.UniqueViolation) as refused:
            flex.execute(
                "INSERT INTO flex.flex_crew_assignments (crew_call_id, technician_id)"
                " SELECT crew_call_id, technician_id FROM flex.flex_crew_assignments"
            )
        assert refused.value.diag.constraint_name == KEY


def crew(conn) -> tuple[UUID, UUID, UUID]:
    """A job, its sound call, and a person who is in it, as the application sees it and in Flex."""
    job = add(conn, "jobs", job_type="single")
    person = add(conn, "profiles", department="sound", flex_resource_id=uuid4())
    call = add(conn, "flex_crew_calls", job_id=job, department="sound", flex_element_id=ELEMENT)
    add(conn, "job_assignments", job_id=job, technician_id=person, sound_role="FOH-R", status="invited")
    add(conn, "flex_crew_assignments", crew_call_id=call, technician_id=person, flex_line_item_id=uuid4())
    return job, call, person


def changed(conn) -> list[UUID]:
    """The jobs noted since the last call."""
    return [job for (job,) in conn.execute("DELETE FROM flex.job_change RETURNING job_id").fetchall()]


class TestChanges:
    @pytest.fixture
    def job(self, flex) -> UUID:
        job, _, _ = crew(flex)
        changed(flex)
        return job

    def test_of_a_new_job(self, flex):
        job, _, _ = crew(flex)
        assert changed(flex) == [job, job]

    @pytest.mark.parametrize(
        ("table", "values"),
        [
            ("job_assignments", {"sound_role": "FOH-T"}),
            ("job_assignments", {"sound_role": None}),
            ("job_assignments", {"lights_role": "LGT-E"}),
            ("profiles", {"flex_resource_id": uuid4()}),
            ("profiles", {"flex_resource_id": None}),
            ("profiles", {"department": "lights"}),
            ("flex_crew_calls", {"department": "lights"}),
            ("flex_crew_calls", {"flex_element_id": SOUND}),
            ("jobs", {"job_type": "dryhire"}),
        ],
    )
    def test_of_what_the_crew_follows_from(self, flex, job, table, values):
        change(flex, table, **values)
        assert changed(flex) == [job]

    @pytest.mark.parametrize(
        ("table", "values"),
        [
            ("job_assignments", {"status": "declined", "video_role": "VID-R", "assignment_source": "console"}),
            ("job_assignments", {"sound_role": "FOH-R"}),
            ("profiles", {"first_name": "Ann", "role": "technician", "department": "sound"}),
            ("flex_crew_calls", {"updated_at": "2026-03-01"}),
            ("jobs", {"title": "A show", "end_time": "2026-03-01"}),
            ("flex_crew_assignments", {"flex_line_item_id": uuid4()}),
        ],
    )
    def test_not_of_anything_else(self, flex, job, table, values):
        change(flex, table, **values)
        assert changed(flex) == []

    def test_both_jobs_of_what_is_moved(self, flex, job):
        other = add(flex, "jobs")
        for table in ("job_assignments", "flex_crew_calls"):
            change(flex, table, job_id=other)
            assert set(changed(flex)) == {job, other}
            change(flex, table, job_id=job)
            changed(flex)

    @pytest.mark.parametrize("table", ["job_assignments", "flex_crew_calls", "profiles", "jobs"])
    def test_of_what_is_removed(self, flex, job, table):
        flex.execute(sql.SQL("DELETE FROM flex.{}").format(sql.Identifier(table)))
        assert set(changed(flex)) == {job}

    def test_person_who_is_only_in_flex(self, flex, job):
        flex.execute("DELETE FROM flex.job_assignments")
        changed(flex)
        change(flex, "profiles", flex_resource_id=uuid4())
        assert changed(flex) == [job]

    def test_by_a_role_that_knows_only_the_applications_tables(self, flex, job):
        role = sql.Identifier(f"application_{uuid4().hex}")
        flex.execute(sql.SQL("CREATE ROLE {}").format(role))
        flex.execute(sql.SQL("GRANT USAGE ON SCHEMA flex TO {}").format(role))
        flex.execute(sql.SQL("GRANT UPDATE, SELECT ON flex.job_assignments TO {}").format(role))
        flex.execute(sql.SQL("SET LOCAL ROLE {}").format(role))
        change(flex, "job_assignments", sound_role="FOH-T")
        flex.execute("RESET ROLE")
        assert changed(flex) == [job]

    def test_nobody_waits_for_another(self, conn, connect):
        """Two people edit the same job at the same moment, each in a transaction of their own."""
        job, _, _ = crew(conn)
        changed(conn)
        other = connect()
        other.execute("SET lock_timeout = '2s'")
        with conn.transaction():
            change(conn, "job_assignments", sound_role="FOH-T")
            add(other, "job_assignments", job_id=job, technician_id=add(other, "profiles"))
        assert changed(conn) == [job, job]


def uncertain(conn) -> int:
    """A gate that a write of unknown outcome holds; its operation."""
    sync_id = sync_log.begin(conn, "flex", "sync", "flex_sync/test")
    conn.execute("INSERT INTO flex.element_gate (flex_element_id) VALUES (%s)", [ELEMENT])
    operation = send(conn, sync_id)
    conn.execute("UPDATE flex.operation SET state = 'unknown', settled_at = now()")
    conn.execute("UPDATE flex.element_gate SET state = 'uncertain', operation_id = %s", [operation])
    return sync_id


def send(conn, sync_id: int) -> int:
    query = (
        "INSERT INTO flex.operation (sync_id, flex_element_id, kind, flex_resource_id) VALUES (%s, %s, 'add', %s)"
        " RETURNING operation_id"
    )
    return conn.execute(query, [sync_id, ELEMENT, uuid4()]).fetchone()[0]


class TestJournal:
    def test_one_write_at_a_time(self, flex):
        sync_id = uncertain(flex)
        send(flex, sync_id)
        with pytest.raises(errors.UniqueViolation):
            send(flex, sync_id)

    def test_no_write_without_a_gate(self, flex):
        sync_id = sync_log.begin(flex, "flex", "sync", "flex_sync/test")
        with pytest.raises(errors.ForeignKeyViolation):
            send(flex, sync_id)

    @pytest.mark.parametrize(
        "settled",
        [
            "UPDATE flex.operation SET state = 'done', settled_at = now()",
            "UPDATE flex.operation SET settled_at = NULL",
            "UPDATE flex.operation SET state = 'answered'",
            "UPDATE flex.operation SET kind = 'remove'",
            "UPDATE flex.operation SET flex_resource_id = NULL",
            "UPDATE flex.element_gate SET state = 'idle'",
            "UPDATE flex.element_gate SET state = 'busy'",
            "UPDATE flex.element_gate SET operation_id = NULL",
        ],
    )
    def test_contradictions_are_refused(self, flex, settled):
        uncertain(flex)
        with pytest.raises(errors.CheckViolation):
            flex.execute(settled)

    def test_line_stays_ours_when_its_job_goes(self, flex):
        job, call, person = crew(flex)
        line = uuid4()
        flex.execute(
            "INSERT INTO flex.owned_line (flex_line_item_id, flex_element_id, flex_resource_id, job_id, department,"
            " crew_call_id, technician_id) VALUES (%s, %s, %s, %s, 'sound', %s, %s)",
            [line, ELEMENT, uuid4(), job, call, person],
        )
        flex.execute("DELETE FROM flex.jobs; DELETE FROM flex.profiles")
        assert ids(flex) == set()
        query = "SELECT flex_line_item_id, job_id, crew_call_id, technician_id FROM flex.owned_line"
        assert flex.execute(query).fetchall() == [(line, job, call, person)]


class TestVerifications:
    def test_all_hold(self, flex):
        job, _, _ = crew(flex)
        add(flex, "flex_sync_log", job_id=job, department="sound", added_count=1)
        assert found(flex) == {}
        assert [finding.name for finding in verify(flex)] == [each.name for each in VERIFICATIONS]

    def test_duplicates_without_the_key(self, flex):
        _, call, person = crew(flex)
        flex.execute(f"ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT {KEY}")
        assert found(flex) == {"unique_key": (0, ())}
        add(flex, "flex_crew_assignments", crew_call_id=call, technician_id=person)
        assert found(flex)["duplicate_assignments"] == (1, (f"{call}/{person}",))

    @pytest.mark.parametrize("key", KEYS)
    def test_any_key_that_rows_can_be_put_by(self, flex, key):
        _, call, person = crew(flex)
        flex.execute(WITHOUT_KEY + key)
        assert found(flex) == {}
        put_again(flex, call, person)

    @pytest.mark.parametrize("other", [*NO_KEYS, *NAMESAKES])
    def test_nothing_else_is_the_key(self, flex, other):
        _, call, person = crew(flex)
        flex.execute(WITHOUT_KEY + other)
        assert found(flex) == {"unique_key": (0, ())}
        with pytest.raises((errors.InvalidColumnReference, errors.ObjectNotInPrerequisiteState)):
            put_again(flex, call, person)

    def test_recent_failures(self, flex):
        job = uuid4()
        for failed, minute in ((3, 0), (2, 1), *((0, minute) for minute in range(2, 11))):
            at = f"2026-03-01T12:{minute:02}Z"
            add(flex, "flex_sync_log", job_id=job, department="sound", failed_count=failed, created_at=at)
        assert found(flex) == {"recent_failures": (1, (f"{job}/sound/2",))}

    def test_lines_that_were_seen_to_be_gone(self, conn, warehouse):
        _, call, person = crew(conn)
        move(warehouse, "0007")
        move(warehouse, NEWEST)
        assert found(conn) == {}
        change(conn, "owned_line", gone_at="2026-03-01")
        (line,) = conn.execute("SELECT flex_line_item_id FROM flex.owned_line").fetchone()
        assert found(conn) == {"stale_assignments": (1, (f"{call}/{person}/{line}",))}


class TestEveryMigration:
    """What holds after the DAG warehouse_migrate, though there was nothing new to migrate."""

    def test_puts_a_missing_key_back_and_removes_the_duplicates(self, warehouse, conn, exports):
        _, call, person = crew(conn)
        conn.execute(f"ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT {KEY}")
        add(conn, "flex_crew_assignments", crew_call_id=call, technician_id=person, flex_line_item_id=uuid4())
        assert found(conn).keys() == {"duplicate_assignments", "unique_key"}
        migrate.migrate(warehouse)
        assert (found(conn), len(list(exports.iterdir()))) == ({}, 1)
        # The line of the row that was removed is there still, and ours.
        assert conn.execute("SELECT count(*) FROM flex.owned_line").fetchone() == (2,)

    @pytest.mark.parametrize("instead", ["", *NO_KEYS, *NAMESAKES])
    def test_puts_a_missing_key_back(self, warehouse, conn, exports, instead):
        _, call, person = crew(conn)
        conn.execute(WITHOUT_KEY + instead)
        migrate.migrate(warehouse)
        require_unique_key(conn)
        put_again(conn, call, person)
        assert (found(conn), exports.exists()) == ({}, False)

    @pytest.mark.parametrize("key", KEYS)
    def test_leaves_a_key_of_any_name_as_it_is(self, warehouse, conn, key):
        conn.execute(WITHOUT_KEY + key)
        before = indexes(conn)
        migrate.migrate(warehouse)
        assert indexes(conn) == before

    @pytest.mark.parametrize("namesake", NAMESAKES)
    def test_renames_what_has_the_name_of_the_key(self, warehouse, conn, caplog, namesake):
        conn.execute(WITHOUT_KEY + namesake)
        before = definitions(conn)
        migrate.migrate(warehouse)
        assert definitions(conn) == sorted([*before, "UNIQUE (crew_call_id, technician_id)"])
        (line,) = [each for each in caplog.messages if "isn't its key" in each]
        assert re.match(rf"{KEY} of flex.flex_crew_assignments isn't its key and is named {KEY}_\d{{14}} now", line)

    def test_drops_a_deferrable_key_beside_another(self, warehouse, conn):
        """With it no row could be put there, whatever else there is."""
        _, call, person = crew(conn)
        conn.execute(UNIQUE.format("later", "crew_call_id, technician_id") + " DEFERRABLE")
        assert found(conn) == {"unique_key": (0, ())}
        migrate.migrate(warehouse)
        assert (found(conn), definitions(conn).count("UNIQUE (crew_call_id, technician_id)")) == ({}, 1)
        put_again(conn, call, person)

    @pytest.mark.parametrize(
        ("taken", "kind"),
        [
            (f"CREATE VIEW flex.{KEY} AS SELECT 1", "a relation"),
            (f"CREATE INDEX {KEY} ON flex.profiles (last_name)", "an index of flex.profiles"),
        ],
    )
    def test_says_what_else_has_the_name_of_the_key(self, warehouse, conn, exports, taken, kind):
        _, call, person = crew(conn)
        conn.execute(WITHOUT_KEY + taken)
        add(conn, "flex_crew_assignments", crew_call_id=call, technician_id=person, flex_line_item_id=uuid4())
        with pytest.raises(RuntimeError) as refused:
            migrate.migrate(warehouse)
        assert str(refused.value) == (
            f"the unique key of flex.flex_crew_assignments can't be added, as flex.{KEY} is {kind}, and without the"
            " key nothing is written to Flex: rename or drop that, then migrate again"
        )
        assert (len(ids(conn)), exports.exists()) == (2, False)

    def test_owns_the_lines_that_rows_of_the_application_name(self, warehouse, conn):
        crew(conn)
        (line,) = conn.execute("SELECT flex_line_item_id FROM flex.flex_crew_assignments").fetchone()
        for _ in range(2):
            migrate.migrate(warehouse)
        query = "SELECT flex_line_item_id, flex_element_id, made_by FROM flex.owned_line"
        assert conn.execute(query).fetchall() == [(line, ELEMENT, None)]

    def test_never_owns_a_line_that_a_sync_found(self, warehouse, conn):
        crew(conn)
        conn.execute(
            "INSERT INTO flex.kept_line SELECT flex_line_item_id, %s FROM flex.flex_crew_assignments", [ELEMENT]
        )
        migrate.migrate(warehouse)
        assert conn.execute("SELECT FROM flex.owned_line").fetchall() == []

    def test_does_nothing_of_what_holds(self, warehouse, conn):
        before = tables(conn)
        migrate.migrate(warehouse)
        assert tables(conn) == before


class TestProof:
    """0016, over a warehouse where Flex was in use before."""

    def test_rows_that_a_sync_wrote_name_lines_of_people(self, warehouse, conn):
        """Unless the line was noted as ours: then it was an add."""
        _, call, _ = crew(conn)
        made, found, other = (uuid4() for _ in range(3))
        sync_id = sync_log.begin(conn, "flex", "sync", "flex_sync/test")
        for line in (made, found, other):
            person = add(conn, "profiles")
            add(conn, "flex_crew_assignments", crew_call_id=call, technician_id=person, flex_line_item_id=line)
        for line in (made, found):
            conn.execute(
                "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, after)"
                " VALUES (%s, 'flex.flex_crew_assignments', '{}', 'insert', %s)",
                [sync_id, Jsonb({"flex_line_item_id": str(line)})],
            )
        move(warehouse, "0015")
        conn.execute(
            "INSERT INTO flex.owned_line (flex_line_item_id, flex_element_id, job_id, department, crew_call_id,"
            " technician_id) VALUES (%s, %s, %s, 'sound', %s, %s)",
            [made, ELEMENT, *(uuid4() for _ in range(3))],
        )
        migrate.migrate(warehouse)
        assert conn.execute("SELECT flex_line_item_id, flex_element_id FROM flex.kept_line").fetchall() == [
            (found, ELEMENT)
        ]
        owned = {line for (line,) in conn.execute("SELECT flex_line_item_id FROM flex.owned_line")}
        assert (owned >= {made, other}, found in owned) == (True, False)

    def test_lines_that_were_only_inferred_to_be_gone_are_looked_for_again(self, warehouse, conn):
        sync_id = sync_log.begin(conn, "flex", "sync", "flex_sync/test")
        conn.execute("INSERT INTO flex.element_gate (flex_element_id) VALUES (%s)", [ELEMENT])
        inferred, deleted = uuid4(), uuid4()
        for line in (inferred, deleted):
            conn.execute(
                "INSERT INTO flex.owned_line (flex_line_item_id, flex_element_id, job_id, department, crew_call_id,"
                " technician_id, gone_at) VALUES (%s, %s, %s, 'sound', %s, %s, now())",
                [line, ELEMENT, *(uuid4() for _ in range(3))],
            )
        conn.execute(
            "INSERT INTO flex.operation (sync_id, flex_element_id, kind, flex_line_item_id, state, settled_at)"
            " VALUES (%s, %s, 'remove', %s, 'done', now())",
            [sync_id, ELEMENT, deleted],
        )
        move(warehouse, "0015")
        migrate.migrate(warehouse)
        query = "SELECT flex_line_item_id FROM flex.owned_line WHERE gone_at IS NULL"
        assert conn.execute(query).fetchall() == [(inferred,)]

    def test_no_way_down_while_an_outcome_is_unknown(self, warehouse, conn):
        uncertain(conn)
        with pytest.raises(Exception, match="1 elements are busy or uncertain"):
            move(warehouse, "0015")
