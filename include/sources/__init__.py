"""The sources, one package each. Registering one here is all that the other layers need to know of it."""

from importlib import import_module

from include.sources.base import Source

REGISTRY = ("flex", "repairshopr", "square", "storage", "tekmetric")


def get_source(name: str) -> Source:
    """Return the source's declaration. Raises KeyError naming the known ones."""
    if name not in REGISTRY:
        raise KeyError(f"{name!r} is no source; known are {', '.join(REGISTRY)}")
    return import_module(f"include.sources.{name}").SOURCE
