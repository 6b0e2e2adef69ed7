"""The stages of the sources, each opened once in a process when it is first asked for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module

import pytest

from stack.postgres import Server
from tests.liar.plan import Heard
from tests.liar.play import Outcome, listen
from tests.liar.stage import Stage

Opened = tuple[Stage, Heard, list[Outcome]]


@pytest.fixture(scope="session")
def open_stage(postgres: Server, migrated: str) -> Iterator[Callable[[str], Opened]]:
    """Open a source's stage and listen to honest runs on it, or give the one that is open."""
    opened: dict[str, Opened] = {}
    with ExitStack() as stages:

        def open_stage(source: str) -> Opened:
            if source not in opened:
                vendor = import_module(f"tests.liar.{source}").Vendor()
                stage = stages.enter_context(Stage(vendor, postgres, migrated).opened())
                opened[source] = stage, *listen(stage)
            return opened[source]

        yield open_stage
