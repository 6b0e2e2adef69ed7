"""`clean_up`: drop rows that have expired."""

import logging
from collections.abc import Mapping
from typing import Any, cast

from include.sources.base import ExpiringSource
from plugins.configured import skip_unless_configured
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.runs import run_name

log = logging.getLogger(__name__)

ON_CALL = """
Drops rows that have expired.

**If it fails:** nothing else depends on it. Mend what the message names; the next sync's run drops the rest too.
"""


class CleanUpOperator(SourceOperator):
    """Drop rows that have expired, of a source that keeps some for a limited time only (`ExpiringSource`).

    Returns {kind of rows: how many were dropped}.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> Mapping[str, int]:
        skip_unless_configured(context, self.source)
        with source_hook.opened(self.source, run_name(context)) as opened:
            dropped = cast(ExpiringSource, opened.source).clean_up(opened)
        log.info("dropped: %s", dropped)
        return dict(dropped)
