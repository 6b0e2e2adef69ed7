"""Which sources this installation has: the setting SYNC_CONFIDENCE_SOURCES of the environment.

Everything that depends on it asks here: DAGs, pools, the watch, pages, readiness, the stack.
"""

import os
from collections.abc import Mapping

from include.sources import REGISTRY

SETTING = "SYNC_CONFIDENCE_SOURCES"


class WrongSources(ValueError):
    """The setting names no source, or one that does not exist. The message says in one line what to do."""


class NotInstalled(Exception):
    """The installation does not have the source. The message says in one line what to do."""


def installed_sources(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the sources that the setting names, in the registry's order; all if it is not set.

    `environment`: in place of this process's own. Raises WrongSources.
    """
    setting = (os.environ if environment is None else environment).get(SETTING)
    if setting is None:
        return REGISTRY
    names = [name.strip() for name in setting.split(",")]
    wrong = _wrong(names)
    if wrong:
        raise WrongSources(
            f"{SETTING}={setting[:200]!r} in the environment {wrong}: name one or more of {', '.join(REGISTRY)},"
            " separated by commas, then start everything again"
        )
    return tuple(source for source in REGISTRY if source in names)


def left_out_sources(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the sources that the setting does not name. Raises WrongSources."""
    installed = installed_sources(environment)
    return tuple(source for source in REGISTRY if source not in installed)


def is_installed(source: str) -> bool:
    """Return whether the installation has the source. Raises WrongSources."""
    return source in installed_sources()


def require_installed(source: str) -> None:
    """Raise NotInstalled if the setting does not name the source, WrongSources if it is wrong."""
    if not is_installed(source):
        raise NotInstalled(left_out_line(source))


def left_out_line(source: str) -> str:
    """Say in one line that the source is left out of this installation, and how to add it."""
    return f"{source} is not set up here, and its data in the warehouse are kept: add it to {SETTING} to use it again"


def _wrong(names: list[str]) -> str | None:
    """Return what is wrong with the names, None if nothing is."""
    if not any(names):
        return "names no source"
    if not all(names):
        return "has a comma with no name beside it"
    unknown = sorted({name for name in names if name not in REGISTRY})
    if unknown:
        return f"names {', '.join(map(repr, unknown))}, which is no source"
    twice = sorted({name for name in names if names.count(name) > 1})
    return f"names {', '.join(twice)} twice" if twice else None
