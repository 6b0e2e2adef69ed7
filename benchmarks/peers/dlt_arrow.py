"""Load by dlt at its fastest: pages as Arrow tables, which skip its normalizing of rows, and CSV, which it copies."""

import os
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory

# dlt reads this when it is imported.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
import psycopg
import pyarrow as pa
import requests

from benchmarks.peers.naive import blank_as_null


def load(start: Callable[[], None], *, url: str, token: str, warehouse: str) -> int:
    """Load all line items into a new table `dlt_arrow.line_items`; returns its rows."""
    merge = {"disposition": "merge", "strategy": "upsert"}
    resource = dlt.resource(_pages(url, token), name="line_items", primary_key="id", write_disposition=merge)
    with TemporaryDirectory(prefix="dlt-") as folder, psycopg.connect(warehouse) as conn:
        pipeline = dlt.pipeline(
            "bench", pipelines_dir=folder, destination=dlt.destinations.postgres(warehouse), dataset_name="dlt_arrow"
        )
        start()
        pipeline.run(resource, loader_file_format="csv").raise_on_failed_jobs()
        return conn.execute("SELECT count(*) FROM dlt_arrow.line_items").fetchone()[0]


def _pages(url: str, token: str) -> Iterator[pa.Table]:
    """Yield each page as a table with the columns of the first; a column without values there has texts."""
    schema: pa.Schema | None = None
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        page, last = 1, 1
        while page <= last:
            answer = session.get(f"{url}/api/v1/line_items", params={"page": page}, timeout=60).json()
            rows = [blank_as_null(row) for row in answer["line_items"]]
            schema = schema or _schema(rows)
            yield pa.Table.from_pylist(rows, schema)
            page, last = page + 1, answer["meta"]["total_pages"]


def _schema(rows: list[dict]) -> pa.Schema:
    found = pa.Table.from_pylist(rows).schema
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in found])
