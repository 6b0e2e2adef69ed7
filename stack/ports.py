"""TCP ports on the loopback interface."""

import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"


def hostname() -> str:
    """Return where Airflow finds the log servers of this machine's parts."""
    return LOOPBACK


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return different ports that nobody uses, chosen by the system."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in sockets]


def free_port() -> int:
    """Return a port that nobody uses, chosen by the system."""
    return free_ports(1)[0]


def first_free(port: int) -> int:
    """Return `port`, or the first free one of the hundred after it; any free one when all those are busy."""
    return next(filter(is_free, range(port, port + 101)), None) or free_port()
