"""The pool of each source's writer. It has one slot, so that nothing else writes to the copy meanwhile."""

from collections.abc import Mapping
from typing import Any

from include.sources.installed import installed_sources


def pool_name(source: str) -> str:
    """Return the name of the pool of the source's writer."""
    return f"{source}_writer"


def declared_pools() -> Mapping[str, Mapping[str, Any]]:
    """Return the pool of each installed source's writer by its name, as it should be while nothing is stopped."""
    return {
        pool_name(source): {
            "slots": 1,
            "include_deferred": True,
            "description": f"Tasks that write the copy of {source}. 0 slots: the writer is stopped.",
        }
        for source in installed_sources()
    }
