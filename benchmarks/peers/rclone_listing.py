"""Compare rclone's listing of the bucket with the images' keys, as `rclone check` does with two file trees."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping

import psycopg

from benchmarks.images import objects
from stack.settings import RCLONE


def scan(start: Callable[[], None], *, store: Mapping[str, str], database: str) -> dict[str, int]:
    """Look for the objects that the rows name; returns how many are missing, by metric, and `objects`, all of them."""
    bucket = store["bucket"]
    command = [str(RCLONE), "lsf", "--recursive", "--fast-list", "--files-only", f":s3:{bucket}"]
    settings = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_LIST_VERSION": "2",
        "RCLONE_S3_ENDPOINT": store["url"],
        "RCLONE_S3_ACCESS_KEY_ID": store["access_key"],
        "RCLONE_S3_SECRET_ACCESS_KEY": store["secret_key"],
    }
    with psycopg.connect(database) as conn:
        start()
        done = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True, check=True)
        listed = set(done.stdout.split("\n"))
        found = Counter(None if any(map(listed.__contains__, keys)) else name for name, keys in objects(conn, bucket))
    counts = {metric: found[metric] for metric in ("missing_original", "missing_staged")}
    return counts | {"objects": found.total()}
