"""`clean_up`: drop what was kept long enough."""

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator

from plugins.hooks import source as source_hook
from plugins.runs import run_name

log = logging.getLogger(__name__)


class CleanUpOperator(BaseOperator):
    """Drop what the source keeps for a while only. Returns how many rows went, by what they were."""

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.source = source

    def execute(self, context: Any) -> Mapping[str, int]:
        with source_hook.opened(self.source, run_name(context)) as opened:
            dropped = opened.source.clean_up(opened)
        log.info("dropped: %s", dropped)
        return dict(dropped)
