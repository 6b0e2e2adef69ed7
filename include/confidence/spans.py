"""Spans of OpenTelemetry. They go to the provider that the process has set; without one they do nothing.

A span has names, ids and counts. It never has a row, nor the message of an error, which may quote a row.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode

PREFIX = "sync_confidence"
tracer = trace.get_tracer(PREFIX)

Attribute = str | int | float | bool | None


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[Span]:
    """Open the span `sync_confidence.<name>` below the present one, with those attributes that are not None.

    An error within the block is raised on; the span gets the name of its class.
    """
    options = {"record_exception": False, "set_status_on_exception": False}
    with tracer.start_as_current_span(f"{PREFIX}.{name}", attributes=known(attributes), **options) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_status(StatusCode.ERROR, type(error).__name__)
            opened.set_attribute("error.type", type(error).__name__)
            raise


def known(attributes: dict[str, Attribute]) -> dict[str, str | int | float | bool]:
    """Return the attributes that are not None, as a span can't hold None."""
    return {name: value for name, value in attributes.items() if value is not None}
