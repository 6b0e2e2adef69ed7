"""What a step did, for machines: a line of JSON in the log, and an XCom."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from plugins.runs import run_name

log = logging.getLogger(__name__)


def log_line(context: Mapping[str, Any], source: str, event: str, **figures: Any) -> dict[str, Any]:
    """Log event, source, run and figures as one line of JSON; return them."""
    line = {"event": event, "source": source, "run": run_name(context), **figures}
    log.info(json.dumps(line, sort_keys=True))
    return line


def push_result(context: Mapping[str, Any], source: str, result: Mapping[str, Any]) -> None:
    """Leave the result as the XCom `result` and as one line of JSON in the log. Do nothing if it is empty."""
    if result:
        log_line(context, source, "result", **result)
        context["ti"].xcom_push(key="result", value=dict(result))
