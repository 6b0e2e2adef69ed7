"""An application with images, its store, and the source `storage` at work on both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from itertools import product
from typing import Any
from uuid import uuid4

import boto3
import psycopg
from psycopg import sql

from include.api.bucket import Bucket
from include.api.s3_client import client_config
from include.confidence.summary import ForensicSummary
from include.simulators import storage as simulator
from include.simulators.storage import application
from include.sources.answer_census import AnswerCensus
from include.sources.storage import SOURCE
from include.sources.storage.check import StorageContext
from include.sources.storage.images import IMAGES, OBJECTS
from include.warehouse import fence, roles
from stack.postgres import Server

RUN = "storage_reconcile/test"
PARAMS: dict[str, Any] = {
    "dry_run": True,
    "batch_size": 50,
    "concurrency": 4,
    "project_id": None,
    "status": None,
    "limit": 0,
    "cursor": None,
    "heal": False,
    "reset_watermark": False,
}

# The pulls that syncs, scans and repairs make, each a table and a purpose.
LOOKS = ("", "_again", "_third", "_fourth", "_proof_list", "_proof_head")
PULLS = [
    *product([IMAGES], ("sync", "scan")),
    *product([OBJECTS], (purpose + look for purpose in ("sync", "scan") for look in LOOKS)),
]


def client(store: simulator.Store, **config: Any) -> Any:
    """boto3's client of a store, as Airflow's hook makes it; impatient."""
    impatient = {"connect_timeout": 2, "read_timeout": 2, "retries": {"mode": "standard", "total_max_attempts": 1}}
    own = client_config(8).merge(boto3.session.Config(s3={"addressing_style": "path"}, **impatient | config))
    keys = {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}
    return _session().client("s3", endpoint_url=store.url, config=own, region_name="us-east-1", **keys)


@cache
def _session() -> boto3.session.Session:
    """One for all tests: it reads the description of S3 once, which takes longer than most tests."""
    return boto3.session.Session()


@dataclass(frozen=True)
class Laid:
    """An image that a test has added, and the keys that its objects have or should have."""

    id: str
    original: str
    staged: str | None

    @property
    def keys(self) -> list[str]:
        return [key for key in (self.original, self.staged) if key]


@dataclass(frozen=True)
class Photos:
    """The store, the application's database, and the source's context on both."""

    store: simulator.Store
    context: StorageContext

    @property
    def control(self) -> simulator.Control:
        return self.store.control

    @property
    def images(self) -> psycopg.Connection:
        return self.context.images

    @property
    def conn(self) -> psycopg.Connection:
        return self.context.conn

    def stop(self) -> int:
        """Stop the writer for the test's run; the epoch."""
        return fence.stop(self.conn, SOURCE.name, self.context.run, timeout=1).epoch

    def scan(self, **params: Any) -> ForensicSummary:
        return self.context.source.scan(self.context, "images", self.stop(), PARAMS | params)

    def repair(self, summary: ForensicSummary, **params: Any) -> tuple[int, Any]:
        return self.context.source.repair(self.context, [summary], PARAMS | params)

    def sync(self, *, dry_run: bool = False, mode: str = "incremental") -> Any:
        return self.context.source.sync(self.context, PARAMS | {"mode": mode}, dry_run=dry_run)

    def rows(self) -> dict[str, tuple]:
        """Every image as it stands: id -> (status, error, updated_at, deleted_at)."""
        query = "SELECT id::text, status::text, error, updated_at, deleted_at FROM images"
        return {id_: rest for id_, *rest in self.images.execute(query).fetchall()}

    def table(self) -> dict[str, dict[str, Any]]:
        """Every image with all its columns, by id."""
        return dict(self.images.execute("SELECT id::text, to_jsonb(i) FROM images i").fetchall())

    def changed(self, before: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The columns that are not as in an earlier `table`, by id."""
        now = self.table()
        assert now.keys() == before.keys()
        different = {
            id_: {name: value for name, value in row.items() if value != before[id_][name]} for id_, row in now.items()
        }
        return {id_: columns for id_, columns in different.items() if columns}

    def audited(self) -> int:
        """How many changes the warehouse's change log holds."""
        return self.conn.execute("SELECT count(*) FROM confidence.change_log").fetchone()[0]

    def add(
        self, status: str = "ready", *, laid: bool = True, age: timedelta = timedelta(days=1), **columns: Any
    ) -> Laid:
        """Add an image of that age, with its objects unless not `laid`; `columns` replace what it would have."""
        id_, bucket = str(uuid4()), self.context.bucket.name
        image = Laid(id_, f"t/{id_}.jpg", f"t/{id_}-staged.jpg" if status == "ready" else None)
        project, now = self.images.execute("SELECT id, clock_timestamp() FROM projects ORDER BY id LIMIT 1").fetchone()
        values = {
            "id": id_,
            "project_id": project,
            "status": status,
            "original_url": f"s3://{bucket}/{image.original}",
            "staged_url": image.staged and f"s3://{bucket}/{image.staged}",
            "updated_at": now - age,
        } | columns
        self.images.execute(
            sql.SQL("INSERT INTO images ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join([sql.Placeholder()] * len(values))
            ),
            list(values.values()),
        )
        if laid:
            self.control.put(image.keys)
        return image

    def touch(self, id_: str, **columns: Any) -> None:
        """The application changes an image, now unless the columns say when."""
        columns = {"updated_at": self.images.execute("SELECT clock_timestamp()").fetchone()[0]} | columns
        values = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns)
        self.images.execute(sql.SQL("UPDATE images SET {} WHERE id = %s").format(values), [*columns.values(), id_])

    def elsewhere(self, store: simulator.Store, **config: Any) -> "Photos":
        """The same images, asked of another store or with another client's settings."""
        bucket = Bucket(client(store, **config), store.bucket, connection="storage")
        return replace(self, context=replace(self.context, bucket=bucket))


@contextmanager
def opened(
    conn: psycopg.Connection, images: psycopg.Connection, store: simulator.Store, run: str = RUN, **config: Any
) -> Iterator[Photos]:
    """The photos of a filled application; its objects are laid by the caller."""
    source = replace(SOURCE, pause=timedelta(0), audit=0)
    bucket = Bucket(client(store, **config), store.bucket, connection="storage")
    yield Photos(
        store, StorageContext(source, conn, run, bucket, images, AnswerCensus(source.name, source.read_answers))
    )


def database(postgres: Server, name: str, images: int, endpoint: str = "http://store.example:9000") -> list[str]:
    """Make a database with the application's tables and rows; the keys that its store has to hold."""
    postgres.create_database(name)
    with psycopg.connect(postgres.url(name, roles.OWNER), autocommit=True) as conn:
        application.create(conn)
        return application.fill(conn, images, bucket=simulator.Config().bucket, endpoint=endpoint)
