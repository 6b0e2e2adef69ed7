"""Spans of OpenTelemetry, which go to whatever provider the process has; without one they cost next to nothing.

A span says what was worked on and how much was found: names, ids and counts. It never holds a row, nor the text of an
error, in which a database may quote one.
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
    """A span `sync_confidence.<name>` below the one that is open, with those attributes that are known.

    An error marks it with its class, and goes on.
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
    """Those attributes that have a value: a span can't say that one is not known."""
    return {name: value for name, value in attributes.items() if value is not None}
