"""The stack's commands: `python -m stack up | down | status | run | env | demo`."""

import argparse
import shlex
import sys
import time

from stack import supervisor
from stack.control import Stack
from stack.guardian import POLL_SECONDS, StackError
from stack.settings import API_PORT, Home


def main() -> int:
    arguments = _arguments()
    home = Home.default()
    stack = Stack(home.folder, api_port=getattr(arguments, "api_port", 0))
    try:
        match arguments.command:
            case "run":
                return supervisor.run(home, arguments.api_port, arguments.owner)
            case "demo":
                # Brings a client of each source's vendor, which no other command needs.
                from stack import demo

                return demo.run(stack, once=arguments.once)
            case "up":
                _up(stack)
            case "down":
                stack.stop()
            case "status":
                return _status(stack)
            case "env":
                _print_exports(stack)
    except StackError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    return 0


def _up(stack: Stack) -> None:
    if stack.runs:
        print("stack: it runs already")
        while stack.runs and not stack.is_ready:
            time.sleep(POLL_SECONDS)
    else:
        for line in stack.start(owned=False):
            print(line, flush=True)
    _print_address(stack)


def _status(stack: Stack) -> int:
    if stack.is_ready:
        _print_address(stack)
        return 0
    print("starting, or ending" if stack.runs else "not running")
    return 1


def _print_address(stack: Stack) -> None:
    print(f"Airflow: {stack.api_url}  user admin, password {stack.password('admin')}")


def _print_exports(stack: Stack) -> None:
    """Print what `eval` needs to make this shell's `airflow` the stack's."""
    for name, value in stack.env.items():
        if name.startswith("AIRFLOW") or name in ("PYTHONPATH", "NO_PROXY", "no_proxy"):
            print(f"export {name}={shlex.quote(value)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start in the background; returns when everything is ready")
    commands.add_parser("down", help="end everything and wait for it")
    commands.add_parser("status", help="say whether it runs, and where")
    run = commands.add_parser("run", help="run in the foreground until Ctrl-C")
    commands.add_parser("env", help="print the exports that make `airflow` use this stack")
    demo = commands.add_parser("demo", help="play the demo on the stack, then stay up until Ctrl-C")
    demo.add_argument("--once", action="store_true", help="end everything after the demo")
    for command in (up, run, demo):
        command.add_argument(
            "--api-port",
            type=int,
            default=API_PORT,
            help="of Airflow's UI; the next free one when it is busy, 0: any",
        )
    run.add_argument("--owner", type=int, help="the parent's process id: the stack ends when it does")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
