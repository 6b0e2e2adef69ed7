"""A Square seller to test against: API v2, deterministic data, changes, time and faults to order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from include.simulators import serving
from include.simulators.square.app import create
from include.simulators.square.changes import Mutation
from include.simulators.square.config import Config
from include.simulators.square.control import Control
from include.simulators.square.faults import Fault
from include.simulators.square.seller import Counters, Seller

__all__ = ["Config", "Control", "Counters", "Fault", "Mutation", "Simulator", "running"]


@dataclass(frozen=True)
class Simulator:
    """A running simulator: `url` without the API's base path, the token it wants, and its control."""

    url: str
    token: str
    control: Control


@contextmanager
def running(config: Config | None = None) -> Iterator[Simulator]:
    """Serve a seller on a free loopback port, in a thread; nothing of it is left afterwards."""
    config = config or Config()
    with serving.in_thread(create(Seller(config))) as url:
        yield Simulator(url, config.token, Control(url))
