"""`clean_up`: drop what was kept long enough."""

import logging
from collections.abc import Mapping
from typing import Any

from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.runs import run_name

log = logging.getLogger(__name__)

ON_CALL = """
Drops what the source keeps for a while only.

**If it fails:** nothing else depends on it. Mend what the message names; the next sync's run drops the rest too.
"""


class CleanUpOperator(SourceOperator):
    """Drop what the source keeps for a while only. Returns how many rows went, by what they were."""

    on_call = ON_CALL

    def execute(self, context: Any) -> Mapping[str, int]:
        with source_hook.opened(self.source, run_name(context)) as opened:
            dropped = opened.source.clean_up(opened)
        log.info("dropped: %s", dropped)
        return dict(dropped)
