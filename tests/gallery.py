"""An application with images, its store, and the source `storage` at work on both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import boto3
import psycopg

from include.api.bucket import Bucket, client_config
from include.confidence.summary import ForensicSummary
from include.simulators import storage as simulator
from include.simulators.storage import application
from include.sources.storage import SOURCE
from include.sources.storage.check import Context
from include.warehouse import fence
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


def client(store: simulator.Store, **config: Any) -> Any:
    """boto3's client of a store, as Airflow's hook makes it; impatient."""
    impatient = {"connect_timeout": 2, "read_timeout": 2, "retries": {"mode": "standard", "total_max_attempts": 1}}
    own = client_config(8).merge(boto3.session.Config(s3={"addressing_style": "path"}, **impatient | config))
    return boto3.session.Session(
        aws_access_key_id=store.access_key, aws_secret_access_key=store.secret_key, region_name="us-east-1"
    ).client("s3", endpoint_url=store.url, config=own)


@dataclass(frozen=True)
class Gallery:
    """The store, the application's database, and the source's context on both."""

    store: simulator.Store
    context: Context

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


@contextmanager
def opened(
    conn: psycopg.Connection, images: psycopg.Connection, store: simulator.Store, run: str = RUN, **config: Any
) -> Iterator[Gallery]:
    """The gallery of a filled application; its objects are laid by the caller."""
    source = replace(SOURCE, pause=timedelta(0))
    bucket = Bucket(client(store, **config), store.bucket)
    yield Gallery(store, Context(source, conn, run, bucket, images))


def database(postgres: Server, name: str, images: int, endpoint: str = "http://store.example:9000") -> list[str]:
    """Make a database with the application's tables and rows; the keys that its store has to hold."""
    postgres.create_database(name)
    with psycopg.connect(postgres.url(name), autocommit=True) as conn:
        application.create(conn)
        return application.fill(conn, images, bucket=simulator.Config().bucket, endpoint=endpoint)
