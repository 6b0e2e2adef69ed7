"""The sources, one package each. A package in this folder is registered by being there."""

from importlib import import_module
from pathlib import Path

from include.sources.base import Source

# What sources of one kind share. These packages are no sources.
KINDS = ("mirror",)


def _packages() -> tuple[str, ...]:
    found = {path.parent.name for path in Path(__file__).parent.glob("*/__init__.py")}
    return tuple(sorted(found - set(KINDS)))


REGISTRY = _packages()


def get_source(name: str) -> Source:
    """Return the source's declaration. Raises KeyError naming the known ones."""
    if name not in REGISTRY:
        raise KeyError(f"{name!r} is no source; known are {', '.join(REGISTRY)}")
    return load_source(name)


def load_source(name: str) -> Source:
    """Return what a package declares. Raises ValueError if that has another name than the package."""
    source = import_module(f"include.sources.{name}").SOURCE
    if source.name != name:
        raise ValueError(f"include/sources/{name} declares a source {source.name}: give both the same name")
    return source
