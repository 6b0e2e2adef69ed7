"""Look for the images' objects by boto3, one HEAD each, some at once."""

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import psycopg
from botocore.config import Config
from botocore.exceptions import ClientError

from benchmarks.images import client, objects


def scan(
    start: Callable[[], None], *, store: Mapping[str, str], database: str, rows: int, workers: int
) -> dict[str, int]:
    """Ask for each object that the first images need; returns how many are missing, by metric, and `objects`, all.

    `rows`: the number of images, `workers`: of requests at once.
    """
    s3, bucket = client(store, Config(max_pool_connections=workers)), store["bucket"]

    def missing(wanted: tuple[str, tuple[str, ...]]) -> str | None:
        metric, keys = wanted
        return None if any(_exists(s3, bucket, key) for key in keys) else metric

    with psycopg.connect(database) as conn, ThreadPoolExecutor(workers) as threads:
        start()
        found = Counter(threads.map(missing, objects(conn, bucket, rows)))
    counts = {metric: found[metric] for metric in ("missing_original", "missing_staged")}
    return counts | {"objects": found.total()}


def _exists(s3: object, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True
