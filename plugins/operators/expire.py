"""`expire`: drop the rows that are older than `confidence.retention` says."""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator

from include.warehouse import retention
from plugins.hooks import warehouse
from plugins.runs import refuse_unknown_conf, run_name

ON_CALL = """
Drops the rows that are older than `confidence.retention` says, in small transactions.

**If it fails:** nothing depends on it. Correct the rows of `confidence.retention` that the message names; the next run
drops what is left.
"""


class ExpireOperator(BaseOperator):
    """Apply `confidence.retention`, and return {table: rows dropped}."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"doc_md": ON_CALL, **kwargs})

    def execute(self, context: Any) -> Mapping[str, int]:
        refuse_unknown_conf(context)
        with warehouse.connect(run_name(context)) as conn:
            return retention.expire(conn)
