"""Exact decimals: shares as they are written, and figures as gates and messages show them."""

from decimal import Decimal


def exact(share: float) -> Decimal:
    """Return a share as the decimal that it is written as. As floats, 10 * 1.1 is a little more than 11."""
    return Decimal(str(share))


def number(figure: Decimal | None) -> float | None:
    """Return the figure as a gate carries it."""
    return None if figure is None else float(figure)


def text(figure: Decimal) -> str:
    """Return the figure as messages write it, without trailing zeros."""
    return f"{figure.normalize():f}"
