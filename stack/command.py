"""A command of Airflow that is quick at both ends: `python -m stack.command api-server`."""

import atexit
import gc
import os
import runpy
import sys

# Python looks for garbage whenever 700 more objects were made than freed. A start makes a million that stay, and a
# quarter of its time went to that.
OBJECTS = 100_000

_ended_well = False


def run() -> None:
    """Run the command of `sys.argv`. If it ends without an error, so does this process, and at once."""
    global _ended_well
    look_seldom_for_garbage()
    # Called last, since it is the first.
    atexit.register(_leave)
    try:
        runpy.run_module("airflow", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        _ended_well = not end.code
        raise
    _ended_well = True


def look_seldom_for_garbage() -> None:
    """Let this process and those that it forks look for garbage after as many objects as matter."""
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])


def _leave() -> None:
    """Leave without freeing each object: that takes seconds, and the system frees all of them."""
    if _ended_well:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    run()
