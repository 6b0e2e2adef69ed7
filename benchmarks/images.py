"""Our own job on a store, and what the peers need of it. See `benchmarks.job` for how jobs are run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import boto3
import psycopg
from botocore.client import BaseClient
from botocore.config import Config

from benchmarks.night import stopped
from include.api.bucket import Bucket
from include.api.s3_client import client_config
from include.sources import get_source
from include.sources.storage.urls import locate

RUN = "bench/images"
WORKERS = 64
PARAMS = {
    "batch_size": 1_000,
    "concurrency": 5,
    "project_id": None,
    "status": None,
    "limit": 0,
    "cursor": None,
    "heal": False,
}
BATCH = 10_000

OBJECTS = """
SELECT coalesce(i.original_url, 's3://' || %(bucket)s || '/' || o.s3_key),
       CASE i.status WHEN 'ready' THEN i.staged_url END
FROM images i LEFT JOIN original_images o ON o.id = i.original_image_id
WHERE i.deleted_at IS NULL ORDER BY i.id LIMIT %(rows)s
"""


def scan(
    start: Callable[[], None], *, store: Mapping[str, str], database: str, warehouse: str
) -> Mapping[str, float | None]:
    """Scan the images and return the metrics, and for how long the writer stood."""
    source = get_source("storage")
    with (
        psycopg.connect(warehouse, autocommit=True) as conn,
        source.open(conn, RUN, _Connections(store, database)) as context,
    ):
        with stopped(start, conn, source.name, RUN) as stop:
            metrics = source.scan(context, "images", stop.epoch, PARAMS).metrics
        return {**metrics, "stands": stop.seconds}


def client(store: Mapping[str, str], config: Config) -> BaseClient:
    """boto3's client for the simulated store."""
    return boto3.client(
        "s3",
        endpoint_url=store["url"],
        aws_access_key_id=store["access_key"],
        aws_secret_access_key=store["secret_key"],
        region_name="us-east-1",
        config=config.merge(Config(s3={"addressing_style": "path"})),
    )


def objects(conn: psycopg.Connection, bucket: str, rows: int | None = None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each object that the images need as (metric that counts it if missing, its possible keys).

    `rows`: take this many images, None for all.
    """
    with conn.cursor(name="objects") as cursor:
        cursor.itersize = BATCH
        for original, staged in cursor.execute(OBJECTS, {"bucket": bucket, "rows": rows}):
            yield "missing_original", locate(original, bucket).keys
            if staged:
                yield "missing_staged", locate(staged, bucket).keys


class _Connections:
    """The store and the application's database, whatever the connections' names."""

    def __init__(self, store: Mapping[str, str], database: str):
        self._store, self._database = store, database

    @contextmanager
    def bucket(self, name: str) -> Iterator[Bucket]:
        yield Bucket(client(self._store, client_config(WORKERS)), self._store["bucket"], connection=name)

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._database, autocommit=True) as conn:
            yield conn
