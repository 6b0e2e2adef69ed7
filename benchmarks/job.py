"""A measured piece of work in a process of its own: `python -m benchmarks.job module:function`.

The function is called with `start` and the arguments that come as one JSON line on stdin. It prepares (imports,
connections), calls `start`, works, and returns something JSON. `start` prints `ready` and waits for a line on stdin;
what lies between its return and the function's is measured, processes included that the job has started and waited for.
"""

import json
import os
import resource
import sys
import time
from importlib import import_module


class Clock:
    """Starts the measurement when the parent says so; `out` is where the parent listens."""

    def __init__(self, out):
        self._out = out

    def start(self) -> None:
        print("ready", file=self._out, flush=True)
        sys.stdin.readline()
        self._wall, self._cpu, self._largest = time.monotonic(), _cpu(), _largest_child()

    def stop(self) -> dict[str, float]:
        """Seconds of wall and CPU time, and `child`: the peak memory of the largest process that the job started.

        The memory is in bytes, 0 if no such process was larger than the job was when it started it.
        """
        wall, cpu, largest = time.monotonic() - self._wall, _cpu() - self._cpu, _largest_child()
        return {"wall": wall, "cpu": cpu, "child": largest if largest > self._largest else 0}


def _cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _largest_child() -> int:
    """The peak resident memory, in bytes, of the largest process that this one has waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    # What libraries print must not come between the parent's lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module, _, function = sys.argv[1].partition(":")
    arguments = json.loads(sys.stdin.readline())
    clock = Clock(out)
    result = getattr(import_module(module), function)(clock.start, **arguments)
    print(json.dumps({"result": result, **clock.stop()}), file=out, flush=True)


if __name__ == "__main__":
    main()
