"""Load by dlt's REST source."""

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory

# dlt reads this when it is imported.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
import psycopg
from dlt.sources.rest_api import rest_api_source


def load(start: Callable[[], None], *, url: str, token: str, warehouse: str) -> int:
    """Load all line items into a new table `dlt_bench.line_items`; returns its rows."""
    resource = {
        "name": "line_items",
        "primary_key": "id",
        "write_disposition": "merge",
        "endpoint": {"path": "line_items", "data_selector": "line_items"},
    }
    source = rest_api_source(
        {
            "client": {
                "base_url": f"{url}/api/v1/",
                "auth": {"type": "bearer", "token": token},
                "paginator": {"type": "page_number", "base_page": 1, "total_path": "meta.total_pages"},
            },
            "resources": [resource],
        }
    )
    with TemporaryDirectory(prefix="dlt-") as folder, psycopg.connect(warehouse) as conn:
        pipeline = dlt.pipeline(
            "bench", pipelines_dir=folder, destination=dlt.destinations.postgres(warehouse), dataset_name="dlt_bench"
        )
        start()
        pipeline.run(source).raise_on_failed_jobs()
        return conn.execute("SELECT count(*) FROM dlt_bench.line_items").fetchone()[0]
