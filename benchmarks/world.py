"""What is measured against: a Postgres of the benchmarks' own, and simulated vendors, each in its process."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks.measure import REPOSITORY, BenchError
from include.simulators import flex, square, storage, tekmetric
from include.simulators.flex.config import ROLES
from include.simulators.repairshopr import Config, Control, Simulator
from include.simulators.storage import application
from include.sources.storage.urls import locate
from include.warehouse.migrate import migrate
from stack.postgres import Postgres

TEMPLATE = "template_warehouse"
# What the seller had whose sync this one replaces.
ORIGINAL_ORDERS, ORIGINAL_ITEMS, ORIGINAL_VARIATIONS = 30_390, 867, 1_002
# Orders that a board of Tekmetric was seen to show.
BOARD = 81
# One in as many images has lost an object.
LOST = 200
LOSERS = """
SELECT original_url, staged_url FROM images
WHERE status = 'ready' AND deleted_at IS NULL AND original_url IS NOT NULL AND staged_url IS NOT NULL
ORDER BY md5(id::text) LIMIT %s
"""
# The same people on a job for each crew call.
BOOK = """
WITH booked AS (
  SELECT gen_random_uuid() AS job_id, element_id FROM unnest(%(elements)s::uuid[]) AS e (element_id)
), jobs AS (
  INSERT INTO flex.jobs (id) SELECT job_id FROM booked
), called AS (
  INSERT INTO flex.flex_crew_calls (job_id, department, flex_element_id) SELECT job_id, 'sound', element_id FROM booked
), people AS (
  INSERT INTO flex.profiles (flex_resource_id) SELECT gen_random_uuid() FROM generate_series(1, %(crew)s) RETURNING id
)
INSERT INTO flex.job_assignments (job_id, technician_id, sound_role) SELECT job_id, id, 'FOH-T' FROM booked, people
"""
REPLACE = """
WITH somebody AS (INSERT INTO flex.profiles (flex_resource_id) VALUES (gen_random_uuid()) RETURNING id)
UPDATE flex.job_assignments SET technician_id = (SELECT id FROM somebody)
WHERE id IN (SELECT DISTINCT ON (job_id) id FROM flex.job_assignments ORDER BY job_id LIMIT %s)
"""


@dataclass(frozen=True)
class Images:
    """A store with the objects of an application's images, of which some are `missing`, counted by metric.

    `store` is the store's address and keys, `database` the conninfo of the application's tables.
    """

    store: dict[str, str]
    database: str
    missing: dict[str, int]
    control: storage.Control


@dataclass(frozen=True)
class Crews:
    """A simulated account of crew calls (`elements`), and the `warehouse` that has a job for each.

    `account` is its address and token.
    """

    account: dict[str, str]
    warehouse: str
    elements: list[str]
    control: flex.Control

    @property
    def where(self) -> dict[str, Any]:
        """What a job of ours wants to know."""
        return {**self.account, "warehouse": self.warehouse, "roles": [str(role) for role in ROLES]}

    def replace_one(self, jobs: int) -> None:
        """In so many jobs, somebody else comes for one of the crew."""
        with psycopg.connect(self.warehouse, autocommit=True) as conn:
            conn.execute(REPLACE, [jobs])


@contextmanager
def database_server() -> Iterator[Postgres]:
    """A fresh embedded Postgres with the stack's settings; nothing of it is left afterwards."""
    parent = REPOSITORY / ".stack"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder, Postgres(Path(folder) / "pg") as postgres:
        postgres.create_database(TEMPLATE)
        migrate(postgres.url(TEMPLATE))
        yield postgres


@contextmanager
def warehouse(postgres: Postgres, name: str) -> Iterator[str]:
    """The URL of a migrated, empty warehouse."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as conn:
        names = [sql.Identifier(name), sql.Identifier(TEMPLATE)]
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    yield postgres.url(name)
    postgres.drop_database(name)


@contextmanager
def account(*, limit: int | None = None, **sizes: int) -> Iterator[Simulator]:
    """A simulated account with these numbers of rows and a few of what they point to; `limit`: requests a minute."""
    rows = {"customers": 100, "products": 100, "payments": 0, "tickets": 0, "estimates": 0} | sizes
    options = [f"--{name.replace('_', '-')}={count}" for name, count in rows.items()]
    options.append(f"--invoices={max(1, rows.get('line_items', 0) // 4)}")
    options.append("--no-limit" if limit is None else f"--rate-limit={limit}")
    with _simulator("repairshopr", *options) as url:
        yield Simulator(url, Config().token, Control(url))


@contextmanager
def seller(orders: int) -> Iterator[square.Simulator]:
    """A simulated seller with so many orders; at the original's size with its catalog."""
    options = [f"--orders={orders}"]
    if orders == ORIGINAL_ORDERS:
        options += [f"--items={ORIGINAL_ITEMS}", f"--variations={ORIGINAL_VARIATIONS}"]
    with _simulator("square", *options) as url:
        yield square.Simulator(url, square.Config().token, square.Control(url))


@contextmanager
def garage(shop: tekmetric.Shop, orders: int) -> Iterator[tekmetric.Simulator]:
    """A simulated repair shop with so many orders, whose boards show as many as one has been seen to."""
    options = [f"--orders={orders}", f"--shops={json.dumps([asdict(shop)])}", f"--board-limit={BOARD}"]
    with _simulator("tekmetric", *options) as url:
        yield tekmetric.Simulator(url, tekmetric.Config().token, tekmetric.Control(url))


@contextmanager
def crews(warehouse_url: str, jobs: int, crew: int, latency: int) -> Iterator[Crews]:
    """So many jobs with that crew, and an empty crew call in Flex for each; an answer takes `latency` milliseconds."""
    options = [f"--elements={jobs}", "--crew=0", f"--latency-ms={latency}", "--no-quota"]
    with _simulator("flex", *options) as url, psycopg.connect(warehouse_url, autocommit=True) as conn:
        control = flex.Control(url)
        elements = control.elements()
        conn.execute(BOOK, {"elements": elements, "crew": crew})
        conn.execute("ANALYZE")
        account = {"url": url, "token": flex.Config().token}
        yield Crews(account, warehouse_url, [str(element_id) for element_id in elements], control)


@contextmanager
def images(warehouse_url: str, rows: int, *, latency_ms: int = 0, lost: int = LOST) -> Iterator[Images]:
    """So many images in the schema `app` of a warehouse, and their objects in a simulated store.

    One in `lost` images has lost an object.
    """
    known = storage.Config()
    database = make_conninfo(warehouse_url, options="-csearch_path=app")
    options = ["--images=0", f"--latency-ms={latency_ms}"]
    with _simulator("storage", *options) as url, psycopg.connect(database, autocommit=True) as conn:
        control = storage.Control(url)
        conn.execute("CREATE SCHEMA app")
        application.create(conn)
        keys = application.fill(conn, rows, bucket=known.bucket, endpoint=url)
        losers = conn.execute(LOSERS, (max(2, rows // lost),)).fetchall()
        lost = {
            "missing_original": [_key(original, known.bucket) for original, _ in losers[::2]],
            "missing_staged": [_key(staged, known.bucket) for _, staged in losers[1::2]],
        }
        control.put(keys)
        control.delete([key for name in lost for key in lost[name]])
        missing = {name: len(set(keys).intersection(lost[name])) for name in lost}
        if sum(missing.values()) != len(losers):
            raise BenchError(f"of {len(losers)} objects to lose, the store had {missing} only")
        store = {"url": url, "bucket": known.bucket, "access_key": known.access_key, "secret_key": known.secret_key}
        yield Images(store, database, missing, control)


def _key(url: str, bucket: str) -> str:
    return locate(url, bucket).keys[0]


@contextmanager
def _simulator(name: str, *options: str) -> Iterator[str]:
    """The URL of a simulator in a process of its own."""
    command = [sys.executable, "-m", f"include.simulators.{name}", *options]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise BenchError(f"the simulator of {name} did not start; what it wrote stands above")
        yield line.split()[-1]
    finally:
        process.kill()
        process.communicate()
