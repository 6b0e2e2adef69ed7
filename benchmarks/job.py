"""A measured piece of work in a process of its own: `python -m benchmarks.job module:function`.

The function is called with `start` and the arguments that come as one JSON line on stdin. It prepares (imports,
connections), calls `start`, works, and returns something JSON. `start` prints `ready` and waits for a line on stdin;
what lies between its return and the function's is measured.
"""

import json
import os
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
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def stop(self) -> dict[str, float]:
        return {"wall": time.monotonic() - self._wall, "cpu": time.process_time() - self._cpu}


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
