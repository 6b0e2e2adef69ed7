"""A simulator as a command: `python -m include.simulators.<name>` serves until SIGTERM or Ctrl-C."""

import os
import signal
import socket
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from starlette.types import ASGIApp

from include.simulators import serving


def parser(name: str, description: str) -> ArgumentParser:
    """The options that each simulator has."""
    options = ArgumentParser(
        prog=f"python -m include.simulators.{name}",
        description=description,
        formatter_class=RawDescriptionHelpFormatter,
    )
    options.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    options.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    options.add_argument("--latency-ms", type=int, default=0, help="milliseconds that each answer takes")
    return options


def listen(name: str, given: Namespace) -> socket.socket:
    """A listening socket where the options say; if there is none to be had the process ends with a line about it."""
    try:
        return serving.listen(given.host, given.port)
    except OSError as failed:
        raise SystemExit(
            f"{name} simulator: can't listen on {given.host}:{given.port} ({os.strerror(failed.errno)}); "
            "choose another --port"
        ) from failed


def announce(name: str, listener: socket.socket) -> None:
    """Print the address on which the simulator listens. Whoever started it waits for this line."""
    print(f"{name} simulator: {serving.url_of(listener)}", flush=True)


def serve(name: str, app: ASGIApp, listener: socket.socket) -> None:
    """Announce `app`, then serve it until SIGTERM or SIGINT, which end the process with code 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    announce(name, listener)
    serving.server(app).run(sockets=[listener])
